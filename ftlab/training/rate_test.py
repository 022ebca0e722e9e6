"""The learning-rate range test: the loss while the rate grows from step to step.

Smith (2017), https://arxiv.org/abs/1506.01186; smoothing and stopping as Howard and Gugger (2020),
https://arxiv.org/abs/2002.04688, do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from ftlab.backbones.new_tokens import thaw
from ftlab.data.train_batches import set_epoch
from ftlab.errors import Incompatible
from ftlab.training import stages
from ftlab.training.adapt import adapt, load
from ftlab.training.evaluate import placing
from ftlab.training.event_log import Report
from ftlab.training.make_trainer import silent_trainer
from ftlab.training.run import Run

SMOOTHING = 0.98  # of the losses' exponential mean
HOPELESS = 4.0  # times the lowest loss, at which the test ends


@dataclass(frozen=True)
class RateTest:
    """The course of a test.

    Attributes:
        rates: of each step, rising.
        losses: smoothed, after each step.
        suggestion: the rate at which the loss fell fastest.
    """

    rates: list[float]
    losses: list[float]
    suggestion: float


def range_test(run: Run, report: Report, low: float, high: float, steps: int) -> RateTest:
    """Train a fresh model for some steps, each with a higher rate, and throw it away.

    Args:
        run: not loaded yet.
        report: takes the notes.
        low: rate of the first step.
        high: of the last.
        steps: at most; fewer where the loss explodes.

    Raises:
        Incompatible: the technique trains nothing.
    """
    if run.settings.precision == "16-mixed":
        raise Incompatible("a range test has no scale for float16's gradients",
                           "set trainer: {precision: bf16-mixed}, or 32-true")
    if not run.technique.trains:
        raise Incompatible(f"{type(run.technique).__name__} trains nothing, so it has no rate",
                           "name another entry")
    stages.learn(run, report)
    load(run, report)
    model, _ = adapt(run, report)
    trainer = silent_trainer(run)
    device, context = trainer.strategy.root_device, trainer.precision_plugin.forward_context
    place = placing(trainer, device)
    technique, task = run.technique, run.data.task
    model.to(device)
    technique.begin_fit(model, run.data, steps)
    technique.begin_epoch(model, 0, run.settings.max_epochs)
    thaw(model)
    technique.train()
    groups = technique.optimizer_groups()
    own = [group["lr"] / technique.lr for group in groups]  # of blocks, say, against the head's
    optimizer = technique.optimizer(groups)
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    batches = _endless(run.data.train_dataloader())
    for step in range(steps):
        window = list(itertools.islice(batches, run.settings.accumulate))
        rate = low * (high / low) ** (step / max(1, steps - 1))
        for group, factor in zip(optimizer.param_groups, own, strict=True):
            group["lr"] = rate * factor
        optimizer.zero_grad()
        losses_of = []
        for raw in window:
            with context():
                loss = technique.objective(model, task, place(raw))
            (loss / len(window)).backward()
            losses_of.append(float(loss.detach()))
        if run.settings.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), run.settings.gradient_clip)
        optimizer.step()
        mean = SMOOTHING * mean + (1 - SMOOTHING) * sum(losses_of) / len(window)
        smoothed = mean / (1 - SMOOTHING ** (step + 1))
        if not math.isfinite(smoothed) or (losses and smoothed > HOPELESS * min(losses)):
            break
        rates.append(rate)
        losses.append(smoothed)
    return RateTest(rates, losses, suggested(rates, losses))


def _endless(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches of one epoch after another."""
    for epoch in itertools.count():
        set_epoch(loader, epoch)
        yield from loader


def suggested(rates: list[float], losses: list[float]) -> float:
    """The rate at which the loss falls fastest over the rate's logarithm, before its lowest."""
    if len(rates) < 3:
        return rates[0] if rates else math.nan
    wide = max(1, len(rates) // 20)  # a single batch is not a slope
    falls = np.array(losses[2 * wide:]) - np.array(losses[: -2 * wide])
    end = max(1, int(np.argmin(losses)) + 1 - wide)
    return rates[wide + int(np.argmin(falls[:end]))]
