"""What each block's gradient and update look like: where they vanish or explode on their way back."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.training.fsdp import full

REST = "rest"
"""Name of all that a technique has added outside every block."""
ENTRIES = 2**15
"""About so many entries of a block are looked at for zeros and updates; of a larger one every k-th."""
FEWEST = 5
"""Norms of a block that make a median with which the next is compared."""


class BlockGradients:
    """Gradients (before clipping) and updates by block, of the steps that are looked at.

    Numbers stay on their device until an epoch is over, so that no step waits for it. A copy of
    `ENTRIES` of each block is all that is kept from before a step to after it.
    """

    def __init__(self) -> None:
        self._owner: dict[str, str] = {}
        self._seen: list[dict[str, Tensor]] = []  # norm, zeros, entries, change, weights by block
        self._before: dict[str, tuple[list[Tensor], int, Tensor]] = {}
        self._shared_out = False
        self._courses: dict[str, _Course] = {}

    def look(self, model: TaskModel) -> Tensor:
        """Take the gradients that there are; returns the norm of them all, a scalar.

        Sharded gradients are gathered, so all ranks must look together.
        """
        parts: dict[str, list[Tensor]] = {}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                parts.setdefault(self._block(model, name), []).append(parameter)
        self._before = {}
        if not parts:  # the guard says which parameters should have had one
            return torch.zeros(())
        seen = {name: self._look(name, weights) for name, weights in parts.items()}
        self._seen.append(seen)
        return torch.linalg.vector_norm(torch.stack([numbers[0] for numbers in seen.values()]))

    def _look(self, block: str, weights: list[Tensor]) -> Tensor:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        norm = full(torch.nn.utils.get_total_norm(gradients))
        # half precision has three digits, which squares and means would lose
        norm = norm.to(torch.promote_types(norm.dtype, torch.float32))
        sizes = [_local(weight).numel() for weight in weights]
        every = 1 + sum(sizes) // ENTRIES
        while any(math.gcd(every, size) > 1 for size in sizes if size):
            every += 1  # or of a matrix some columns alone would be seen
        self._shared_out = self._shared_out or any(_local(w) is not w for w in weights)
        kept = _some(weights, every)
        self._before[block] = weights, every, kept
        zeros = (_some(gradients, every) == 0).sum()
        return torch.stack([norm, zeros.to(norm), *norm.new_tensor([kept.numel(), 0.0, 0.0])])

    def follow(self) -> None:
        """See how far the step has moved what `look` saw."""
        for block, (weights, every, before) in self._before.items():
            moved = _some(weights, every)
            numbers = self._seen[-1][block]
            dtype = numbers.dtype
            numbers[3] = (moved.to(dtype) - before.to(dtype)).square().sum()
            numbers[4] = before.to(dtype).square().sum()
        self._before = {}

    def take(self) -> dict[str, float]:
        """Measures of each block since the last call, of steps with a finite gradient.

        `train/grad_norm/<block>` is the root mean square of its norms, `train/grad_zeros/...` the
        share of entries that are exactly 0, `train/update_ratio/...` the norm of a step's change
        over that of the tensors that it changes, and `train/grad_burst/...` the largest norm since
        the fit began in units of the median of those before it.

        Nothing where a single block trains, a head on frozen features say: there is nothing to
        compare it with, and `train/grad_norm` is the same.
        """
        seen, self._seen = self._seen, []
        names = list(dict.fromkeys(name for numbers in seen for name in numbers))
        if len(names) < 2:
            return {}
        found: dict[str, float] = {}
        for name, rows in zip(names, self._rows(seen, names), strict=True):
            found |= {f"train/{what}/{name}": value for what, value in _summary(rows).items()}
            course = self._courses.setdefault(name, _Course())
            course.add(row[0] for row in rows)
            if course.worst:
                found[f"train/grad_burst/{name}"] = course.worst
        return found

    def _rows(self, seen: list[dict[str, Tensor]], names: list[str]) -> list[list[list[float]]]:
        """The numbers of each step by block, from one copy off the device; those of all ranks."""
        numbers = torch.stack([each[name] for name in names for each in seen if name in each])
        if self._shared_out:
            sums = numbers[:, 1:].contiguous()
            torch.distributed.all_reduce(sums)
            numbers = torch.cat([numbers[:, :1], sums], dim=1)
        rows = iter(numbers.tolist())
        return [[next(rows) for each in seen if name in each] for name in names]

    def _block(self, model: TaskModel, parameter: str) -> str:
        """The block of a parameter; found once, since looking at every path takes milliseconds."""
        if parameter not in self._owner:
            blocks = [*model.blocks, model.head]
            self._owner |= {name: next((b.name for b in blocks if b.holds(name)), REST)
                            for name, _ in model.named_parameters()}
        return self._owner[parameter]


@dataclass
class _Course:
    """The norms of one block since the fit began.

    A norm is compared with the median of those before it, or with that of the first epoch where
    this is larger: towards the end of a fit most gradients may be next to nothing.
    """

    norms: list[float] = field(default_factory=list)  # rising
    first: float = 0.0
    worst: float = 0.0

    def add(self, norms: Iterable[float]) -> None:
        begins = not self.norms
        for norm in filter(math.isfinite, norms):
            typical = max(self._median(), self.first)
            if len(self.norms) >= FEWEST and typical > 0:
                self.worst = max(self.worst, norm / typical)
            bisect.insort(self.norms, norm)
        if begins:
            self.first = self._median()

    def _median(self) -> float:
        return self.norms[len(self.norms) // 2] if self.norms else 0.0


def _summary(rows: list[list[float]]) -> dict[str, float]:
    # a scaler skips a step whose gradient is not finite
    kept = [row for row in rows if math.isfinite(row[0])] or rows
    norms, zeros, entries, change, weights = zip(*kept, strict=True)
    found = {"grad_norm": math.sqrt(sum(norm**2 for norm in norms) / len(kept)),
             "grad_zeros": sum(zeros) / max(1.0, sum(entries))}
    if sum(weights) > 0:  # biases that begin at zero are in relation to nothing
        found["update_ratio"] = math.sqrt(sum(change) / sum(weights))
    return found


def _local(tensor: Tensor) -> Tensor:
    """The part of a tensor that lies here."""
    shard = getattr(tensor, "to_local", None)
    return tensor if shard is None else shard()


def _some(tensors: list[Tensor], every: int) -> Tensor:
    """Every so many entries of the tensors, in a copy."""
    return torch.cat([_local(tensor.detach()).flatten()[::every] for tensor in tensors])
