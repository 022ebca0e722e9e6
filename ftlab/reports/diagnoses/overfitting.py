"""The training loss goes where the validation loss does not follow."""

from __future__ import annotations

from typing import ClassVar

from ftlab.reports.diagnoses.base import (
    Diagnosis,
    Finding,
    RunHistory,
    StudyHistory,
    mean,
    seeds_of,
)
from ftlab.wording import listed

GAP = 0.5
"""A share of the first epoch's training loss, which is about all there is to learn."""
RISE = 1.2
"""Validation loss at the end, of its lowest."""


class Overfitting(Diagnosis):
    """The model has partly learned the training examples themselves."""

    title: ClassVar[str] = "Overfitting"
    rule: ClassVar[str] = (
        "In most seeds the validation loss of the restored epoch exceeds that epoch's training "
        "loss by more than half of the first epoch's training loss (what there was to learn), or "
        "ends more than 20% above its own lowest value while the training loss still falls. A "
        "training loss is an epoch's mean, with dropout, so that the true gap is larger.")

    def find(self, observed: StudyHistory) -> list[Finding]:
        findings = []
        for cell in observed.cells:
            sick = [run for run in cell.finished if _gap(run) > GAP or _rises(run)]
            if not sick or 2 * len(sick) <= len(cell.finished):
                continue
            gaps = [run for run in sick if _gap(run) > GAP]
            runs = gaps or sick
            seen = (f"training loss {listed([f'{_training(run):.3g}' for run in runs])}, validation "
                    f"loss {listed([f'{_validation(run):.3g}' for run in runs])} at the restored "
                    "epoch")
            rises = [run for run in sick if _rises(run)]
            if rises:
                growth = mean([run.epochs("val/loss")[-1] / min(run.epochs("val/loss"))
                               for run in rises])
                seen += f"; the validation loss ends {100 * growth - 100:.0f}% above its lowest"
            findings.append(Finding(
                "warning" if gaps else "hint", cell.key.title, seeds_of(runs), seen,
                "more training examples or augmentation, weight decay, dropout, a technique with "
                "fewer trainable parameters" if gaps else
                "fewer epochs, or patience: what follows the best epoch is not used"))
        return findings


def _training(run: RunHistory) -> float:
    return run.epochs("train/epoch_loss")[(run.best_epoch or 1) - 1]


def _validation(run: RunHistory) -> float:
    return run.epochs("val/loss")[(run.best_epoch or 1) - 1]


def _whole(run: RunHistory) -> bool:
    lengths = {len(run.epochs(name)) for name in ("train/epoch_loss", "val/loss")}
    return len(lengths) == 1 and 1 <= (run.best_epoch or 0) <= min(lengths)


def _gap(run: RunHistory) -> float:
    """Validation less training loss, in units of the first epoch's training loss."""
    if not _whole(run) or (first := run.epochs("train/epoch_loss")[0]) <= 0:
        return 0.0
    return (_validation(run) - _training(run)) / first


def _rises(run: RunHistory) -> bool:
    if not _whole(run):
        return False
    losses, training = run.epochs("val/loss"), run.epochs("train/epoch_loss")
    lowest = losses.index(min(losses))
    return 0 < RISE * losses[lowest] < losses[-1] and training[-1] < training[lowest]
