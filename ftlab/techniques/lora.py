from __future__ import annotations

from peft import LoraConfig
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN
from torch import nn

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.techniques.base import Choice, LogUniform, Optimization, Technique
from ftlab.techniques.peft_injection import choose_targets, exactly, inject, merge_injected


class LoRA(Technique):
    """Train low-rank updates beside frozen weights: W x + (alpha / rank) B A x, and the head.

    B starts at zero, so training starts from the backbone's own function. Convolutions get
    low-rank updates as well, grouped (depthwise) ones excepted. The layers are PEFT's.

    Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen (2022), https://arxiv.org/abs/2106.09685

    Args:
        rank: inner width of the update.
        alpha: scale of the update, divided by the rank; None for twice the rank.
        dropout: probability on the update's input.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice
            (query and value projections in most transformers), every layer where it has none.
        last: adapt the last so many blocks alone, counted from the output, so that those before
            them can be computed once; None for all blocks.
        lr: peak learning rate; 10 to 100 times full fine-tuning's.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-4, 5e-3), "rank": Choice((4, 8, 16, 32))}

    def __init__(
        self,
        rank: int = 8,
        alpha: float | None = None,
        dropout: float = 0.0,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 1e-3,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__(lr, optim)
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1, got {dropout}")
        if last is not None and last < 1:
            raise ValueError(f"last must be at least 1, got {last}")
        self.rank, self.dropout, self.targets, self.last = rank, dropout, targets, last
        self.alpha = 2.0 * rank if alpha is None else alpha

    def adapt(self, model: TaskModel) -> None:
        if self.last is not None and self.last > len(model.blocks):
            raise Incompatible(f"LoRA(last={self.last}): the model has {len(model.blocks)} blocks",
                               "choose a smaller `last`, or null for all")
        paths = choose_targets(model, "LoRA", KNOWN, self.targets, self.last)
        config = LoraConfig(
            r=self.rank,
            # PEFT declares an integer and only ever divides it by the rank.
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=exactly(paths),
        )
        inject(model, config)

    def merge(self, model: nn.Module) -> bool:
        return merge_injected(model)
