"""The minimum of a convex loss over a linear layer, by L-BFGS in float64.

L-BFGS: Liu, Nocedal (1989), https://doi.org/10.1007/BF01589116. Two things make it short here.
Features are turned into the directions of their covariance, whose variances scale the first guess
of the inverse Hessian: exact for squared errors, which take one step. And outputs are linear along
a direction, so that the search on it costs no matrix product: a step costs two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Slope = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Outputs (N, O) -> mean loss (), its gradient by the outputs (N, O)."""

HISTORY = 12
LINE, DECREASE = 30, 0.5  # tries on a line, and by how much its slope must fall


@dataclass(frozen=True)
class Minimum:
    """A linear layer that minimises mean loss + decay / 2 * |weight|^2.

    Attributes:
        weight: of turned features, (O, D).
        bias: (O,); stays 0 where the layer has none.
        loss: with the decay's part.
        gradient: norm of the gradient, as a share of that of a layer of zeros.
        iterations: that it took.
    """

    weight: Tensor
    bias: Tensor
    loss: float
    gradient: float
    iterations: int


@dataclass
class ConvexProblem:
    """A convex, differentiable loss of a linear layer's outputs for fixed rows.

    Args:
        features: (N, D) in float64.
        outputs: of the layer, O.
        slope: of the loss.
        bias: whether the layer has one; it is not decayed.
    """

    features: Tensor
    outputs: int
    slope: Slope
    bias: bool = True
    mean: Tensor = field(init=False)
    scale: float = field(init=False)
    """Norm of the gradient of a layer of zeros."""

    def __post_init__(self) -> None:
        count, width = self.features.shape
        self.mean = self.features.mean(dim=0) if self.bias else self.features.new_zeros(width)
        centred = self.features - self.mean
        spectrum, self.turn = torch.linalg.eigh(centred.T @ centred / count)
        self.spectrum = spectrum.clamp(min=0)
        self.rows = centred @ self.turn
        zeros = self.rows.new_zeros(self.outputs, width), self.rows.new_zeros(self.outputs)
        _, rise = self.slope(self.rows @ zeros[0].T)
        self.zeros, self.scale = zeros, float(_norm(self._gradient(rise, zeros[0], 0.0)))

    @property
    def steepest(self) -> float:
        """The largest curvature of the loss at zeros: with far more decay nothing is learned."""
        # above 0 where all examples have the same features, which leave nothing to learn but biases
        return max(float(self.spectrum.max()) * self._curvature(self.rows @ self.zeros[0].T), 1e-12)

    def unturned(self, found: Minimum) -> tuple[Tensor, Tensor]:
        """Weight and bias for the features as they came."""
        weight = found.weight @ self.turn.T
        return weight, found.bias - weight @ self.mean

    def minimise(self, decay: float, start: Minimum | None, tolerance: float, most: int) -> Minimum:
        """Minimise from where another decay's minimum is, or from zeros.

        Args:
            decay: above 0.
            start: of another decay.
            tolerance: of `Minimum.gradient`; what is returned may miss it after `most` iterations.
            most: iterations.
        """
        weight, bias = (self.zeros if start is None else (start.weight, start.bias))
        outputs = self.rows @ weight.T + bias
        loss, rise = self.slope(outputs)
        gradient = self._gradient(rise, weight, decay)
        guess = 1 / (self._curvature(outputs) * self.spectrum + decay)
        level = 1 / max(self._curvature(outputs), 1e-12)
        past: deque[tuple[Tensor, Tensor]] = deque(maxlen=HISTORY)
        wanted, iterations = tolerance * self.scale, 0
        while float(_norm(gradient)) > wanted and iterations < most:
            iterations += 1
            turn, lift = self._split(-self._times_inverse(gradient, past, guess, level))
            along = self.rows @ turn.T + lift
            step, loss, rise = self._search(outputs, along, weight, turn, decay)
            if step == 0.0:
                break  # rounding leaves nothing to gain
            weight, bias, outputs = weight + step * turn, bias + step * lift, outputs + step * along
            before, gradient = gradient, self._gradient(rise, weight, decay)
            moved = step * torch.cat([turn, lift[:, None]], dim=1).flatten()
            change = gradient - before
            if float(moved @ change) > 1e-14 * float(_norm(moved) * _norm(change)):
                past.append((moved, change))
        total = float(loss) + decay / 2 * float(weight.square().sum())
        return Minimum(weight, bias, total, float(_norm(gradient)) / max(self.scale, 1e-300),
                       iterations)

    def _gradient(self, rise: Tensor, weight: Tensor, decay: float) -> Tensor:
        """By weight and bias, as one vector of rows (O, D + 1)."""
        lift = rise.sum(dim=0) if self.bias else rise.new_zeros(self.outputs)
        return torch.cat([rise.T @ self.rows + decay * weight, lift[:, None]], dim=1).flatten()

    def _split(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        rows = vector.view(self.outputs, -1)
        return rows[:, :-1], rows[:, -1] if self.bias else torch.zeros_like(rows[:, -1])

    def _curvature(self, outputs: Tensor) -> float:
        """The mean second derivative of an example's loss by one of its outputs, estimated."""
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, outputs.shape, generator=generator).to(outputs) * 2 - 1
        little = 1e-4
        rises = [self.slope(outputs + sign * little * signs)[1] for sign in (1, -1)]
        return max(float(((rises[0] - rises[1]) * signs).sum()) / (2 * little * self.outputs), 1e-9)

    def _times_inverse(self, gradient: Tensor, past: deque[tuple[Tensor, Tensor]], guess: Tensor,
                       level: float) -> Tensor:
        """The inverse Hessian, as the last steps show it, times a gradient."""
        vector, shares = gradient.clone(), []
        for moved, change in reversed(past):
            share = float(moved @ vector) / float(moved @ change)
            vector -= share * change
            shares.append(share)
        if past:
            moved, change = past[-1]
            vector *= float(moved @ change) / float(change @ self._guessed(change, guess, level))
        vector = self._guessed(vector, guess, level)
        for (moved, change), share in zip(past, reversed(shares), strict=True):
            vector += (share - float(change @ vector) / float(moved @ change)) * moved
        return vector

    def _guessed(self, vector: Tensor, guess: Tensor, level: float) -> Tensor:
        rows = vector.view(self.outputs, -1)
        return torch.cat([rows[:, :-1] * guess, rows[:, -1:] * level], dim=1).flatten()

    def _search(self, outputs: Tensor, along: Tensor, weight: Tensor, turn: Tensor,
                decay: float) -> tuple[float, Tensor, Tensor]:
        """Go to where the slope along a direction has fallen enough; a convex slope only rises."""
        straight, bent = float((weight * turn).sum()) * decay, float(turn.square().sum()) * decay

        def look(step: float) -> tuple[float, Tensor, Tensor]:
            loss, rise = self.slope(outputs + step * along)
            return float((rise * along).sum()) + straight + step * bent, loss, rise

        first, loss, rise = look(0.0)
        if first >= 0:
            return 0.0, loss, rise
        low, high, step = (0.0, first), None, 1.0
        for _ in range(LINE):
            here, loss, rise = look(step)
            if abs(here) <= DECREASE * abs(first):
                return step, loss, rise
            if here < 0:
                low = step, here
            else:
                high = step, here
            if high is None:
                step *= 3
            else:  # where a line through both would be 0, but not at the ends
                part = -low[1] / (high[1] - low[1])
                step = low[0] + min(max(part, 0.1), 0.9) * (high[0] - low[0])
        return step, loss, rise


def _norm(vector: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vector)
