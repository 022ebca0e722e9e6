from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.techniques.base import Choice, Technique
from ftlab.techniques.trained_tensors import accumulators, averaged, holding, named
from ftlab.techniques.wrapper import AVERAGES, RESTARTS, Wrapper


class EMA(Wrapper):
    """Validate and keep an exponential moving average of the weights that train (a wrapper).

    After each step the average is decay * average + (1 - decay) * weights; training itself goes
    on with the weights. In step t the decay is at most (1 + t) / (10 + t), so that a short fit
    forgets its start. Batch norms' statistics are averaged as well. It costs a copy of what
    trains and no pass. Take it where scores swing from one validation to the next.

    Polyak, Juditsky (1992), https://doi.org/10.1137/0330046; of networks: Tarvainen, Valpola
    (2017), https://arxiv.org/abs/1703.01780

    Args:
        technique: what adapts the model.
        decay: share of the average that a step keeps, from 0 (plain training) to below 1.
    """

    search_space = {"decay": Choice((0.9, 0.99, 0.999))}
    of_training = True
    does = frozenset({AVERAGES})
    never_around = frozenset({AVERAGES, RESTARTS, "evaluated"})  # what is cut for it would be averaged uncut

    def __init__(self, technique: Technique, decay: float = 0.999) -> None:
        super().__init__(technique)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be from 0 to below 1, got {decay}")
        self.decay = decay
        self.average: dict[str, Tensor] = {}

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.technique.begin_fit(model, data, steps)
        self.average = accumulators(averaged(model))

    def after_step(self, model: TaskModel, step: int) -> None:
        self.technique.after_step(model, step)
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, tensor in named(model, self.average).items():
                average = self.average[name]
                average.lerp_(tensor.to(average.dtype), 1 - decay)

    @contextmanager
    def evaluated(self, model: TaskModel) -> Iterator[None]:
        with self.technique.evaluated(model), holding(model, self.average):
            yield
