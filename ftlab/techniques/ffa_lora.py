from __future__ import annotations

import torch

from ftlab.backbones.task_model import TaskModel
from ftlab.techniques.base import Choice, LogUniform, Optimization
from ftlab.techniques.peft_technique import PeftTechnique


class FFALoRA(PeftTechnique):
    """Train LoRA's outer factors alone, beside inner ones that stay at random, and the head.

    Half of LoRA's parameters train, and the mean of several such updates is the update of the means:
    take it within Federated, and with DifferentiallyPrivate, whose noise two factors would multiply.

    Sun, Li, Li, Ding (2024), https://arxiv.org/abs/2403.12313

    Args:
        rank: inner width of the update.
        alpha: scale of the update, divided by the rank.
        dropout: probability on the update's input.
        targets: endings of the names of the layers to adapt, or ["all"]; None for PEFT's choice,
            every layer where it has none.
        last: adapt the last so many blocks alone, counted from the output; None for all blocks.
        lr: peak learning rate; 10 to 100 times full fine-tuning's.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-4, 1e-2), "rank": Choice((4, 8, 16, 32))}

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        targets: list[str] | None = None,
        last: int | None = None,
        lr: float = 2e-3,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__("lora", {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout}, targets, last, lr, optim)

    def adapt(self, model: TaskModel) -> None:
        super().adapt(model)
        generator = torch.Generator().manual_seed(torch.initial_seed() % 2**31)
        for name, parameter in model.named_parameters():
            if ".lora_A." in name:
                parameter.requires_grad_(False)
                drawn = torch.empty(parameter.shape)  # no checkpoint has it: it follows from the seed
                torch.nn.init.kaiming_uniform_(drawn, a=5**0.5, generator=generator)
                with torch.no_grad():
                    parameter.copy_(drawn)
