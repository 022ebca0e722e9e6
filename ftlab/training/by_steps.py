"""Fits that are counted in steps or seconds: when they are validated, and when they end."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

from lightning import Callback, Trainer

from ftlab.data.base import DataModule
from ftlab.errors import InputError
from ftlab.techniques.base import Technique
from ftlab.techniques.wrapper import RESTARTS, TO_THE_END, Wrapper
from ftlab.training.event_log import Report
from ftlab.training.trainer_settings import TrainerSettings

NEVER = 2**62  # batches from one validation to the next, where steps decide
LOOK = 10  # batches from one agreement of several processes on the time to the next


class StepSchedule(Callback):
    """Validates every so many steps, and ends a fit after so many steps or seconds.

    Lightning counts batches; here an update counts, whatever number of batches it takes. The end
    of the fit is always validated.

    Args:
        settings: of the run, `max_epochs` being those of its steps.
        report: takes a note where the time ended the fit.

    Attributes:
        seconds: of the fit so far; a run that continues has those before.
    """

    in_state = ("seconds",)
    """Attributes that a state of the run keeps."""

    def __init__(self, settings: TrainerSettings, report: Report) -> None:
        self.settings, self.report = settings, report
        self.seconds = 0.0
        self._since = 0.0
        self._step = 0

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        self._since, self._step = time.monotonic(), trainer.global_step
        if self.settings.validate_every is not None:
            trainer.val_check_batch = NEVER

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        now = time.monotonic()
        self.seconds, self._since = self.seconds + now - self._since, now
        step, every = trainer.global_step, self.settings.validate_every
        late = self._out_of_time(trainer, batch_idx)
        if every is not None:
            trainer.val_check_batch = NEVER
        if step == self._step:  # gradients are being added up
            return
        self._step = step
        if step == self.settings.max_steps or late:
            trainer.should_stop = True  # Lightning validates before it stops
        elif every is not None and self._due(trainer, step, every):
            trainer.val_check_batch = 1

    def _out_of_time(self, trainer: Trainer, batch: int) -> bool:
        limit = self.settings.max_seconds
        if limit is None:
            return False
        late = self.seconds >= limit
        if trainer.world_size > 1:  # all processes end together
            agreed = (batch + 1) % LOOK == 0 or trainer.is_last_batch
            late = bool(trainer.strategy.broadcast(late)) if agreed else False
        if late and trainer.is_global_zero:
            self.report({"event": "note", "text": f"the fit ended after max_seconds: {limit:g} s, at "
                                                  f"step {trainer.global_step}"})
        return late

    def _due(self, trainer: Trainer, step: int, every: float) -> bool:
        if trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs:
            return True
        if isinstance(every, int):
            return step % every == 0
        updates = updates_of(trainer)
        within = (step - 1) % updates + 1
        # the step at which another `every` of the epoch is full
        return math.floor(within / updates / every + EXACT) > math.floor(
            (within - 1) / updates / every + EXACT)


EXACT = 1e-9  # 3 times a third of an epoch are one


def updates_of(trainer: Trainer) -> int:
    """The updates of an epoch."""
    return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)


def epochs_trained(trainer: Trainer) -> float:
    """The passes over the training examples so far: a whole number at the end of an epoch."""
    batch, of = trainer.fit_loop.batch_idx + 1, int(trainer.num_training_batches)
    return trainer.current_epoch + (1 if batch >= of else batch / of)


def batches_of(trainer: Trainer, steps: int) -> int:
    """The batches of so many updates, of which an epoch's last may have fewer."""
    epochs, rest = divmod(steps, updates_of(trainer))
    return epochs * int(trainer.num_training_batches) + rest * trainer.accumulate_grad_batches


def settled(settings: TrainerSettings, data: DataModule) -> TrainerSettings:
    """Settings whose `max_epochs` holds `max_steps` updates, or gives `min_steps` at least.

    Args:
        settings: of the run.
        data: connected, with the batches of the fit.
    """
    if settings.min_steps is None and settings.max_steps is None:
        return settings
    updates = updates_per_epoch(settings, data)
    if settings.max_steps is not None:
        return replace(settings, max_epochs=math.ceil(settings.max_steps / updates))
    epochs = math.ceil((settings.min_steps or 0) / updates)
    return replace(settings, max_epochs=max(settings.max_epochs, epochs))


def updates_per_epoch(settings: TrainerSettings, data: DataModule) -> int:
    """The updates of an epoch of a run's training batches."""
    count = len(data.train_dataloader())
    lone = len(data.splits["train"]) % data.batch_size == 1 and not data.sampling.plans
    count -= count > 1 and lone  # it may join another
    return math.ceil(count / settings.accumulate)


def foreseen(settings: TrainerSettings, batches: int) -> tuple[int, int]:
    """The training batches and the validations of a fit that nothing ends early.

    Args:
        settings: of the run, `max_epochs` being those of its steps.
        batches: of an epoch.
    """
    updates = math.ceil(batches / settings.accumulate)
    steps = settings.max_steps or settings.max_epochs * updates
    trained, every = min(settings.max_epochs * batches, steps * settings.accumulate), settings.validate_every
    if every is None:
        return trained, settings.max_epochs
    return trained, math.ceil(steps / (every if isinstance(every, int) else every * updates))


def check(technique: Technique, data: DataModule, settings: TrainerSettings) -> None:
    """Refuse validations and ends that a technique does not bear.

    Raises:
        InputError: the fit may end, or be judged, where the technique has no finished model.
    """
    early = [name for name, value in (("patience", settings.patience),
                                      ("max_seconds", settings.max_seconds)) if value is not None]
    while isinstance(technique, Wrapper):
        part, technique = technique, technique.technique
        if TO_THE_END in part.does and early:
            raise InputError(f"{type(part).__name__} {TO_THE_END}, and {early[0]} may end the fit "
                             "before", f"set trainer: {{{early[0]}: null}}")
        if RESTARTS not in part.does:
            continue
        name = type(part).__name__
        every = settings.validate_every
        whole = isinstance(every, float) and every == 1
        for setting, value in (("validate_every", None if whole else every),
                               ("max_seconds", settings.max_seconds)):
            if value is not None:
                raise InputError(f"{name} has no finished model within an epoch, and {setting}: "
                                 f"{value} takes one there", f"set trainer: {{{setting}: null}}")
        if settings.max_steps is not None:
            updates = updates_per_epoch(settings, data)
            if settings.max_steps % updates:
                less = settings.max_steps // updates * updates
                raise InputError(
                    f"{name} has no finished model within an epoch, which has {updates} steps, and "
                    f"max_steps: {settings.max_steps} ends in one",
                    f"set max_steps: {less + updates}")
