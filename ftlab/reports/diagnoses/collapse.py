"""Some seeds learned next to nothing, and others of the same cell did."""

from __future__ import annotations

from typing import ClassVar

from ftlab.reports.collapses import RULE, seen, unseen
from ftlab.reports.diagnoses.base import Diagnosis, Finding, StudyHistory


class Collapse(Diagnosis):
    """A mean over two kinds of runs, and techniques beside it that may collapse as well."""

    title: ClassVar[str] = "Collapsed seeds"
    rule: ClassVar[str] = (
        f"{RULE} Where n seeds show none, collapses in up to 1 - 0.05^(1/n) of all seeds are not "
        "excluded (at 95%): 63% with three, 45% with five, 26% with ten.")

    def find(self, observed: StudyHistory) -> list[Finding]:
        findings = []
        for group in dict.fromkeys((cell.key.backbone, cell.key.dataset) for cell in observed.cells):
            cells = [cell for cell in observed.cells if cell.collapsed is not None
                     and (cell.key.backbone, cell.key.dataset) == group]
            for cell in cells:
                if cell.collapsed:
                    findings.append(Finding(
                        "warning", cell.key.title, (),
                        f"{cell.collapsed} of {len(cell.finished)} seeds collapsed",
                        "a lower learning rate, a longer warmup or more epochs; quote the median "
                        "and the share of collapsed seeds beside the mean"))
            counts = {cell.key.technique: (cell.collapsed or 0, len(cell.finished)) for cell in cells}
            if seen(counts) and (clean := unseen(counts)):
                findings.append(Finding(
                    "hint", f"{group[1]} from {group[0]}", (), clean,
                    "more seeds, before a technique is called more stable than another"))
        return findings
