"""Checked entries of study files are kept, and spare those who read results the classes' import."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ftlab.studies import check_cache
from ftlab.studies.catalogue import catalogue
from ftlab.studies.study import load_study

STUDY = {
    "name": "small", "backbones": {"b": {"class_path": "HuggingFace", "init_args": {"source": "x"}}},
    "datasets": {"d": {"class_path": "TextClassification", "init_args": {"train": "d.csv"}}},
    "techniques": {"probe": "LinearProbe", "full": {"class_path": "FullFineTuning"}},
}
HEAVY = ("torch", "lightning", "torchmetrics", "transformers")
READ = """
import sys
from collections.abc import Callable
from ftlab.reports.study_results import StudyResults
from ftlab.studies.study import load_study
from ftlab.studies.study_tasks import StudyTasks
from ftlab.tracking.metric_facts import from_tag
from ftlab.tracking.records import CellRecord
import ftlab.reports.study_table
study = load_study(sys.argv[1])
records = {cell.key: CellRecord("", cell.key, (), (), {}, from_tag('{"loss":[false,"non-negative"]}'))
           for cell in study.cells}
found = StudyResults("small", "test/loss", list(records), records, StudyTasks(study))
assert found.upwards("test/loss") is False and found.direction("d", "test/accuracy") is None
print(*sorted(set(sys.argv[2:]) & set(sys.modules)))
"""


def test_a_second_look_imports_no_network(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    first = load_study(path)
    again = subprocess.run([sys.executable, "-c", READ, str(path), *HEAVY], capture_output=True,
                           text=True, check=True)
    assert again.stdout.strip() == ""
    assert load_study(path) == first


LIST = """
import sys
from ftlab.studies import check_cache
from ftlab.studies.catalogue import catalogue
print(*catalogue(sys.argv[1]), sep="\\n")
print(*sorted(set(sys.argv[2:]) & set(sys.modules)))
"""


def test_a_second_list_imports_no_network() -> None:
    lines = catalogue("techniques")
    again = subprocess.run([sys.executable, "-c", LIST, "techniques", *HEAVY], capture_output=True,
                           text=True, check=True)
    assert again.stdout.splitlines() == [*"\n".join(lines).splitlines(), ""]


def test_a_list_shows_what_parents_say_of_arguments(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "patient.py").write_text(
        "from ftlab.techniques.linear_probe import LinearProbe\n\n\n"
        "class PatientProbe(LinearProbe):\n    'Train the head alone, slowly.'\n")
    monkeypatch.syspath_prepend(tmp_path)
    lines = catalogue("techniques", ["patient"])
    place = lines.index("  PatientProbe: Train the head alone, slowly.")
    assert lines[place + 1].startswith("      lr (float) = 0.005: peak learning rate; a linear layer")


@pytest.mark.parametrize("harm", [
    lambda text: text.replace("ftlab.techniques.linear_probe.LinearProbe", "os.system"),
    lambda text: text[: len(text) // 2],
    lambda text: "",
])
def test_what_others_wrote_into_the_cache_names_no_class(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[str], str]) -> None:
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    first = load_study(path)
    kept = [each for each in (tmp_path / "cache" / "checks").glob("*.json")
            if "linear_probe" in each.read_text()]
    assert kept
    for each in kept:
        each.write_text(harm(each.read_text()))
    assert load_study(path) == first


def test_code__is_that_of_the_packages_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder that was in `sys.path` for a while nothing stays."""
    before = check_cache._code(tuple(sys.path))
    (tmp_path / "other-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert check_cache._code(tuple(sys.path)) != before
    monkeypatch.undo()
    assert check_cache._code(tuple(sys.path)) == before


@pytest.mark.parametrize("inner", ["setuptools/_vendor", "ray/thirdparty_files"])
def test_code__leaves_out_the_copies_that_packages_bring(tmp_path: Path, inner: str) -> None:
    """They put folders of their own into `sys.path`, for the life of the process."""
    place = tmp_path / "site-packages" / inner
    (place / "packaging-26.0.dist-info").mkdir(parents=True)
    bare = tuple(sys.path)
    assert check_cache._code((*bare, str(place))) == check_cache._code(bare)
