"""The loss rises, jumps, or is no number any more."""

from __future__ import annotations

import math
from typing import ClassVar

from ftlab.reports.diagnoses.base import (
    NON_FINITE,
    Diagnosis,
    Finding,
    RunHistory,
    StudyHistory,
    seeds_of,
)
from ftlab.wording import listed

JUMP = 2.0
"""A logged loss after the first epoch, in units of that epoch's mean."""
RISE, LEAST = 1.2, 0.1
"""Mean loss of the last epoch: of the lowest epoch's, and above it in units of the first's."""


class LearningRate(Diagnosis):
    """Steps are longer than the loss bears."""

    title: ClassVar[str] = "Learning rate too high"
    rule: ClassVar[str] = (
        "A run ended with a non-finite loss; or its training loss after the first epoch was once "
        "more than twice the first epoch's mean, which is worse than knowing nothing; or the "
        "last epoch's mean is more than 20% above the lowest epoch's, and that by more than a "
        "tenth of the first epoch's (small batches make less noise than that).")

    def find(self, observed: StudyHistory) -> list[Finding]:
        findings = []
        for cell in observed.cells:
            rates = sorted({rate for run in cell.runs if (rate := _rate(run)) > 0})
            lower = f"a lower learning rate (highest seen {rates[-1]:.3g})" if rates else (
                "a lower learning rate")
            advice = f"{lower}, a longer warm-up, or gradient clipping"
            broken = [run for run in cell.runs if run.reason.startswith(NON_FINITE)]
            if broken:
                findings.append(Finding("problem", cell.key.title, seeds_of(broken),
                                     listed([run.reason for run in broken]), advice))
            wild = [run for run in cell.finished if _jumps(run) or _rises(run)]
            if wild:
                findings.append(Finding("warning", cell.key.title, seeds_of(wild),
                                     listed([_described(run) for run in wild]), advice))
        return findings


def _rate(run: RunHistory) -> float:
    return max((value for _, value in run.steps("train/lr")), default=math.nan)


def _jumps(run: RunHistory) -> list[tuple[int, float]]:
    """Steps and losses of the jumps."""
    means = run.epochs("train/epoch_loss")
    if not means or means[0] <= 0:
        return []
    return [(at, loss) for at, loss in run.steps("train/loss")
            if at > run.ends[0] and loss > JUMP * means[0]]


def _rises(run: RunHistory) -> bool:
    losses = run.epochs("train/epoch_loss")
    if len(losses) < 2 or losses[0] <= 0:
        return False
    lowest, last = min(losses), losses[-1]
    return last > RISE * lowest and last - lowest > LEAST * losses[0]


def _described(run: RunHistory) -> str:
    losses = run.epochs("train/epoch_loss")
    if jumps := _jumps(run):
        step, loss = max(jumps, key=lambda jump: jump[1])
        return f"training loss {loss:.3g} at step {step}, in the first epoch {losses[0]:.3g}"
    return f"mean training loss {losses[-1]:.3g} in the last epoch, {min(losses):.3g} at its lowest"
