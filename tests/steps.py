"""A few steps of a technique on a tiny model, without a run around them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from matrix import COLUMNS, TECHNIQUES, World, along, make_technique
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.techniques.base import Technique
from ftlab.techniques.wrapper import Wrapper

STEPS = 3
STREAMS = {stream for name, cls in TECHNIQUES.items() if issubclass(cls, Wrapper)
           for stream in make_technique(name).streams}


class Bench:
    """A world's data and models, made once; each technique has copies.

    Args:
        world: makes backbone and data.
    """

    def __init__(self, world: World) -> None:
        self.backbone, self.data = world()
        along(self.data, STREAMS, COLUMNS)
        self.data.load()
        self.data.connect(self.backbone, seed=0)
        loader = iter(self.data.with_streams(STREAMS).train_dataloader())
        self.batches: list[Mapping[str, Any]] = [next(loader) for _ in range(2)]
        self._models: dict[Any, TaskModel] = {}

    def model(self, technique: Technique) -> TaskModel:
        """A fresh model of the type that a technique needs."""
        kind = technique.output_type
        if kind not in self._models:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                self._models[kind] = self.backbone.build(self.data.task, kind).eval()
        return copy.deepcopy(self._models[kind])

    def bound(self, technique: Technique, model: TaskModel | None = None) -> Technique:
        """Attach a technique to a fresh model, in training mode."""
        torch.manual_seed(2)
        technique.prepare(self.data)
        return technique.bind(model or self.model(technique), self.data.task).train()

    def fit(self, technique: Technique, steps: int = STEPS, first: int = 0,
            watch: Callable[[Tensor], object] = lambda loss: None) -> TaskModel:
        """Train a bound technique as Lightning does, an epoch a step.

        Args:
            technique: bound.
            steps: of the fit.
            first: epoch to begin with.
            watch: given each loss.
        """
        model, data = technique.model, self.data
        optimizer = technique.optimizer(technique.param_groups(model))
        torch.manual_seed(3)
        technique.begin_fit(model, data, steps)
        for step in range(steps):
            technique.begin_epoch(model, first + step, first + steps)
            technique.train()
            loss = technique.objective(model, data.task, self.batches[step % 2])
            watch(loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            technique.after_step(model, step + 1)
        return model


def state(model: TaskModel) -> dict[str, Tensor]:
    """Copies of all parameters and buffers."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_equal(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
    """Bit for bit."""
    assert some.keys() == others.keys()
    assert [name for name in some if not torch.equal(some[name], others[name])] == []
