"""The last epoch was the best: more of them might have been better."""

from __future__ import annotations

from typing import ClassVar

from ftlab.reports.diagnoses.base import (
    Diagnosis,
    Finding,
    RunHistory,
    StudyHistory,
    matters,
    mean,
    seeds_of,
    shown,
)
from ftlab.wording import listed


class Convergence(Diagnosis):
    """Training stopped while validation still improved."""

    title: ClassVar[str] = "Not converged"
    rule: ClassVar[str] = (
        "In most seeds the last epoch is the best, and the last epoch alone gained on average more "
        "than two hundredths of the selecting metric (of its value, where it is no share): the "
        "standard error of an accuracy of 0.9 over 225 examples. One epoch alone says nothing.")

    def find(self, observed: StudyHistory) -> list[Finding]:
        name, sign = observed.select_by, 1 if observed.select_upwards else -1
        findings = []
        for cell in observed.cells:
            late = [run for run in cell.finished if _last(run, name)]
            if not late or 2 * len(late) <= len(cell.finished):
                continue
            ends = [run.epochs(name)[-2:] for run in late]
            gain = mean([sign * (after - before) for before, after in ends])
            if not matters(name, gain, mean([after for _, after in ends])):
                continue
            courses = [f"{shown(name, before)} to {shown(name, after)}" for before, after in ends]
            findings.append(Finding(
                "warning", cell.key.title, seeds_of(late),
                f"{name} still went from {listed(courses)} in the last of "
                f"{max(len(run.epochs(name)) for run in late)} epochs",
                "more epochs (trainer.max_epochs, of this technique alone if the others have "
                "converged), or a higher learning rate"))
        return findings


def _last(run: RunHistory, metric: str) -> bool:
    count = len(run.epochs(metric))
    return count > 1 and run.best_epoch == count
