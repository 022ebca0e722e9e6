from __future__ import annotations

from typing import Any

from ftlab.backbones.task_model import TaskModel
from ftlab.techniques.base import Choice, Technique
from ftlab.techniques.wrapper import Wrapper


class DiscriminativeLR(Wrapper):
    """A wrapper: smaller learning rates towards the input, whatever the technique trains.

    A block's rate is the technique's times `decay` to the power of its distance from the head.

    Howard, Ruder (2018), https://arxiv.org/abs/1801.06146, section 3.2 (a decay of 1/2.6 for
    LSTMs; encoders take 0.65 to 0.95: Clark et al. 2020, https://arxiv.org/abs/2003.10555).

    Args:
        technique: what adapts the model and gives the head's rate.
        decay: factor from one block to the one before it, above 0 and at most 1.
    """

    search_space = {"decay": Choice((0.65, 0.75, 0.85, 0.95))}
    of_training = True

    def __init__(self, technique: Technique, decay: float = 0.85) -> None:
        super().__init__(technique)
        if not 0 < decay <= 1:
            raise ValueError(f"decay must be above 0 and at most 1, got {decay}")
        self.decay = decay

    def param_groups(self, model: TaskModel) -> list[dict[str, Any]]:
        distances = {name: distance for distance, block in enumerate(reversed(model.blocks), 1)
                     for name, _ in block.named_parameters()}
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        parts: list[dict[str, Any]] = []
        for group in self.technique.param_groups(model):
            rates: dict[float, list[Any]] = {}
            for parameter in group["params"]:
                # the rate of the head is its own, and of what trains beside the model
                distance = distances.get(names.get(id(parameter), ""), 0)
                rates.setdefault(group["lr"] * self.decay**distance, []).append(parameter)
            parts += [{**group, "params": params, "lr": rate} for rate, params in rates.items()]
        return parts
