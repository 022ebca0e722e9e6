"""Lightning's callbacks of every fit: the judge of its epochs, and the monitor of its steps."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import GuardFailed
from ftlab.training import checkpoint
from ftlab.training.block_gradients import BlockGradients
from ftlab.training.by_steps import batches_of, epochs_trained
from ftlab.training.event_log import EVERY, EventLog, Losses, Report, mean_of, metrics_event
from ftlab.training.guards import TensorGuard


class TrainingMonitor(Callback):
    """Reports progress and metrics, times steps, and stops at a non-finite loss.

    Args:
        guard: notes which tensors got gradients.
        report: takes the events.
        log_every: steps from one training metric to the next.
    """

    in_state = ("gradients", "step_seconds", "validations", "_about", "_finite", "_losses", "_named")
    """Attributes that a state of the run keeps."""

    def __init__(self, guard: TensorGuard, report: Report, log_every: int = EVERY) -> None:
        self.guard, self.report = guard, report
        self.events = EventLog(log_every, [report])
        self.gradients = BlockGradients()
        self.step_seconds: list[float] = []
        self._about: dict[str, Tensor | float] = {}  # the step that is to be logged
        self._finite: Tensor | None = None
        self._losses = Losses()
        self._named = False
        self.validations = 0

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self._start = time.perf_counter()

    def on_before_optimizer_step(self, trainer: Trainer, module: Any, optimizer: Any) -> None:
        self.guard.before_update(module.model, module.trained, optimizer)
        if self.events.wants(trainer.global_step + 1, trainer.is_last_batch):
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
        else:
            self.events.alive()
        self.step_seconds.append(time.perf_counter() - self._start)
        if self._about:
            self.gradients.follow()
            window = (batch - 1) % trainer.accumulate_grad_batches + 1
            self.events.add(trainer.global_step, {
                "train/loss": self._mean(trainer, window), **self._about,
                "train/step_seconds": self.step_seconds[-1]})
            self._about = {}

    def _mean(self, trainer: Trainer, last: int | None = None) -> Tensor:
        """Loss of the last batches, or of all of the epoch, over all processes."""
        sums = self._losses.sums(last)
        if trainer.world_size > 1:
            sums = trainer.strategy.reduce(sums, reduce_op="sum")
        return mean_of(sums)

    def _look(self, trainer: Trainer, batch: int) -> None:
        if not bool(self._finite):
            raise GuardFailed(f"non-finite loss at or before step {trainer.global_step}")
        done = trainer.current_epoch * int(trainer.num_training_batches) + batch
        total = (trainer.max_epochs or 1) * int(trainer.num_training_batches)
        if trainer.max_steps > 0:  # the last epoch may end before
            total = min(total, batches_of(trainer, trainer.max_steps))
        self.events.progress(done, total)

    def on_validation_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.events.alive()

    def on_validation_end(self, trainer: Trainer, module: Any) -> None:
        self.events.flush()
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if self._losses:
            values["train/epoch_loss"] = float(self._mean(trainer))
        if blocks := self.gradients.take():
            self._name_blocks(cast(TaskModel, module.model))
            values |= blocks
        self._losses.clear()
        values["epoch"] = epochs_trained(trainer)
        self.validations += 1
        if module.restarts:  # no curve goes on over them
            values["train/fit"] = len(module.restarts) + 1
        self.report({**metrics_event(trainer.global_step, values), "validation": self.validations})

    def _name_blocks(self, model: TaskModel) -> None:
        """Report the order of the blocks, once; names alone do not tell."""
        if not self._named:
            names = [block.name for block in (*model.blocks, model.head)]
            self.report({"event": "blocks", "text": "\n".join(names)})
        self._named = True

    @property
    def median_step(self) -> float:
        """Seconds of a training step, validation excluded."""
        return statistics.median(self.step_seconds)


class BestEpoch(Callback):
    """Judges every epoch: keeps the best one's checkpoint, and ends a fit that gets no better.

    Loops without the Trainer call `judge` and `ends` themselves.

    Args:
        select_by: the score's name, `val/accuracy` for instance.
        higher_is_better: its direction.
        directory: where the checkpoint goes; None keeps the scores alone.
        names: parameters and buffers to keep: all that any epoch may change.
        record: for the manifest.
        patience: end after so many validations without a better one; None never does.
        stop: whether a sweep ends the trial; asked after each validation, by the first process
            alone, and all ranks follow. None for a whole run.
        carried: of `names` those that are not as in the backbone from the start.

    Attributes:
        epoch: passes over the training examples at the best validation so far; 0 before any.
        scores: the validation metrics of the best epoch.
        pruned: whether `stop` ended the fit.
    """

    in_state = ("best", "epoch", "bytes", "scores", "pruned", "_waited", "_finite")
    """Attributes that a state of the run keeps."""

    def __init__(
        self, select_by: str, higher_is_better: bool, directory: Path | None, names: set[str],
        record: Mapping[str, Any], patience: int | None = None,
        stop: Callable[[], bool] | None = None, carried: set[str] | None = None,
    ) -> None:
        self.carried = carried or set()
        self.select_by, self.sign = select_by, 1 if higher_is_better else -1
        self.directory, self.names, self.record = directory, names, record
        self.patience, self.stop = patience, stop
        self.best, self.bytes = -math.inf, 0
        self.epoch: float = 0
        self.scores: dict[str, float] = {}
        self.pruned = False
        self._waited = 0  # validations since the best
        self._finite = True  # the last score

    def on_validation_end(self, trainer: Trainer, module: Any) -> None:
        epoch, first = epochs_trained(trainer), trainer.is_global_zero
        selectable = module.selectable(trainer.current_epoch, trainer.max_epochs)
        better = selectable and self.judge(trainer.callback_metrics, epoch)
        if better and (first or module.shard is not None):
            self._save(module.model, self.names, first)
        if self.stop is None and self.patience is None:
            return
        over = first and selectable and self.ends(trainer.should_stop or epoch == trainer.max_epochs)
        if trainer.strategy.broadcast(over):
            trainer.should_stop = True

    def judge(self, metrics: Mapping[str, Tensor | float], epoch: float) -> bool:
        """Return whether a validation is the best so far.

        Args:
            metrics: of it.
            epoch: passes over the training examples before it; of whole epochs their number.

        Raises:
            GuardFailed: there is nothing to judge it by.
        """
        if self.select_by not in metrics:
            raise GuardFailed(f"no {self.select_by} to choose the epoch by: validation gives "
                              f"{', '.join(sorted(metrics))}", "set select_by to one of them")
        score = self.sign * float(metrics[self.select_by])
        if math.isnan(score):
            raise GuardFailed(f"{self.select_by} is not a number after epoch {epoch:g}")
        self._finite = math.isfinite(score)
        # the first is the best so far, were it infinitely bad
        if self.epoch and score <= self.best:
            self._waited += 1
            return False
        self.best, self.epoch, self._waited = score, epoch, 0
        self.scores = {name: float(value) for name, value in metrics.items()}
        return True

    def ends(self, last: bool) -> bool:
        """Return whether the fit ends with the epoch that was judged last.

        Args:
            last: whether it ends anyway, so that nothing is pruned.
        """
        if self.stop is not None and self.stop() and not last:
            self.pruned = True
        return self.pruned or (self.patience is not None and (
            self._waited >= self.patience or not self._finite))

    def restore(self, model: TaskModel, guard: TensorGuard) -> None:
        """Put the best epoch back, and leave only what it changed in the checkpoint."""
        assert self.directory is not None
        checkpoint.load(self.directory, model)
        changed = guard.moved(model)
        if changed | self.carried != self.names:
            self._save(model, changed)

    def write(self, model: TaskModel, changed: set[str]) -> None:
        """Write the checkpoint of a model that no epoch will change any more."""
        self._save(model, changed)

    def _save(self, model: TaskModel, names: set[str], write: bool = True) -> None:
        if self.directory is None:
            return
        changed = checkpoint.tensors(model, names | self.carried, write)  # gathered where ranks share it
        if write:
            record = {**self.record, "epoch": self.epoch}
            self.bytes = checkpoint.save(self.directory, changed, record)
