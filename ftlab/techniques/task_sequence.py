from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.domains import DOMAIN
from ftlab.data.groups import GROUP, required_groups
from ftlab.data.tasks_in_turn import TasksInTurn
from ftlab.errors import Incompatible
from ftlab.tasks.class_names import metric_keys
from ftlab.tasks.over_groups import OF_EACH, single
from ftlab.tasks.over_sequence import of_sequence
from ftlab.techniques.base import Technique
from ftlab.techniques.restarts import Restarts
from ftlab.techniques.trained_tensors import averaged, copies, holding, named, put
from ftlab.techniques.wrapper import DRAWS, RESTARTS, WEIGHS, Wrapper

BEFORE, AFTER = "before", "after-"
"""Names of variants: the network before any fit, and `after-1-NAME`, after the first task's."""
_SHOWN = "and TaskSequence shows them task by task"
_LEAST = 2  # test examples of a task, whose scores are those of a group


class TaskSequence(Wrapper):
    """Train on one task after another, each with its own examples alone, and see what is kept (a wrapper).

    The tasks are the values of the data set's column `domain`, with one head and the same classes
    (domain-incremental learning). Each has an equal part of the run's epochs, a fresh optimizer and
    a schedule of its own, and the weights go on; what the technique keeps of a network, LwF's or
    L2SP's reference for instance, it takes anew when a task begins. The result is the network after
    the last epoch: validation has examples of all tasks, and to choose by them would be to rehearse
    the earlier ones. After each task the weights are kept, and in the end all test examples are
    measured with each, as `test.after-1-NAME/...`, and before any fit, as `test.before/...`. From the
    scores of each task follow `test/final_accuracy` (ACC, their mean in the end), `bwt_accuracy`,
    `fwt_accuracy` and `forgetting_accuracy`, and alike of every metric. The columns:
    `columns: {domain: C, group: C}`. A stream comes along with every task.

    Lopez-Paz, Ranzato (2017), https://arxiv.org/abs/1706.08840; kinds of sequences: van de Ven,
    Tuytelaars, Tolias (2022), https://doi.org/10.1038/s42256-022-00568-3

    Args:
        technique: what adapts the model.
        order: the tasks in their order; null for numbers first, then by name.
    """

    does = frozenset({RESTARTS})
    never_around = frozenset({RESTARTS, WEIGHS, DRAWS, "settle"})  # what is kept of a task has not settled
    never_within = frozenset({WEIGHS, DRAWS, "settle"})
    columns = frozenset({DOMAIN, GROUP})

    def __init__(self, technique: Technique, order: list[str] | None = None) -> None:
        super().__init__(technique)
        if not technique.trains:
            raise ValueError(f"{type(technique).__name__} trains nothing, so TaskSequence has nothing "
                             "to train in turn: leave it out")
        if order is not None and len(set(order)) < len(order):
            raise ValueError(f"order names a task twice: {', '.join(order)}")
        self.plan = TasksInTurn(order)
        self.sampling = self.plan
        self.fits = Restarts(technique)
        self.data: DataModule | None = None
        self.names: list[str] = []  # of the tasks, in their order
        self.keys: list[str] = []  # the same, in names of metrics
        self.steps = 0  # of each task
        self.kept: list[dict[str, Tensor]] = []  # after each task but the last

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)
        groups = required_groups(data.splits, "train", "TaskSequence")
        train, test = data.splits["train"].columns, data.splits["test"].columns
        if (train[DOMAIN], test[DOMAIN]) != (train[GROUP], test[GROUP]):
            raise Incompatible(f"TaskSequence takes the scores of each task from those of groups, and the "
                               f"columns {DOMAIN!r} and {GROUP!r} differ",
                               f"name one column twice: columns: {{{DOMAIN}: COLUMN, {GROUP}: COLUMN}}")
        self.names = self.plan.names(train[DOMAIN])
        counts = Counter(str(name) for name in test[DOMAIN])
        if strange := sorted(counts.keys() - set(self.names)):
            raise Incompatible(f"TaskSequence: task {strange[0]!r} has {counts[strange[0]]} test examples and "
                               "no training example", "add some, or leave its test examples out")
        for name in self.names:
            if counts[name] < _LEAST:
                raise Incompatible(f"TaskSequence: task {name!r} has {counts[name]} test examples, and its "
                                   f"scores want {_LEAST}", "add some, or leave the task out")
        keys = dict(zip(groups.names, metric_keys(groups.names), strict=True))
        self.keys = [keys[name] for name in self.names]
        self.metrics = single(data.task.metrics())

    def foresee(self, data: DataModule, epochs: int) -> None:
        self.names = self.plan.names(data.splits["train"].columns[DOMAIN])
        tasks = len(self.names)
        if epochs % tasks:
            less = epochs // tasks * tasks
            raise Incompatible(f"TaskSequence: {epochs} epochs cannot be shared equally by {tasks} tasks "
                               f"({', '.join(self.names[:5])}{', ...' * (tasks > 5)})",
                               f"set max_epochs: {f'{less} or ' if less else ''}{less + tasks}, and leave out min_steps")
        self.plan.epochs = epochs // tasks
        self.technique.foresee(data, self.plan.epochs)

    def starts(self, epochs: int) -> list[int]:
        """First epoch of each task, and the end."""
        tasks = max(1, len(self.names))
        return [epochs * number // tasks for number in range(tasks + 1)]

    def lr_factors(
        self, groups: list[dict[str, Any]], total: int, epochs: int
    ) -> list[Callable[[int], float]]:
        starts = self.starts(epochs)
        return self.fits.lr_factors(groups, total, starts, [1.0] * (len(starts) - 1))

    def optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return self.fits.optimizer(groups)

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.data, self.kept = data.without_training(_SHOWN, streams=True), []
        self.steps = steps // len(self.names)
        self.fits.begin(model, averaged(model))
        self.technique.begin_fit(model, self.data, self.steps)
        self.notes.append(f"TaskSequence: {' then '.join(self.names)}, {self.steps} updates each; the result "
                          "is the last epoch's")

    def begin_epoch(self, model: TaskModel, epoch: int, epochs: int) -> None:
        starts = self.starts(epochs)
        task = max(number for number, first in enumerate(starts[:-1]) if first <= epoch)
        if task and epoch == starts[task] and self.data is not None:
            self._keep(model)
            self.fits.renew(model)
            self.restarts.append(epoch)
            model.head_trained = True  # by the task before
            device = next(model.parameters()).device
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                self.technique.begin_fit(model, self.data, self.steps)
        self.technique.begin_epoch(model, epoch - starts[task], starts[task + 1] - starts[task])

    def _keep(self, model: TaskModel) -> None:
        """Copy what a task has arrived at, from which the next one goes on."""
        getattr(self.fits.made, "eval", lambda: None)()  # what some optimizers average
        with torch.no_grad(), self.technique.evaluated(model):
            reached = copies(named(model, self.fits.start))
        getattr(self.fits.made, "train", lambda: None)()
        put(model, reached)
        self.kept.append({name: tensor.cpu() for name, tensor in reached.items()})

    def selectable(self, epoch: int, epochs: int) -> bool:
        return epoch == epochs - 1

    def after_step(self, model: TaskModel, step: int) -> None:
        self.fits.after_step(model, step)

    def variants(self, model: TaskModel) -> Mapping[str, AbstractContextManager[Any]]:
        networks = dict(zip(self._variants(), [self.fits.start, *self.kept], strict=True))
        return {**self.technique.variants(model),
                **{name: holding(model, values) for name, values in networks.items()}}

    def _variants(self) -> list[str]:
        """Before any fit, and after each task's but the last, which is the model itself."""
        return [BEFORE, *(f"{AFTER}{number}-{key}" for number, key in enumerate(self.keys[:-1], 1))]

    def conclude(self, scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        found = self.technique.conclude(scores)
        for metric in self.metrics:
            rows = np.array([[scores[name].get(f"{metric.name}{OF_EACH}/{key}", np.nan) for key in self.keys]
                             for name in (*self._variants(), "")])
            if np.isfinite(rows).all():
                found |= of_sequence(metric, rows[1:], rows[0])
        return found
