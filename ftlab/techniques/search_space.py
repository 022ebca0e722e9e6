"""The ranges in which a sweep looks for a technique's hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LogUniform:
    """A hyperparameter's range, uniform in its logarithm."""

    low: float
    high: float


@dataclass(frozen=True)
class Choice:
    """A hyperparameter's choices."""

    options: tuple[Any, ...]


SearchSpace = dict[str, LogUniform | Choice]
