"""Texts that are wholly right."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torchmetrics
from torch import Tensor

from ftlab.tasks.jackknife import Array
from ftlab.tasks.metric import Records


class ExactMatch(torchmetrics.Metric):
    """Fraction of texts that equal their reference.

    Args:
        change: what of both is compared; the whole, white space at both ends aside, where nothing
            else is said.
    """

    full_state_update = False
    right: Tensor
    total: Tensor

    def __init__(self, change: Callable[[str], Hashable] = str.strip) -> None:
        super().__init__()
        self.change = change
        for name in ("right", "total"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, texts: Sequence[str], target: Mapping[str, Any]) -> None:
        """Compare texts with `target["text"]`."""
        pairs = zip(texts, target["text"], strict=True)
        self.right += sum(self.change(ours) == self.change(theirs) for ours, theirs in pairs)
        self.total += len(texts)

    def compute(self) -> Tensor:
        return self.right / self.total


def matches(records: Records, change: Callable[[str], Hashable] = str.strip) -> Array:
    """1 for each text of prediction records that equals its reference, else 0, (N,)."""
    return np.array([change(a) == change(b) for a, b in
                     zip(records["prediction"], records["target"], strict=True)], dtype=np.float64)
