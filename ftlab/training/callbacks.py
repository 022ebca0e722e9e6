"""What watches a fit: best epoch, progress, gradients and finite losses."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import GuardFailed
from ftlab.training import checkpoint, step_log
from ftlab.training.block_gradients import BlockGradients
from ftlab.training.guards import TensorGuard
from ftlab.training.step_log import Losses, StepLog, mean_of

Report = step_log.Report

ALIVE = {"event": "alive"}
"""A sign of life where there is nothing to say; whoever hears none for long ends the run."""

EVERY = 10  # steps from one look at the loss to the next: a look waits for the device
HEARTBEAT = 1.0  # seconds from one sign of life to the next, where steps are long


class TrainingMonitor(Callback):
    """Reports progress and metrics, times steps, and stops at a non-finite loss.

    Args:
        guard: told which tensors got gradients.
        report: takes the events.
        log_every: steps from one training metric to the next.
    """

    def __init__(self, guard: TensorGuard, report: Report, log_every: int = EVERY) -> None:
        self.guard, self.report = guard, report
        self.curves = StepLog(log_every, [report])
        self.gradients = BlockGradients()
        self.step_seconds: list[float] = []
        self._about: dict[str, Tensor | float] = {}  # the step that is to be logged
        self._finite: Tensor | None = None
        self._told = 0.0
        self._losses = Losses()

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self._start = time.perf_counter()

    def on_before_optimizer_step(self, trainer: Trainer, module: Any, optimizer: Any) -> None:
        self.guard.before_update(module.model, module.trained, optimizer)
        if self.curves.wants(trainer.global_step + 1, trainer.is_last_batch):
            norm = self.gradients.look(module.model)
            self._about = {"train/lr": optimizer.param_groups[0]["lr"], "train/grad_norm": norm}

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, data: Any, batch_idx: int
    ) -> None:
        loss, batch = outputs["mean"], batch_idx + 1
        self._losses.add(loss, data["share"].weight)
        finite = torch.isfinite(loss)
        self._finite = finite if self._finite is None else self._finite & finite
        if batch % EVERY == 0 or batch == trainer.num_training_batches:
            self._look(trainer, batch)
        elif time.perf_counter() - self._told > HEARTBEAT:
            self._alive()
        self.step_seconds.append(time.perf_counter() - self._start)
        if self._about:
            window = (batch - 1) % trainer.accumulate_grad_batches + 1
            self.curves.add(trainer.global_step, {
                "train/loss": self._mean(trainer, window), **self._about,
                "train/step_seconds": self.step_seconds[-1]})
            self._about = {}

    def _mean(self, trainer: Trainer, last: int | None = None) -> Tensor:
        """Loss of the last batches, or of all of the epoch, over all processes."""
        sums = self._losses.sums(last)
        if trainer.world_size > 1:
            sums = trainer.strategy.reduce(sums, reduce_op="sum")
        return mean_of(sums)

    def _alive(self) -> None:
        self._told = time.perf_counter()
        self.report(ALIVE)

    def _look(self, trainer: Trainer, batch: int) -> None:
        if not bool(self._finite):
            raise GuardFailed(f"non-finite loss at or before step {trainer.global_step}")
        done = trainer.current_epoch * int(trainer.num_training_batches) + batch
        total = (trainer.max_epochs or 1) * int(trainer.num_training_batches)
        self.report({"event": "progress", "phase": "fit", "done": done, "total": total})

    def on_validation_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch_idx % EVERY == 0 or time.perf_counter() - self._told > HEARTBEAT:
            self._alive()

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.curves.flush()
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if self._losses:
            values["train/epoch_loss"] = float(self._mean(trainer))
        values |= self.gradients.take()
        self._losses.clear()
        self._metrics(trainer, values | {"epoch": trainer.current_epoch + 1})

    def _metrics(self, trainer: Trainer, values: Mapping[str, float]) -> None:
        event = {"event": "metrics", "step": trainer.global_step, "metrics": dict(values)}
        self.report(event | {"time": time.time_ns() // 1_000_000})

    @property
    def median_step(self) -> float:
        """Seconds a training step takes, validation excluded."""
        return statistics.median(self.step_seconds)


class BestEpoch(Callback):
    """Keeps the checkpoint of the epoch with the best validation score.

    Args:
        select_by: the score's name, `val/accuracy` for instance.
        higher_is_better: its direction.
        directory: where the checkpoint goes; None keeps the scores alone.
        names: parameters and buffers to keep: all that any epoch may change.
        record: for the manifest.
    """

    def __init__(
        self,
        select_by: str,
        higher_is_better: bool,
        directory: Path | None,
        names: set[str],
        record: Mapping[str, Any],
    ) -> None:
        self.select_by, self.sign = select_by, 1 if higher_is_better else -1
        self.directory, self.names, self.record = directory, names, record
        self.best, self.epoch, self.bytes = -math.inf, 0, 0
        self.scores: dict[str, float] = {}
        """The validation metrics of the best epoch."""

    def on_validation_end(self, trainer: Trainer, module: Any) -> None:
        better = self.judge(trainer.callback_metrics, trainer.current_epoch + 1)
        if better and (trainer.is_global_zero or module.shard is not None):
            self._save(module.model, self.names, trainer.is_global_zero)

    def judge(self, found: Mapping[str, Tensor | float], epoch: int) -> bool:
        """Whether an epoch is the best so far.

        Args:
            found: its validation metrics.
            epoch: from 1.

        Raises:
            GuardFailed: there is nothing to judge it by.
        """
        if self.select_by not in found:
            raise GuardFailed(f"no {self.select_by} to choose the epoch by: validation gives "
                              f"{', '.join(sorted(found))}", "set select_by to one of them")
        score = self.sign * float(found[self.select_by])
        if math.isnan(score):
            raise GuardFailed(f"{self.select_by} is not a number after epoch {epoch}")
        if self.epoch and score <= self.best:  # the first is the best so far, were it infinitely bad
            return False
        self.best, self.epoch = score, epoch
        self.scores = {name: float(value) for name, value in found.items()}
        return True

    def keep(self, model: TaskModel) -> None:
        """Write the checkpoint of a model that nothing trains: it holds no tensors."""
        self._save(model, set())

    def restore(self, model: TaskModel, guard: TensorGuard) -> None:
        """Put the best epoch back, and leave only what it changed in the checkpoint."""
        assert self.directory is not None
        checkpoint.load(self.directory, model)
        changed = guard.moved(model)
        if changed != self.names:
            self._save(model, changed)

    def write(self, model: TaskModel, changed: set[str]) -> None:
        """Write the checkpoint of a model that is as the best epoch left it."""
        self._save(model, changed)

    def _save(self, model: TaskModel, names: set[str], write: bool = True) -> None:
        if self.directory is None:
            return
        changed = checkpoint.tensors(model, names)  # gathered by all ranks where they share it
        if write:
            record = {**self.record, "epoch": self.epoch}
            self.bytes = checkpoint.save(self.directory, changed, record)


class Pruning(Callback):
    """Ends a fit early where a sweep says so; all ranks agree.

    Args:
        stop: whether to stop; asked after each validation, by the first process alone.
    """

    def __init__(self, stop: Callable[[], bool]) -> None:
        self.stop = stop
        self.pruned = False

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        decision = self.stop() if trainer.is_global_zero else False
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.strategy.broadcast(decision) and not last:
            self.pruned = trainer.should_stop = True
