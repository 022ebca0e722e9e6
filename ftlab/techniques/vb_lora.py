from __future__ import annotations

from typing import Any

from ftlab.backbones.task_model import TaskModel
from ftlab.techniques.base import Choice, LogUniform, Optimization, decayed
from ftlab.techniques.peft_technique import PeftTechnique

FASTER = 10  # the paper's rates: 1e-2 for the logits, 1e-3 for the bank


class VBLoRA(PeftTechnique):
    """Train a bank of vectors of which all low-rank updates are mixed, the mixtures, and the head.

    The rate of the mixtures' logits is ten times the bank's. It does not start as the backbone, since
    mixtures start at random. Take it for many layers with few numbers. Linear layers only.

    Li, Han, Ji (2024), https://arxiv.org/abs/2405.15179

    Args:
        rank: inner width of the updates.
        vectors: in the bank.
        length: of a vector, which the layers' widths are multiples of; None for 256, or the largest
            below it.
        top: how many vectors are mixed at once.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer that it is right on where it has none.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate of the bank and the head.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(2e-4, 1e-2), "vectors": Choice((64, 256, 1024))}

    def __init__(
        self,
        rank: int = 4,
        vectors: int = 256,
        length: int | None = None,
        top: int = 2,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 1e-3,
        optim: Optimization = Optimization(),
    ) -> None:
        if not 1 <= top <= vectors:
            raise ValueError(f"top must be from 1 to {vectors}, the vectors, got {top}")
        config = {"r": rank, "num_vectors": vectors, "vector_length": length, "topk": top}
        super().__init__("vblora", config, targets, last, lr, optim)

    def param_groups(self, model: TaskModel) -> list[dict[str, Any]]:
        logits = [(n, p) for n, p in model.named_parameters() if ".vblora_logits_" in n]
        names = {name for name, _ in logits}
        others = [(n, p) for n, p in model.named_parameters() if n not in names]
        decay = self.optim.weight_decay
        return decayed(others, self.lr, decay) + decayed(logits, FASTER * self.lr, decay)
