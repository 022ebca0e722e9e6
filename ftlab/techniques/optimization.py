"""How the trainable parameters are updated: optimizer, weight decay and schedule."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch

from ftlab.techniques import optimizers
from ftlab.techniques.optimizers.base import Optimizer
from ftlab.wording import did_you_mean


@dataclass(frozen=True)
class Optimization:
    """How the trainable parameters are updated.

    Args:
        optimizer: a file of `ftlab/techniques/optimizers`: `adamw` (Loshchilov and Hutter 2019),
            `adam`, `sgd` (momentum 0.9) and others.
        weight_decay: decoupled for AdamW; never on biases, norms and other vectors.
        schedule: of the learning rate over all steps: `constant`, `linear` or `cosine` to zero,
            `one-cycle` (Smith 2018: up over the warm-up, then cosine to zero).
        warmup: fraction of all steps over which the rate rises linearly (fastai's `pct_start`).
        div: of `one-cycle`: the first rate is the peak divided by it; null for 25.
    """

    optimizer: str = "adamw"
    weight_decay: float = 0.01
    schedule: Literal["constant", "linear", "cosine", "one-cycle"] = "linear"
    warmup: float = 0.1
    div: float | None = None

    def __post_init__(self) -> None:
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a fraction from 0 to below 1, got {self.warmup}")
        if self.div is not None and self.schedule != "one-cycle":
            raise ValueError(f"div is of schedule one-cycle, and schedule is {self.schedule}")
        if self.div is not None and self.div < 1:
            raise ValueError(f"div must be at least 1, got {self.div}")
        if self.optimizer not in names():
            raise ValueError(f"there is no optimizer {self.optimizer!r} "
                             f"({did_you_mean(self.optimizer, names())})")
        if self.optimizer == "adamw":
            return  # takes any, and need not be imported for that
        only = self.kind.schedule
        if only not in (None, self.schedule):
            raise ValueError(f"{self.optimizer} has its own schedule: set schedule: {only}")

    @property
    def kind(self) -> Optimizer:
        """The member of the room that `optimizer` names."""
        return _member(self.optimizer)

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer over parameter groups that carry `lr` and `weight_decay`."""
        return self.kind.build(groups)

    def factor(self, step: int, total: int) -> float:
        """Multiplier of the learning rate at `step` of `total`."""
        warm = self.warmup * total if total > 1 else 0.0  # its only update is to move something
        if step < warm:
            rise, low = step / warm, 1 / (self.div or 25)
            return low + (1 - low) * rise if self.schedule == "one-cycle" else rise
        left = (total - step) / max(1e-9, total - warm)
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "linear":
            return max(0.0, left)
        return 0.5 * (1 + math.cos(math.pi * (1 - min(1.0, max(0.0, left)))))


@cache
def names() -> tuple[str, ...]:
    """Names of the optimizers: the room's files."""
    return tuple(sorted(info.name for info in pkgutil.iter_modules(optimizers.__path__)
                        if info.name != "base"))


@cache
def _member(name: str) -> Optimizer:
    module = importlib.import_module(f"{optimizers.__name__}.{name}")
    kinds = [value for value in vars(module).values() if inspect.isclass(value)
             and issubclass(value, Optimizer) and value.__module__ == module.__name__]
    member: Optimizer = kinds[0]()
    return member
