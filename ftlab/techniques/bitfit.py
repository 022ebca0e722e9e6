from __future__ import annotations

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.techniques.base import LogUniform, Optimization, Technique, freeze_all_but_head


class BitFit(Technique):
    """Train only the bias vectors and the head.

    Ben Zaken, Ravfogel, Goldberg (2022), https://arxiv.org/abs/2106.10199

    Args:
        lr: peak learning rate; 10 to 100 times full fine-tuning's.
        optim: optimizer and schedule; biases have no weight decay.
    """

    search_space = {"lr": LogUniform(1e-4, 1e-2)}

    def __init__(self, lr: float = 1e-3, optim: Optimization = Optimization()) -> None:
        super().__init__(lr, optim)

    def adapt(self, model: TaskModel) -> None:
        freeze_all_but_head(model)
        biases = [
            parameter
            for block in model.blocks
            for name, parameter in block.named_parameters()
            if name.endswith("bias")
        ]
        if not biases:
            raise Incompatible(
                "BitFit trains bias vectors, and this backbone has none",
                "take NormTuning or LoRA for it",
            )
        for parameter in biases:
            parameter.requires_grad_(True)
