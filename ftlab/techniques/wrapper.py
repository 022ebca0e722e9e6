"""The base class of techniques around another technique."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.data.examples import SplitName
from ftlab.tasks.base import Task
from ftlab.techniques.base import CONTRACT, Technique
from ftlab.techniques.contract import KEEPS_OPTIMUM, overridden
from ftlab.techniques.head_optimum import ByEpochs, Solver

AVERAGES, MOVES = "averages the weights", "computes the objective at other weights"
TO_THE_END = "finishes with weights of its last steps"
PENALISES = "adds a penalty on the weights"
WEIGHS = "weighs the examples of a batch"
RESTARTS = "begins its fit anew"
TOGETHER = "computes something of a batch's examples together"
READS_STREAM = "reads examples of a stream"
DRAWS = "draws the training examples in a way of its own"
"""Deeds that a wrapper may declare, beside the methods that it overrides; the last three are seen."""


class Wrapper(Technique):
    """A technique around another one, to any depth: it changes something and passes on the rest.

    A method that is overridden calls the inner technique's, `self.technique.objective(...)` for
    instance, never another method's default.

    Args:
        technique: what adapts the model.

    Raises:
        ValueError: it makes no sense around this technique.
    """

    of_training: ClassVar[bool] = False
    """True where it changes how something trains, so that the technique must train."""
    does: ClassVar[frozenset[str]] = frozenset()
    """Deeds that wrappers around it may have to know of, `AVERAGES` for instance."""
    never_around: ClassVar[frozenset[str]] = frozenset()
    """Deeds, and overridden methods, that nothing within it may have: it would undo or misread them."""
    never_within: ClassVar[frozenset[str]] = frozenset()
    """Deeds, and overridden methods, that nothing around it may have."""

    technique: Technique

    @abstractmethod
    def __init__(self, technique: Technique) -> None:
        _check_order(self, technique)
        super().__init__(technique.lr, technique.optim)
        # not a submodule: it holds no tensors, and Lightning would call its hooks' twins
        object.__setattr__(self, "technique", technique)
        self.notes, self.restarts = technique.notes, technique.restarts
        # facts of the class are here the inner technique's
        self.identity_at_start = technique.identity_at_start  # type: ignore[misc]  # as said
        self.changes_freezing = technique.changes_freezing  # type: ignore[misc]  # as said
        self.whole_passes = self.whole_passes or technique.whole_passes  # type: ignore[misc]  # as said
        self.single_batches = self.single_batches or technique.single_batches  # type: ignore[misc]  # as said
        self.streams = self.streams | technique.streams
        self.columns = self.columns | technique.columns
        self.sampling = self.sampling or technique.sampling
        self.own_clipping = self.own_clipping or technique.own_clipping
        self.trains = technique.trains  # type: ignore[misc]  # as said
        self.output_type = technique.output_type  # type: ignore[misc]  # as said

    def prepare(self, data: DataModule) -> None:
        self.technique.prepare(data)

    def foresee(self, data: DataModule, epochs: int) -> None:
        self.technique.foresee(data, epochs)

    def adapt(self, model: TaskModel) -> None:
        self.technique.adapt(model)

    def param_groups(self, model: TaskModel) -> list[dict[str, Any]]:
        return self.technique.param_groups(model)

    def lr_factors(
        self, groups: list[dict[str, Any]], total: int, epochs: int
    ) -> list[Callable[[int], float]]:
        return self.technique.lr_factors(groups, total, epochs)

    def optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return self.technique.optimizer(groups)

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.technique.begin_fit(model, data, steps)

    def optimum(self, model: TaskModel, data: DataModule) -> Solver | None:
        solver = self.technique.optimum(model, data)
        changed = overridden(type(self), Wrapper, CONTRACT) - KEEPS_OPTIMUM
        if solver is not None and changed:
            raise ByEpochs(f"{type(self).__name__} has its own {min(changed)}")
        return solver

    def begin_epoch(self, model: TaskModel, epoch: int, epochs: int) -> None:
        self.technique.begin_epoch(model, epoch, epochs)

    def selectable(self, epoch: int, epochs: int) -> bool:
        return self.technique.selectable(epoch, epochs)

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        return self.technique.objective(model, task, batch)

    def after_step(self, model: TaskModel, step: int) -> None:
        self.technique.after_step(model, step)

    def evaluated(self, model: TaskModel) -> AbstractContextManager[Any]:
        return self.technique.evaluated(model)

    def settle(self, model: TaskModel, data: DataModule, score: Callable[[], float]) -> None:
        self.technique.settle(model, data, score)

    def variants(self, model: TaskModel) -> Mapping[str, AbstractContextManager[Any]]:
        return self.technique.variants(model)

    def conclude(self, scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        return self.technique.conclude(scores)

    def answers(self, data: DataModule, split: SplitName) -> Sequence[Any] | None:
        return self.technique.answers(data, split)

    def merge(self, model: nn.Module) -> bool:
        return self.technique.merge(model)

    def audit(self, model: TaskModel, data: DataModule) -> dict[str, float]:
        return self.technique.audit(model, data)

    def costs(self) -> dict[str, float]:
        return self.technique.costs()

    @property
    def hooks(self) -> set[str]:
        return overridden(type(self), Wrapper, CONTRACT) | self.technique.hooks


def _check_order(outer: Wrapper, technique: Technique) -> None:
    """Refuse a wrapper around what it undoes or misreads, around itself, and around no training.

    Raises:
        ValueError: one line what, and what to do.
    """
    name = type(outer).__name__
    if outer.of_training and not technique.trains:
        raise ValueError(f"{type(technique).__name__} trains nothing, so {name} has nothing to "
                         "change: leave it out")
    inner: Technique = technique
    while isinstance(inner, Wrapper):
        if type(inner) is type(outer) and (outer.of_training or _done(outer)):
            raise ValueError(f"{name} stands twice around the same technique: leave one out")
        _check_pair(outer, inner)
        inner = inner.technique
    _check_pair(outer, inner)


def _check_pair(outer: Wrapper, inner: Technique) -> None:
    around, within = type(outer).__name__, type(inner).__name__
    turned = isinstance(inner, Wrapper) and not _against(inner, outer)
    mend = f"put {within} around {around}" if turned else "leave one of them out"
    wrong = _against(outer, inner)
    if wrong and wrong[0] in _done(inner) & outer.never_around:
        raise ValueError(f"{around} makes no sense around {within}, which {_said(wrong[0])}: {mend}")
    if wrong:
        raise ValueError(f"{around} {_said(wrong[0])}, and makes no sense around {within}: {mend}")


def _against(outer: Wrapper, inner: Technique) -> list[str]:
    """Deeds and methods for which one makes no sense around the other."""
    wrong = _done(inner) & outer.never_around
    if isinstance(inner, Wrapper):
        wrong |= _done(outer) & inner.never_within
    return sorted(wrong)


def _done(technique: Technique) -> set[str]:
    """Deeds of a technique, and the methods that it overrides; of a wrapper its own alone."""
    within: Technique | None = vars(technique).get("technique")  # an outer one has none as yet
    done = (overridden(type(technique), Wrapper, CONTRACT) | technique.does
            if isinstance(technique, Wrapper) else technique.hooks)
    if type(technique).single_batches:
        done = done | {TOGETHER}
    if technique.streams - (within.streams if within is not None else frozenset()):
        done = done | {READS_STREAM}
    if technique.sampling is not None and (within is None or technique.sampling is not within.sampling):
        done = done | {DRAWS}
    return set(done)


def _said(deed: str) -> str:
    return deed if " " in deed else f"has its own {deed}"


def chain(technique: Technique) -> list[Technique]:
    """A technique and all that it stands around, from outside."""
    chain = [technique]
    while isinstance(inner := chain[-1], Wrapper):
        chain.append(inner.technique)
    return chain
