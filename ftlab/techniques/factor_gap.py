"""How far the mean of low-rank factors lies from the factors' mean product."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_DOWN = re.compile(r"^(.*)\.lora_A\.([^.]+)\.weight$")


class FactorGap:
    """Distance of mean(B) mean(A) from mean(B A), of all layers, relative to the latter's norm.

    Sun, Li, Li, Ding (2024), https://arxiv.org/abs/2403.12313, show that clients' updates are averaged
    with this error.

    Args:
        names: of the tensors that are averaged.
    """

    def __init__(self, names: Iterable[str]) -> None:
        found = [(name, match) for name in names if (match := _DOWN.match(name))]
        self.pairs = [(name, f"{match[1]}.lora_B.{match[2]}.weight") for name, match in found]
        every = set(names)
        self.pairs = [pair for pair in self.pairs if pair[1] in every]
        self.clients: list[tuple[int, Mapping[str, Tensor]]] = []
        self.last = math.nan
        """The distance of the last round; not a number where there are no factors."""

    def add(self, tensors: Mapping[str, Tensor], examples: int) -> None:
        """Take a client's tensors."""
        if self.pairs:
            self.clients.append((examples, {name: tensors[name].cpu() for pair in self.pairs for name in pair}))

    def close(self, means: Mapping[str, Tensor]) -> None:
        """End a round.

        Args:
            means: of the clients' tensors, weighed by their examples.
        """
        if not self.pairs or not self.clients:
            return
        total = sum(examples for examples, _ in self.clients)
        away = size = 0.0
        for down, up in self.pairs:
            parts = [(examples / total, own[up].double().flatten(1), own[down].double().flatten(1))
                     for examples, own in self.clients]
            product = [(weight * b, a) for weight, b, a in parts]
            mean = (-means[up].cpu().double().flatten(1), means[down].cpu().double().flatten(1))
            away += _squared([*product, mean])
            size += _squared(product)
        self.last = math.sqrt(max(away, 0.0) / size) if size else math.nan
        self.clients = []


def _squared(products: list[tuple[Tensor, Tensor]]) -> float:
    """Squared Frobenius norm of a sum of products, which is never formed."""
    left = torch.cat([b for b, _ in products], dim=1)
    right = torch.cat([a for _, a in products], dim=0)
    return float(((left.T @ left) * (right @ right.T)).sum())
