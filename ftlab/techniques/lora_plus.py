from __future__ import annotations

from typing import Any

from ftlab.backbones.task_model import TaskModel
from ftlab.techniques.base import Choice, LogUniform, Optimization, decayed
from ftlab.techniques.peft_technique import PeftTechnique


class LoRAPlus(PeftTechnique):
    """LoRA+: train LoRA's low-rank updates, B at a higher rate than A, and the head.

    With one rate A learns too fast or B too slowly, the more so the wider the network. Take it where
    LoRA is slow to learn a task that is far from pre-training.

    Hayou, Ghosh, Yu (2024), https://arxiv.org/abs/2402.12354

    Args:
        rank: inner width of the update.
        alpha: scale of the update, divided by the rank; None for twice the rank.
        ratio: of B's rate to that of A and the head, 2 to 32.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer where it has none.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate of A and the head; below LoRA's.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(2e-5, 1e-3), "ratio": Choice((4.0, 8.0, 16.0, 32.0))}

    def __init__(
        self,
        rank: int = 8,
        alpha: float | None = None,
        ratio: float = 16.0,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 2e-4,
        optim: Optimization = Optimization(),
    ) -> None:
        if ratio < 1:
            raise ValueError(f"ratio must be at least 1, got {ratio}")
        scale = 2 * rank if alpha is None else alpha
        super().__init__("lora", {"r": rank, "lora_alpha": scale}, targets, last, lr, optim)
        self.ratio = ratio

    def param_groups(self, model: TaskModel) -> list[dict[str, Any]]:
        fast = {name for name, _ in model.named_parameters() if ".lora_B." in name}
        slow = [(n, p) for n, p in model.named_parameters() if n not in fast]
        others = [(n, p) for n, p in model.named_parameters() if n in fast]
        decay = self.optim.weight_decay
        return decayed(slow, self.lr, decay) + decayed(others, self.ratio * self.lr, decay)
