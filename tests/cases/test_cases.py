"""Small inputs as people have them, through the front door: a folder a case, see README.md there."""

import csv
import importlib.util
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import families
import pytest
import yaml

UNRENDERED = True
Here = Callable[..., tuple[int, str, str]]
FOLDER = Path(__file__).parent
CASES = sorted(path.parent.name for path in FOLDER.glob("*/case.yaml"))
CASE_KEYS = {"what", "needs", "steps"}
STEP_KEYS = {"ftlab", "code", "says", "never_says", "scores"}


def _functions(case: Path) -> ModuleType | None:
    """The case's `case.py`, which may have `make(folder)` and `check(folder)`."""
    path = case / "case.py"
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location(f"case_{case.name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _folder(name: str, case: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The case's files in a folder of its own, with the networks and data that it needs."""
    shutil.copytree(FOLDER / name, tmp_path, dirs_exist_ok=True)
    for needed in case.get("needs", []):
        source = (request.getfixturevalue("save")(needed) if needed in families.TEXT | families.IMAGE
                  else request.getfixturevalue(needed))
        (tmp_path / f"{needed}{source.suffix}").symlink_to(source)
    shutil.copy(request.getfixturevalue("empty_store"), tmp_path / "mlflow.db")
    return tmp_path


def _assert_scores(expected: dict[str, dict[str, float | list[float]]], folder: Path) -> None:
    """Each run of a technique has the metric: a number to 1e-6, or a range."""
    if not expected:
        return
    [table] = folder.glob("results/*/runs.csv")
    with table.open(encoding="utf-8") as file:
        runs = list(csv.DictReader(file))
    for technique, metrics in expected.items():
        own = [run for run in runs if run["technique"] == technique]
        assert own, f"no run of {technique}"
        for run in own:
            assert run["status"] == "FINISHED", run
            for metric, value in metrics.items():
                got = float(run[metric])
                if isinstance(value, list):
                    assert value[0] <= got <= value[1], (technique, metric, got)
                else:
                    assert got == pytest.approx(value, abs=1e-6), (technique, metric, got)


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch,
              request: pytest.FixtureRequest) -> None:
    case = yaml.safe_load((FOLDER / name / "case.yaml").read_text(encoding="utf-8"))
    assert case.keys() <= CASE_KEYS and {"what", "steps"} <= case.keys()
    monkeypatch.setenv("COLUMNS", "300")
    folder = _folder(name, case, tmp_path, request)
    functions = _functions(FOLDER / name)
    if functions is not None and hasattr(functions, "make"):
        functions.make(folder)
    for step in case["steps"]:
        assert step.keys() <= STEP_KEYS, step
        code, output, errors = here(*shlex.split(step["ftlab"]))
        said = re.sub(r"\s+", " ", output + errors)
        assert code == step.get("code", 0), said
        assert "Traceback" not in said
        for words in step.get("says", []):
            assert words in said, (words, said)
        for words in step.get("never_says", []):
            assert words not in said, (words, said)
        if "scores" in step:
            _assert_scores(step["scores"], folder)
    if functions is not None and hasattr(functions, "check"):
        functions.check(folder)
