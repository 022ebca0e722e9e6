from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.techniques.base import Choice, Technique
from ftlab.techniques.trained_tensors import (
    accumulators,
    named,
    parameters,
    put,
    renew_statistics,
)
from ftlab.techniques.wrapper import AVERAGES, RESTARTS, TO_THE_END, Wrapper


class SWA(Wrapper):
    """Finish with the mean of the weights over the last steps (a wrapper).

    Stochastic weight averaging: the mean over the last quarter of the steps (the authors take one
    of each epoch) takes the place of the best epoch's weights, and batch norms' statistics are
    computed anew over the training data. Take it with a rate that stays high (`optim: {schedule:
    constant}`): weights that have stopped moving have nothing to average.

    Izmailov, Podoprikhin, Garipov, Vetrov, Wilson (2018), https://arxiv.org/abs/1803.05407

    Args:
        technique: what adapts the model.
        start: fraction of the steps before the first that counts, from 0 to below 1.
    """

    search_space = {"start": Choice((0.5, 0.75, 0.9))}
    of_training = True
    does = frozenset({AVERAGES, TO_THE_END})
    never_around = frozenset({AVERAGES, RESTARTS, "settle", "evaluated"})

    def __init__(self, technique: Technique, start: float = 0.75) -> None:
        super().__init__(technique)
        if not 0 <= start < 1:
            raise ValueError(f"start is a fraction from 0 to below 1, got {start}")
        self.start = start
        self.mean: dict[str, Tensor] = {}
        self.first, self.count = 0, 0

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.technique.begin_fit(model, data, steps)
        self.mean, self.count = accumulators(parameters(model)), 0
        self.first = math.floor(self.start * steps) + 1

    def after_step(self, model: TaskModel, step: int) -> None:
        self.technique.after_step(model, step)
        if step < self.first:
            return
        self.count += 1
        with torch.no_grad():
            for name, parameter in named(model, self.mean).items():
                mean = self.mean[name]
                mean.lerp_(parameter.to(mean.dtype), 1 / self.count)

    def settle(self, model: TaskModel, data: DataModule, score: Callable[[], float]) -> None:
        if not self.count:
            raise Incompatible("SWA: the fit ended before the steps that count",
                               "set trainer: {patience: null}, or a smaller start")
        put(model, self.mean)
        renew_statistics(model, data)
