"""Checks that fail a run loudly, so that no wrong number reaches a table."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ftlab.backbones.model import TaskModel
from ftlab.backbones.new_tokens import is_delta
from ftlab.errors import GuardFailed
from ftlab.techniques.base import Technique
from ftlab.training.sharding import full

_WIDTH = 1024  # words of a row, in `digest`


def digest(tensor: Tensor) -> tuple[int, int]:
    """Two sums that tell, with 64-bit accumulation, whether a tensor changed.

    A hash would read every byte through Python; these cost two passes at memory speed. They
    take the bits, not the values, so that even a changed sign of zero shows.
    """
    bits = tensor.detach().contiguous().view(-1).view(torch.uint8)
    words = bits[: bits.numel() // 8 * 8].view(torch.int64)
    rest = bits[bits.numel() // 8 * 8 :].to(torch.int64)
    table = words[: words.numel() // _WIDTH * _WIDTH].view(-1, _WIDTH)
    tail = words[table.numel() :]
    rows, odd = table.sum(dim=1), torch.arange(1, 2 * _WIDTH, 2, device=bits.device)
    total = rows.sum() + tail.sum()
    # each word times 1, 3, 5, ...: 2 * _WIDTH * row + odd[column]; it wraps around, which is what
    # makes it a checksum, and lets sums over rows and columns stand for the products
    mixed = (table.sum(dim=0) * odd).sum() + (tail * (odd[: len(tail)] + 2 * table.numel())).sum()
    mixed += (rows * torch.arange(len(rows), device=bits.device)).sum() * (2 * _WIDTH)
    if len(rest):
        total += (rest << (8 * torch.arange(len(rest), device=bits.device))).sum()
    return int(total.item()), int(mixed.item())


class TensorGuard:
    """Remembers every parameter and buffer before training; afterwards says which moved.

    Args:
        model: the adapted model, before training.
    """

    def __init__(self, model: TaskModel) -> None:
        self.before = {name: digest(tensor) for name, tensor in _tensors(model).items()}
        self.reached: set[str] = set()

    def moved(self, model: TaskModel, among: set[str] | None = None) -> set[str]:
        """Names of the parameters and persistent buffers that differ from before.

        A sharded model is gathered tensor by tensor, so all ranks must ask together.

        Args:
            model: it.
            among: only these are looked at; None for all.
        """
        return {n for n, tensor in _tensors(model).items() if (among is None or n in among)
                and digest(full(tensor.detach())) != self.before[n]}

    def note_gradients(self, model: TaskModel) -> None:
        """Remember which parameters have a gradient now."""
        self.reached |= {n for n, p in model.named_parameters() if p.grad is not None}

    def check(self, model: TaskModel, trained: set[str], among: set[str] | None = None) -> None:
        """Hold training to what the technique said it trains.

        Args:
            model: after training.
            trained: what the technique said.
            among: only these are looked at; None for all.

        Raises:
            GuardFailed: a trained tensor got no gradient or never moved, a frozen one changed.
        """
        moved = self.moved(model, among) & {name for name, _ in model.named_parameters()}
        complaints = {
            "got no gradient": sorted(trained - self.reached),
            # a new token that no training text has stays where it is
            "never moved": sorted(name for name in (trained & self.reached) - moved
                                  if not is_delta(name)),
            "changed though frozen": sorted(moved - trained),
        }
        for complaint, names in complaints.items():
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                raise GuardFailed(f"tensors {complaint}: {', '.join(names[:3])}{more}")


def _tensors(model: TaskModel) -> dict[str, Tensor]:
    """Parameters (tied ones once) and persistent buffers, by name."""
    state = model.state_dict()
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    return {name: state[name] for name in names if name in state}


def check_identity(
    before: Sequence[Tensor], after: Sequence[Tensor], technique: Technique
) -> None:
    """Hold a technique to its claim that it starts as the unadapted model.

    Args:
        before: comparable outputs of the unadapted model in eval mode.
        after: those of the adapted model for the same batch.
        technique: for its claim and name.

    Raises:
        GuardFailed: they differ.
    """
    if technique.identity_at_start and not close(before, after):
        raise GuardFailed(
            f"{type(technique).__name__} claims to start as the identity, but outputs differ by "
            f"{_gap(before, after):.2g}"
        )


def check_merge(unmerged: Sequence[Tensor], merged: Sequence[Tensor]) -> None:
    """Hold a merged model to the unmerged one.

    Raises:
        GuardFailed: their outputs differ by more than rounding.
    """
    if not close(unmerged, merged, factor=10):  # another order of summation
        raise GuardFailed(f"merged and unmerged outputs differ by {_gap(unmerged, merged):.2g}")


def close(a: Sequence[Tensor], b: Sequence[Tensor], factor: float = 1) -> bool:
    """Equal, tensor by tensor, up to the rounding of their dtype."""
    return len(a) == len(b) and all(_close(x, y, factor) for x, y in zip(a, b, strict=True))


def _close(a: Tensor, b: Tensor, factor: float) -> bool:
    tolerance = factor * (1e-4 if a.dtype in (torch.float32, torch.float64) else 5e-2)
    return a.shape == b.shape and torch.allclose(
        a.float(), b.float(), rtol=tolerance, atol=tolerance, equal_nan=True
    )


def _gap(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    if [x.shape for x in a] != [y.shape for y in b]:
        return math.inf
    return max(float((x.float() - y.float()).abs().max()) for x, y in zip(a, b, strict=True))
