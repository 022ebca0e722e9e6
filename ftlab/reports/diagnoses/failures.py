"""Runs that did not finish, and why."""

from __future__ import annotations

from typing import ClassVar

from ftlab.reports.diagnoses.base import (
    NON_FINITE,
    Diagnosis,
    Finding,
    Level,
    StudyHistory,
    seeds_of,
)

_LEVELS: dict[str, Level] = {"FAILED": "problem", "KILLED": "warning"}


class Failures(Diagnosis):
    """A cell whose numbers are incomplete."""

    title: ClassVar[str] = "Runs that did not finish"
    rule: ClassVar[str] = "A run ended without a result; a non-finite loss is said elsewhere."

    def find(self, observed: StudyHistory) -> list[Finding]:
        findings = []
        for cell in observed.cells:
            others = [run for run in cell.runs
                      if not run.finished and not run.reason.startswith(NON_FINITE)]
            for status, reason in dict.fromkeys((run.status, run.reason) for run in others):
                alike = [run for run in others if (run.status, run.reason) == (status, reason)]
                findings.append(Finding(
                    _LEVELS.get(status, "hint"), cell.key.title, seeds_of(alike),
                    f"{status.lower()}: {reason or 'nobody said why'}",
                    "mend the reason; the same ftlab run continues with what is missing"))
        return findings
