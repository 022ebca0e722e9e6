"""Notes that runs wrote themselves."""

from __future__ import annotations

from typing import ClassVar

from ftlab.reports.diagnoses.base import Diagnosis, Finding, StudyHistory


class Notes(Diagnosis):
    """Duplicates between splits, unused layers, and what else a run says of itself."""

    title: ClassVar[str] = "Notes of the runs"
    rule: ClassVar[str] = "A run, or its data, recorded a note (duplicates between splits, say)."

    def find(self, observed: StudyHistory) -> list[Finding]:
        notes: dict[str, dict[str, None]] = {}
        for cell in observed.cells:
            for run in cell.runs:
                for note in filter(None, run.notes.split("\n")):
                    notes.setdefault(note, {})[cell.key.title] = None
        whole = sum(bool(cell.runs) for cell in observed.cells)
        return [Finding("hint", "all cells that ran" if len(cells) == whole > 1 else ", ".join(cells), (),
                        note, _advice(note)) for note, cells in notes.items()]


def _advice(note: str) -> str:
    if "duplicate" in note:
        return "remove them from the training data, or say how many there are beside the result"
    if "were cut at" in note:
        return "a larger max_length, if what stands after the cut matters to the task"
    return ""
