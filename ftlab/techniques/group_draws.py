"""Draws of examples by their groups, and the score of the worst group."""

from __future__ import annotations

import torch
from torch import Tensor


def halves(codes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions of two halves, drawn within each group; the second has the odd examples.

    Args:
        codes: group of each example (N,).
        generator: of the draw.
    """
    parts = _shuffled(codes, generator)
    return (torch.cat([part[:len(part) // 2] for part in parts]),
            torch.cat([part[len(part) // 2:] for part in parts]))


def balanced(codes: Tensor, generator: torch.Generator) -> Tensor:
    """Positions of as many examples of each group as the smallest has, drawn.

    Args:
        codes: group of each example (N,).
        generator: of the draw.
    """
    parts = _shuffled(codes, generator)
    return torch.cat([part[:min(map(len, parts))] for part in parts])


def _shuffled(codes: Tensor, generator: torch.Generator) -> list[Tensor]:
    parts = [(codes == code).nonzero().flatten() for code in codes.unique()]
    return [part[torch.randperm(len(part), generator=generator)] for part in parts]


def worst_accuracy(right: Tensor, codes: Tensor) -> float:
    """The accuracy of the group in which least is right.

    Args:
        right: of each example (N,).
        codes: group of each (N,).
    """
    return min(float(right[codes == code].double().mean()) for code in codes.unique())
