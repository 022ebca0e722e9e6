"""A discriminator of domains behind a gradient reversal, for wrappers that confuse one."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.tasks.base import Task
from ftlab.techniques.base import Technique
from ftlab.techniques.domain_features import (
    halves,
    of_both,
    require_features,
    require_several,
    require_vectors,
)
from ftlab.techniques.freezing import decayed
from ftlab.techniques.trained_tensors import copies
from ftlab.techniques.wrapper import MOVES, READS_STREAM, Wrapper


class DomainAdversary(Wrapper):
    """Trains a discriminator of two domains beside the model, which learns to confuse it.

    The discriminator is a part of the technique alone: neither the checkpoint nor an export has it,
    and its parameters are `cost/discriminator_parameters`, no part of the model's.

    Args:
        technique: what adapts the model.
        stream: name of the data set's stream (`beside`) of the other domain's examples.
        strength: of the discriminator's loss, 0 or more; 0 is plain training.
        gamma: how fast the reversal comes in, 0 or more; see `reversal`.
        hidden: width of the discriminator's two hidden layers.
        ratio: of its learning rate to the technique's highest.
    """

    of_training = True
    does = frozenset({READS_STREAM})
    never_around = frozenset({MOVES})
    single_batches = True
    discriminator: nn.Module | None = None

    @abstractmethod
    def __init__(self, technique: Technique, stream: str, strength: float, gamma: float,
                 hidden: int, ratio: float) -> None:
        super().__init__(technique)
        for name, value in (("strength", strength), ("gamma", gamma)):
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, got {value}")
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {hidden}")
        if ratio <= 0:
            raise ValueError(f"ratio must be above 0, got {ratio}")
        self.stream, self.strength, self.gamma = stream, strength, gamma
        self.hidden, self.ratio = hidden, ratio
        self.streams = self.streams | {stream}
        self.step, self.steps = 0, 1
        self.start: dict[str, Tensor] = {}

    @abstractmethod
    def width(self, features: int) -> int:
        """Numbers that the discriminator reads of an example with so many features."""

    @abstractmethod
    def read(self, features: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute what the discriminator reads (2B, W), and the weights (2B,) of examples, if any.

        Args:
            features: of both domains, the same number of each (2B, D).
            outputs: likewise (2B, O).
        """

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)
        require_vectors(data, type(self).__name__)
        require_several(data, type(self).__name__, self.stream)

    def adapt(self, model: TaskModel) -> None:
        self.technique.adapt(model)
        width = self.width(require_features(model, type(self).__name__))
        with torch.random.fork_rng(devices=[]):  # what trains draws as without it
            made = discriminator(width, self.hidden)
        # not a submodule, which around another technique it could not be: it goes nowhere with it
        object.__setattr__(self, "discriminator", made)
        self.start = copies(made.state_dict())

    def param_groups(self, model: TaskModel) -> list[dict[str, Any]]:
        groups = self.technique.param_groups(model)
        if not self.strength or self.discriminator is None:
            return groups
        rate = self.ratio * max(group["lr"] for group in groups)
        return groups + decayed(self.discriminator.named_parameters(), rate,
                                self.optim.weight_decay)

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.technique.begin_fit(model, data, steps)
        self.step, self.steps = 0, max(1, steps)
        assert self.discriminator is not None
        self.discriminator.to(next(model.parameters()).device)

    def begin_epoch(self, model: TaskModel, epoch: int, epochs: int) -> None:
        self.technique.begin_epoch(model, epoch, epochs)
        if not epoch and self.discriminator is not None:  # of a fit within the fit, too
            self.step = 0
            self.discriminator.load_state_dict(self.start)

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        if not self.strength:
            return self.technique.objective(model, task, batch)
        loss, own, other = of_both(self.technique, model, task, batch, self.stream)
        features = torch.cat(halves(own.features, other.features))
        outputs = torch.cat(halves(own.outputs, other.outputs))
        read, weights = self.read(features, outputs)
        factor = reversal(self.step / self.steps, self.gamma)
        assert self.discriminator is not None
        logits = self.discriminator(reversed_gradient(read, factor))[:, 0]
        rows = len(logits) // 2
        domains = torch.cat([logits.new_ones(rows), logits.new_zeros(rows)])
        return loss + self.strength * nn.functional.binary_cross_entropy_with_logits(
            logits, domains, weights)

    def after_step(self, model: TaskModel, step: int) -> None:
        self.technique.after_step(model, step)
        self.step = step

    def costs(self) -> dict[str, float]:
        trained = () if self.discriminator is None else self.discriminator.parameters()
        inner = self.technique.costs()
        own = float(sum(p.numel() for p in trained)) + inner.get("discriminator_parameters", 0.0)
        return {**inner, "discriminator_parameters": own}


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * gradients[0], None


def reversed_gradient(x: Tensor, factor: float) -> Tensor:
    """Give a tensor as it is, whose gradient is -factor times what arrives."""
    reversed_: Tensor = _Reversal.apply(x, factor)
    return reversed_


def reversal(progress: float, gamma: float) -> float:
    """The reversal's factor, 2 / (1 + exp(-gamma p)) - 1, from 0 at the start to nearly 1.

    Args:
        progress: part of the fit's steps that are done (p), from 0 to 1.
        gamma: 10 in the papers; 0 reverses nothing, and the discriminator trains alone.
    """
    return math.tanh(gamma * progress / 2)


def discriminator(width: int, hidden: int) -> nn.Sequential:
    """A network with two hidden layers that gives each example (W,) a logit of its domain.

    Batch norms see both domains in one batch: of each apart they would hide what differs.
    """
    layers: list[nn.Module] = []
    for inputs in (width, hidden):
        layers += [nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, 1))
