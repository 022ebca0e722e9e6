"""A run's state, written now and then, from which the same command continues it in another process.

A run that continues does all again that comes before its first step, then puts in place what the
state says: weights, optimizer, schedule, scaler, random states, what the technique and the loop's
callbacks have noted, and the position in the data.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from lightning import Callback, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import GuardFailed
from ftlab.techniques.base import Technique
from ftlab.techniques.wrapper import chain
from ftlab.training.callbacks import BestEpoch, TrainingMonitor
from ftlab.training.costs import MemoryMeter
from ftlab.training.event_log import Report
from ftlab.training.fsdp import share_of, shared_out_again, shares_of
from ftlab.training.guards import TensorGuard
from ftlab.training.object_state import capture, restore
from ftlab.training.run import Run
from ftlab.training.state_files import FOLDER, StateFiles, Unwritten, identity_of

LOOK = 10  # batches from one agreement of several processes on a state to the next
MINUTE = 60.0


class RunState(Callback):
    """Writes a run's state every so many minutes and when it is asked to end, and puts it back.

    Args:
        run: whose model is adapted.
        guard: of its model.
        monitor, best, others: the loop's other callbacks, whose states belong to it.
        memory: measures the fit.
        report: takes notes.

    Attributes:
        seconds: of the fit before this process.
        peak: bytes of memory in the fit before this process.
    """

    def __init__(self, run: Run, guard: TensorGuard, monitor: TrainingMonitor, best: BestEpoch,
                 others: list[Callback], memory: MemoryMeter, report: Report) -> None:
        self.run, self.guard, self.best, self.memory, self.report = run, guard, best, memory, report
        self.parts: dict[str, Any] = {"guard": guard, "monitor": monitor, "best": best,
                                      **{type(part).__name__: part for part in others}}
        self.files = StateFiles(run.directory / FOLDER, identity_of(run, guard.before))
        self.every, self.shared_out = run.settings.save_every, run.settings.strategy == "fsdp"
        self.seconds, self.peak = 0.0, 0
        self._found: dict[str, Any] | None = None
        self._begun = self._last = time.monotonic()

    @property
    def technique(self) -> Technique:
        """The technique of the run."""
        return self.run.technique

    def on_fit_start(self, trainer: Trainer, module: Any) -> None:
        self._begun = self._last = time.monotonic()
        for text in self.files.check(trainer):
            self.report({"event": "note", "text": text})
        if self.files.newest is None:
            return
        self._found = found = self.files.read(self.files.newest, trainer, self.shared_out)
        trainer.fit_loop.load_state_dict(found["loop"])
        self.seconds, self.peak = found["seconds"], found["peak"]
        self.run.seconds_before = found["seconds_of_run"]

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        if self._found is not None:  # Lightning has begun with the first batch already, for the schedule
            loader, fetcher = trainer.train_dataloader, trainer.fit_loop._data_fetcher
            assert loader is not None and fetcher is not None
            loader.load_state_dict(self._found["place"])
            iter(fetcher)

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if self._found is not None:
            self._put_back(trainer, self._found)
            self._found = None
        elif self._due(trainer, batch_idx):
            self._write(trainer)

    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        if not isinstance(exception, SIGTERMException) or self.every is None:
            return
        place = trainer.fit_loop.epoch_loop.batch_progress
        within = not place.is_last_batch and place.current.completed == place.current.ready
        # of several processes others may have ended, and an epoch's end is not a place to begin
        if trainer.world_size == 1 and within and self._opens(trainer, place.current.completed):
            self._write(trainer)

    def _due(self, trainer: Trainer, batch: int) -> bool:
        # before the first step there is nothing to lose
        if self.every is None or trainer.global_step == 0 or not self._opens(trainer, batch):
            return False
        due = time.monotonic() - self._last >= MINUTE * self.every
        if trainer.world_size == 1:
            return due
        agreed = batch // trainer.accumulate_grad_batches % LOOK == 0
        return bool(trainer.strategy.broadcast(due)) if agreed else False

    def _opens(self, trainer: Trainer, batch: int) -> bool:
        """Return whether no gradients are being added up."""
        return batch % trainer.accumulate_grad_batches == 0

    def _write(self, trainer: Trainer) -> None:
        """Write a state; one that cannot be written is noted, and the one before stays."""
        self.parts["monitor"].events.flush()  # what is reported is not in it
        begin = time.monotonic()
        try:
            self.files.write(lambda: self._content(trainer), trainer.global_step, trainer,
                             self.best.directory)
        except Unwritten as error:
            self.report({"event": "note", "text": f"the state at step {trainer.global_step} could not be "
                                                  f"written: {error}"})
        self._last = time.monotonic()
        if self.every is not None and self._last - begin > SHARE * MINUTE * self.every:
            self._last += (self._last - begin) / SHARE  # a slow disk shall not hold the run up

    def _content(self, trainer: Trainer) -> dict[str, Any]:
        progress = trainer.fit_loop.epoch_loop.batch_progress.current
        tensors = _changing(self.technique.model, self.best.names)
        optimizer = trainer.optimizers[0]
        shared = {share_of(tensor).untyped_storage().data_ptr() for tensor in (
            *self.technique.model.parameters(), *self.technique.model.buffers())}
        kept = trainer.is_global_zero or self.shared_out  # else all ranks have the same
        now = time.monotonic()
        return {
            "loop": trainer.fit_loop.state_dict(),
            "place": {"epoch": trainer.current_epoch, "batch": progress.completed},
            "tensors": {name: share_of(tensor.detach()).cpu()
                        for name, tensor in tensors.items()} if kept else {},
            "optimizer": shares_of(optimizer.state_dict()) if kept else {},
            "trains": [name for name, p in self.technique.model.named_parameters() if p.requires_grad],
            "schedule": _without_functions(trainer.lr_scheduler_configs[0].scheduler.state_dict()),
            "scaler": trainer.precision_plugin.state_dict(),
            "technique": [capture(part, shared) for part in chain(self.technique)],
            "parts": {name: capture(_to_keep(part), shared) for name, part in self.parts.items()},
            "seconds": self.seconds + now - self._begun,
            "peak": max(self.peak, self.memory.peak()),
            "seconds_of_run": seconds_of_run(self.run),
            "random": random_states(),
        }

    def _put_back(self, trainer: Trainer, found: Mapping[str, Any]) -> None:
        model = self.technique.model
        there = _changing(model, self.best.names)
        with torch.no_grad():
            for name, tensor in found["tensors"].items():
                share_of(there[name]).copy_(tensor)
        trains = set(found["trains"])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trains)
        trainer.optimizers[0].load_state_dict(shared_out_again(found["optimizer"], model))
        trainer.lr_scheduler_configs[0].scheduler.load_state_dict(found["schedule"])
        trainer.precision_plugin.load_state_dict(found["scaler"])
        for part, captured in zip(chain(self.technique), found["technique"], strict=True):
            restore(part, captured)
        for name, part in self.parts.items():
            held = _to_keep(part)
            restore(held, found["parts"][name])
            part.__dict__.update(held.values)
        if trainer.is_global_zero and self.best.directory is not None:
            self.files.put_best(found["number"], self.best.directory)
        self.technique.train()
        self.report({"event": "note", "text": f"continued at step {trainer.global_step}, after "
                     f"{self.seconds:.0f} s of training in another process"})
        set_random_states(found["random"])


class _Held:
    """The attributes of a callback that a state keeps."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values


def _to_keep(part: Any) -> _Held:
    return _Held({name: getattr(part, name) for name in part.in_state})


SHARE = 0.02
"""Share of the time that writing states may take."""


def _changing(model: TaskModel, names: set[str]) -> dict[str, Tensor]:
    """The parameters that any step may change, and all buffers."""
    parameters = {name: p for name, p in model.named_parameters() if name in names}
    return {**parameters, **dict(model.named_buffers())}


def _without_functions(schedule: dict[str, Any]) -> dict[str, Any]:
    """A schedule's place; its functions follow from the run."""
    return {**schedule, "lr_lambdas": [None] * len(schedule["lr_lambdas"])}


def seconds_of_run(run: Run) -> float:
    """The time that a run has taken so far, in processes before this one too."""
    return run.seconds_before + time.monotonic() - run.begun_at


def random_states() -> dict[str, Any]:
    """The states of this process's random generators."""
    kind, keys, *rest = np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate(),
            "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest)}


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put this process's random generators where others were."""
    kind, keys, *rest = states["numpy"]
    random.setstate(cast(Any, states["python"]))
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


@contextmanager
def removed(run: Run) -> Iterator[None]:
    """The states of a run go at its end, and where a guard fails it: it would fail again."""
    try:
        yield
    except GuardFailed:
        _remove(run)
        raise
    if int(os.environ.get("RANK", "0")) == 0:
        _remove(run)


def _remove(run: Run) -> None:
    for folder in (run.directory / FOLDER, *map(run.directory_before, range(len(run.before)))):
        shutil.rmtree(folder, ignore_errors=True)
