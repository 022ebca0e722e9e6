"""One run of a pack: what it has of its own while the network is that of all."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ftlab.backbones.task_model import Outputs, TaskModel
from ftlab.errors import GuardFailed
from ftlab.techniques.single_precision import in_single_precision
from ftlab.training import costs
from ftlab.training.block_gradients import BlockGradients
from ftlab.training.callbacks import Report
from ftlab.training.guards import TensorGuard
from ftlab.training.run import Run
from ftlab.training.step_log import Losses, StepLog, mean_of


@dataclass(eq=False)
class Member:
    """A trial among others that train on one network.

    Attributes:
        run: adapted; its model's trainable parameters are views of the pack's.
        report, stop: as for `search`.
        guard: of its model.
        state: of the generator that dropout draws from, as it is when its fit begins.
        seconds, steps: its share of the pack's time, in all and of each step.
    """

    run: Run
    report: Report
    stop: Callable[[], bool]
    guard: TensorGuard
    state: Tensor
    seconds: float = 0.0
    steps: list[float] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    epoch: int = 0
    pruned: bool = False
    _best: float = -math.inf
    _stale: int = 0
    _losses: Losses = field(default_factory=Losses)
    _window: int = 0  # batches since the last update
    _about: dict[str, Tensor | float] = field(default_factory=dict)  # the step to be logged

    def __post_init__(self) -> None:
        self.curves = StepLog(self.run.settings.log_every, [self.report])
        self.gradients = BlockGradients()

    @property
    def model(self) -> TaskModel:
        return self.run.technique.model

    @property
    def trainable(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def begin(self, batches: int) -> None:
        """Make the optimizer and its schedule.

        Args:
            batches: of an epoch.
        """
        technique, settings = self.run.technique, self.run.settings
        self.total = batches * settings.max_epochs
        updates = math.ceil(batches / settings.accumulate) * settings.max_epochs
        groups = technique.param_groups(self.model)
        factors = technique.lr_factors(groups, updates, settings.max_epochs)
        self.optimizer = technique.optim.build(groups)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factors)

    def begin_epoch(self, epoch: int) -> None:
        technique = self.run.technique
        technique.begin_epoch(self.model, epoch, self.run.settings.max_epochs)
        technique.train()
        technique.trained |= {n for n, p in self.model.named_parameters() if p.requires_grad}

    def update(self, step: int, last: bool) -> bool:
        """Take one step of the optimizer with the gradients that there are; the run goes on.

        Args:
            step: number of the update, from 1.
            last: of the epoch.

        Raises:
            GuardFailed: see `TensorGuard.before_update`.
        """
        window, self._window = self._window, 0
        self.guard.before_update(self.model, self.run.technique.trained, self.optimizer)
        if self.curves.wants(step, last):
            self._about = {"train/loss": mean_of(self._losses.sums(window)),
                           "train/lr": self.optimizer.param_groups[0]["lr"],
                           "train/grad_norm": self.gradients.look(self.model)}
        if self.run.settings.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.trainable, self.run.settings.gradient_clip)
        self.optimizer.step()
        self.schedule.step()
        return True

    def note(self, loss: Tensor, weight: float) -> None:
        """Keep a batch's loss.

        Args:
            loss: its mean.
            weight: units that it is the mean of.
        """
        self._losses.add(loss, weight)
        self._window += 1

    def took(self, seconds: float, step: int) -> None:
        """Its share of a batch's time, after so many updates."""
        self.steps.append(seconds)
        if self._about:
            self.curves.add(step, {**self._about, "train/step_seconds": seconds})
            self._about = {}

    def look(self, step: int, done: int) -> bool:
        """Tell how far it is; whether it goes on.

        Args:
            step: updates so far.
            done: batches so far.

        Raises:
            GuardFailed: a loss since the epoch's beginning is not finite.
        """
        losses = torch.stack(self._losses.values)
        if not bool(torch.isfinite(losses).all()):
            raise GuardFailed(f"non-finite loss at or before step {step}")
        self.report({"event": "progress", "phase": "fit", "done": done, "total": self.total})
        return True

    def measure(self, outputs: Outputs, batch: Mapping[str, object]) -> None:
        """Count a validation batch's outputs in."""
        technique = self.run.technique
        loss = technique.task.loss(in_single_precision(outputs), batch)
        technique.validation_loss.update(loss, weight=technique.task.weight(batch))
        predictions = technique.task.predict(self.model, batch, outputs)
        technique.validation_metrics.update(in_single_precision(predictions), batch["target"])

    def judge(self, epoch: int, step: int) -> bool:
        """Take the epoch's validation in; whether the fit goes on.

        Raises:
            GuardFailed: the score that chooses the epoch is missing or not a number.
        """
        technique, select_by = self.run.technique, self.run.select_by
        computed = {**technique.validation_metrics.compute(),
                    "loss": technique.validation_loss.compute()}
        technique.validation_metrics.reset()
        technique.validation_loss.reset()
        # in float32, as Lightning logs
        scores = {f"val/{name}": float(torch.tensor(value, dtype=torch.float32))
                  for name, value in technique.task.scalars(computed).items()}
        self.curves.flush()
        self._tell(step, scores | {
            "train/epoch_loss": float(mean_of(self._losses.sums())), "epoch": epoch + 1,
            **self.gradients.take()})
        self._losses.clear()
        if select_by not in scores:
            raise GuardFailed(f"no {select_by} to choose the epoch by: validation gives "
                              f"{', '.join(sorted(scores))}", "set select_by to one of them")
        better = technique.task.higher_is_better(select_by.removeprefix("val/"))
        score = scores[select_by] if better else -scores[select_by]
        if math.isnan(score):
            raise GuardFailed(f"{select_by} is not a number after epoch {epoch + 1}")
        self._stale += 1
        if score > self._best or not self.epoch:
            self._best, self._stale, self.epoch, self.scores = score, 0, epoch + 1, scores
        settings = self.run.settings
        if self.stop() and epoch + 1 < settings.max_epochs:
            self.pruned = True
        patient = settings.patience is None or self._stale < settings.patience
        return not self.pruned and patient and epoch + 1 < settings.max_epochs

    def results(self, shared: Mapping[str, float]) -> dict[str, float]:
        """What `search` returns.

        Args:
            shared: its share of costs that the pack has had.

        Raises:
            GuardFailed: a trained tensor got no gradient or never moved, a frozen one changed.
        """
        trained = self.run.technique.trained
        for note in self.guard.check(self.model, trained):
            self.report({"event": "note", "text": note})
        measured = {"cost/train_seconds": self.seconds,
                    "cost/step_seconds": statistics.median(self.steps), **shared}
        return (self.scores | measured | costs.parameter_counts(self.model, trained)
                | {"best_epoch": self.epoch, "pruned": float(self.pruned)})

    def _tell(self, step: int, metrics: Mapping[str, float]) -> None:
        self.report({"event": "metrics", "step": step, "metrics": dict(metrics),
                     "time": time.time_ns() // 1_000_000})
