from __future__ import annotations

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.techniques.base import (
    LogUniform,
    Optimization,
    Technique,
    freeze_all_but_head,
    is_norm,
)


class NormTuning(Technique):
    """Train only the normalisation layers (scale, shift, running statistics) and the head.

    For batch normalisation: Frankle, Schwab, Morcos (2021), https://arxiv.org/abs/2003.00152;
    for layer normalisation: Qi, Ruan, Zuo, Li (2022), https://arxiv.org/abs/2211.08682.

    Args:
        lr: peak learning rate; 10 to 100 times full fine-tuning's.
        optim: optimizer and schedule; scales and shifts have no weight decay.
    """

    search_space = {"lr": LogUniform(1e-4, 1e-2)}

    def __init__(self, lr: float = 1e-3, optim: Optimization = Optimization()) -> None:
        super().__init__(lr, optim)

    def adapt(self, model: TaskModel) -> None:
        freeze_all_but_head(model)
        norms = [
            parameter
            for block in model.blocks
            for _, module in block.named_modules()
            if is_norm(module)
            for parameter in module.parameters(recurse=False)
        ]
        if not norms:
            raise Incompatible(
                "NormTuning trains normalisation layers, and this backbone has none",
                "take BitFit or LoRA for it",
            )
        for parameter in norms:
            parameter.requires_grad_(True)
