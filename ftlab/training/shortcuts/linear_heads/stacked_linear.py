"""Many linear heads on the same features: one matrix product a step, and one optimizer step.

Heads are in groups: those of a group (one seed's runs) see the same batches and dropout masks.
Nothing here differentiates: with outputs z = x W' + b and the slope s = dL/dz that the task
states, dL/dW = s' x and dL/db is the sum of s over the batch. The optimizers are torch's, with a
rate and a weight decay a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Slope = Callable[[Tensor, Tensor], tuple[Tensor, Tensor] | None]
"""Outputs (G, M, B, O) and target (G, 1, B, ...) -> losses (G, M), gradients (G, M, B, O)."""

OPTIMIZERS = ("adamw", "adam", "sgd")
"""Names of the optimizers whose steps are written here."""
MOMENTUM = 0.9
BETAS = (0.9, 0.999)
EPSILON = 1e-8
MOST = 2**26  # outputs that are in memory at a time


class StackedLinear:
    """G groups of M heads; a group with fewer is filled up with heads that never move.

    Args:
        weight: of each head, a group after another, (O, D).
        bias: of each head (O,), or None for heads without.
        group: of each head, rising from 0.
        lr: of each head.
        weight_decay: of each head's weight.
        optimizer: one of `OPTIMIZERS`.
        products: the dtype of the matrix products, as autocast has it; None for the weights'.

    Attributes:
        count: of slots, G * M.
        slots: where each head is among them.
    """

    def __init__(
        self, weight: Sequence[Tensor], bias: Sequence[Tensor] | None, group: Sequence[int],
        lr: Sequence[float], weight_decay: Sequence[float],
        optimizer: str, products: torch.dtype | None = None,
    ) -> None:
        self.products = products or weight[0].dtype
        self.optimizer = optimizer
        self.steps = 0
        like = weight[0]
        self._place(group, like.device)
        stacked = [torch.stack(list(weight)), *([torch.stack(list(bias))] if bias else [])]
        self.parameters = [self._spread(tensor) for tensor in stacked]
        self.gradients = [torch.zeros_like(tensor) for tensor in self.parameters]
        moments = 1 if optimizer == "sgd" else 2
        self.state = [[torch.zeros_like(tensor) for tensor in self.parameters] for _ in range(moments)]
        self.lr = self._spread(torch.tensor(lr, dtype=like.dtype, device=like.device))
        decay = torch.tensor(weight_decay, dtype=like.dtype, device=like.device)
        self.decay = self._spread(decay) if bool((decay > 0).any()) else None

    def _place(self, group: Sequence[int], device: torch.device) -> None:
        """Slots for heads of these groups."""
        self.group = list(group)
        self.groups = self.group[-1] + 1
        sizes = [self.group.count(number) for number in range(self.groups)]
        self.width = max(sizes)
        self.count = self.groups * self.width
        self.slots = torch.tensor(
            [number * self.width + i for number, size in enumerate(sizes) for i in range(size)],
            device=device)

    def _spread(self, rows: Tensor) -> Tensor:
        """Rows per head -> rows per slot, zeros between."""
        if len(rows) == self.count:
            return rows.clone()
        spread = rows.new_zeros(self.count, *rows.shape[1:])
        spread[self.slots] = rows
        return spread

    def keep(self, kept: Sequence[int]) -> None:
        """Go on with some of the heads; groups that lose all of theirs go too.

        Args:
            kept: numbers of heads, rising; at least one.
        """
        rows = self.slots[list(kept)]
        groups = [self.group[number] for number in kept]
        numbers = {old: new for new, old in enumerate(dict.fromkeys(groups))}
        self._place([numbers[group] for group in groups], rows.device)

        def moved(tensor: Tensor) -> Tensor:
            return self._spread(tensor[rows])

        self.parameters = [moved(tensor) for tensor in self.parameters]
        self.gradients = [torch.zeros_like(tensor) for tensor in self.parameters]
        self.state = [[moved(tensor) for tensor in moment] for moment in self.state]
        self.lr = moved(self.lr)
        self.decay = None if self.decay is None else moved(self.decay)

    def head(self, number: int) -> list[Tensor]:
        """Copies of a head's weight (O, D) and bias (O,)."""
        return [tensor[self.slots[number]].clone() for tensor in self.parameters]

    def outputs(self, features: Tensor, groups: slice = slice(None)) -> Tensor:
        """The outputs of some groups (G, M, B, O), for features (G, B, D), or (1, B, D) for all."""
        weight, *bias = (self._grouped(tensor, groups).to(self.products)
                         for tensor in self.parameters)
        count, (rows, outputs) = weight.shape[0], weight.shape[1:3]
        flat = weight.reshape(count, rows * outputs, -1)
        turned = features.to(self.products).transpose(1, 2).expand(count, -1, -1)
        product = (torch.baddbmm(bias[0].reshape(count, -1, 1), flat, turned) if bias
                   else torch.bmm(flat, turned))
        return product.view(count, rows, outputs, -1).transpose(2, 3)

    def outputs_of(self, features: Tensor) -> Iterator[Tensor]:
        """Each head's outputs (N, O) for the same features (N, D), some heads at a time."""
        weight, *bias = (tensor[self.slots].to(self.products) for tensor in self.parameters)
        heads, outputs = weight.shape[:2]
        some = max(1, MOST // (len(features) * outputs))
        for begin in range(0, heads, some):
            part = slice(begin, begin + some)
            product = features.to(self.products) @ weight[part].flatten(0, 1).T
            product = product.view(len(features), -1, outputs).transpose(0, 1)
            yield from product + bias[0][part, None] if bias else product

    def add_gradient(
        self, features: Tensor, target: Tensor, slope: Slope, parts: Sequence[float],
        groups: slice = slice(None),
    ) -> Tensor:
        """Add batches' gradients, times their part, and return the losses per slot of the groups.

        Args:
            features: (G, B, D).
            target: (G, B, ...).
            slope: of the task.
            parts: of each group's batch in the update (G).
            groups: whose batch it is.
        """
        gradient = slope(self.outputs(features, groups), target.unsqueeze(1))
        assert gradient is not None
        losses, rises = gradient
        count, rows, batch, outputs = rises.shape
        flat = rises.transpose(2, 3).reshape(count, rows * outputs, batch)
        if any(part != 1 for part in parts):
            flat = flat * flat.new_tensor(parts).view(-1, 1, 1)
        flat = flat.to(self.products)
        weight, *bias = (self._grouped(tensor, groups) for tensor in self.gradients)
        total = weight.view(count, rows * outputs, -1)
        if self.products == weight.dtype:
            total.baddbmm_(flat, features)
        else:
            total += torch.bmm(flat, features.to(self.products))
        if bias:
            bias[0] += flat.sum(dim=-1).view(count, rows, outputs)
        return losses.flatten()

    def _grouped(self, rows: Tensor, groups: slice) -> Tensor:
        return rows.view(self.groups, self.width, *rows.shape[1:])[groups]

    def update(self, factor: Tensor | float, clip: float | None) -> Tensor:
        """One step of the optimizer, then no gradient.

        Args:
            factor: of the learning rates: one number, or one per slot.
            clip: largest norm of a head's gradient.

        Returns:
            The norms of the slots' gradients, before they were clipped.
        """
        self.steps += 1
        norms = torch.stack([torch.linalg.vector_norm(tensor.flatten(1), dim=1)
                             for tensor in self.gradients])
        norm = torch.linalg.vector_norm(norms, dim=0)
        if clip is not None:  # as torch's clip_grad_norm_
            scale = (clip / (norm + 1e-6)).clamp(max=1.0)
            for gradient in self.gradients:
                gradient.mul_(_like(scale, gradient))
        rate = self.lr * factor
        moments = zip(*self.state, strict=True)
        for number, (parameter, gradient, state) in enumerate(
            zip(self.parameters, self.gradients, moments, strict=True)
        ):
            decay = self.decay if number == 0 else None  # never on vectors
            self._step(parameter, gradient, state, _like(rate, parameter),
                       None if decay is None else _like(decay, parameter))
            gradient.zero_()
        return norm

    def _step(self, parameter: Tensor, gradient: Tensor, state: Sequence[Tensor], rate: Tensor,
              decay: Tensor | None) -> None:
        if decay is not None and self.optimizer == "adamw":
            parameter.mul_(1 - rate * decay)
        elif decay is not None:
            gradient.addcmul_(parameter, decay)
        if self.optimizer == "sgd":
            parameter.sub_(rate * state[0].mul_(MOMENTUM).add_(gradient))
            return
        first, second = state
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        corrected = [1 - beta**self.steps for beta in BETAS]
        below = (second.sqrt() / math.sqrt(corrected[1])).add_(EPSILON)
        parameter.sub_((rate / corrected[0]) * (first / below))


def _like(values: Tensor, rows: Tensor) -> Tensor:
    """Numbers per slot (S,), shaped to be multiplied with rows per slot (S, ...)."""
    return values.view(-1, *[1] * (rows.ndim - 1))
