"""The classes that the study means, by hand."""

from pathlib import Path

from ftlab.studies.components import build
from ftlab.studies.study import load_study
from ftlab.studies.study_snapshot import record

CLASSES = ["0", "010", "0x1F", "10", "12:30", "1_0", "1e3", "null", "old", "~"]


def check(folder: Path) -> None:
    study = load_study(folder / "study.yaml")
    data = build(study.cells[0].data)
    data.load()
    assert sorted(data.task.classes) == CLASSES
    assert study.cells[0].key.title == "0 on 1e3 from 1"
    (folder / "again.yaml").write_text(record(study), encoding="utf-8")
    assert load_study(folder / "again.yaml") == study
