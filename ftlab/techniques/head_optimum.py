"""The optimum of a linear head on frozen features, its weight decay given or chosen on validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from ftlab.errors import GuardFailed
from ftlab.techniques.convex_solver import ConvexProblem, Minimum
from ftlab.techniques.features import Features

LOOSE, TIGHT = 1e-3, 1e-6
"""Shares of the first gradient that are left where decays are compared, and in the end."""
MOST = 2000  # iterations
WAIT = 4  # decays that are tried without a better one


class ByEpochs(Exception):
    """The optimum of a head cannot be computed, so that it trains by epochs; says why."""


@dataclass(frozen=True)
class HeadOptimum:
    """The linear layer that minimises mean loss + decay / 2 * |weight|^2 over the training rows.

    Attributes:
        weight, bias: in float64; no bias where the layer has none.
        decay: that it is the optimum of.
        loss: mean of the training rows, without the decay's part.
        gradient: norm that is left of the gradient, as a share of the first.
        iterations: of the last decay.
        tried: decays.
        scores: the validation metrics.
    """

    weight: Tensor
    bias: Tensor | None
    decay: float
    loss: float
    gradient: float
    iterations: int
    tried: int
    scores: dict[str, float]

    def __str__(self) -> str:
        tried = f", the best of {self.tried} on validation" if self.tried > 1 else ""
        return (f"the head is at its optimum: decay {self.decay:.3g}{tried}; {self.iterations} "
                f"iterations left {self.gradient:.1e} of the gradient's norm")

    def put(self, layer: nn.Linear) -> None:
        """Give a layer these weights."""
        with torch.no_grad():
            layer.weight.copy_(self.weight)
            if self.bias is not None:
                layer.bias.copy_(self.bias)


@dataclass
class HeadProblem:
    """A linear head's optimum; what runs share is computed once.

    Args:
        features: of the examples.
        outputs: of the head.
        biased: whether the head has a bias.
        plain: minimise plain cross-entropy, not the task's own loss.
    """

    features: Features
    outputs: int
    biased: bool = True
    plain: bool = False
    _found: dict[tuple[float, float], Minimum] = field(default_factory=dict)

    @cached_property
    def problem(self) -> ConvexProblem:
        """The problem on the training rows."""
        rows, task = self.features.train, self.features.data.task
        tokens = task.output_type == "tokens"

        def loss_of(outputs: Tensor) -> Tensor:
            if self.plain:
                target = rows.batch["target"]
                return (cross_entropy(outputs, target) if target.ndim == 1 else
                        binary_cross_entropy_with_logits(outputs, target.to(outputs.dtype)))
            return task.loss(outputs[:, None] if tokens else outputs, rows.batch)

        def slope(outputs: Tensor) -> tuple[Tensor, Tensor]:
            self.features.alive()
            with torch.enable_grad():
                given = outputs.detach().requires_grad_()
                loss = loss_of(given)
                (rise,) = torch.autograd.grad(loss, given)
            return loss.detach(), rise

        return ConvexProblem(rows.features, self.outputs, slope, self.biased)

    def minimum(self, decay: float, tolerance: float) -> Minimum:
        """The minimum for a decay, sought from that of the nearest one known.

        Raises:
            GuardFailed: it was not reached.
        """
        kept = self._found.get((decay, tolerance))
        if kept is not None:
            return kept
        near = min(self._found, key=lambda known: abs(math.log(known[0] / decay)), default=None)
        start = None if near is None else self._found[near]
        found = self.problem.minimise(decay, start, tolerance, MOST)
        if not found.gradient <= tolerance:
            raise GuardFailed(
                f"the head's optimum was not reached: after {found.iterations} iterations the "
                f"gradient's norm is {found.gradient:.2g} of the first, and {tolerance:g} is asked "
                f"(decay {decay:.3g})", "give a larger decay, or a smaller C")
        self._found[decay, tolerance] = found
        return found

    def at(self, decay: float, tried: int = 1) -> HeadOptimum:
        """The optimum for a decay.

        Raises:
            GuardFailed: it was not reached.
        """
        found = self.minimum(decay, TIGHT)
        weight, bias = self.problem.unturned(found)
        loss = found.loss - decay / 2 * float(found.weight.square().sum())
        return HeadOptimum(weight, bias if self.biased else None, decay, loss, found.gradient,
                           found.iterations, tried, self.features.measure(self._outputs(found)))

    def best(self, decays: Iterable[float]) -> HeadOptimum:
        """The optimum for the decay that validation prefers; of equals the first.

        Args:
            decays: falling; given up where several in a row are no better.

        Raises:
            GuardFailed: it was not reached.
        """
        best, chosen, tried, waited = (-math.inf, -math.inf), math.nan, 0, 0
        for decay in decays:
            tried += 1
            score = self.features.score(self._outputs(self.minimum(decay, LOOSE)))
            waited = 0 if score > best else waited + 1
            if score > best:
                best, chosen = score, decay
            if waited == WAIT:
                break
        if math.isnan(chosen):
            raise GuardFailed(f"val/{self.features.select_by} is not a number for any decay")
        return self.at(chosen, tried)

    def decays(self) -> Sequence[float]:
        """Falling from where next to nothing is learned, by half a power of ten."""
        steepest = self.problem.steepest
        return [steepest * 10 ** (-step / 2) for step in range(17)]

    @property
    def rows(self) -> int:
        """Training rows."""
        return len(self.features.train.features)

    def _outputs(self, found: Minimum) -> Callable[[Tensor], Tensor]:
        weight, bias = self.problem.unturned(found)
        return lambda features: features.double() @ weight.T + bias


Solver = Callable[[HeadProblem], HeadOptimum]
"""Computes the optimum that a technique wants of a head."""
