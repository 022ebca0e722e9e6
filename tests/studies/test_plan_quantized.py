"""`quantized` in a study file: its place in a cell, what is refused before anything runs, what results say."""

from __future__ import annotations

import ast
import csv
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

import ftlab
from ftlab.errors import Incompatible, InputError
from ftlab.studies.plan import plan
from ftlab.studies.run_process import built
from ftlab.studies.study import load_study
from ftlab.studies.study_snapshot import record

Write = Callable[..., Path]
Here = Callable[..., tuple[int, str, str]]
BOTH = ["int8", "int4"]


def test_quantized__is_part_of_every_cell_and_nothing_without(write: Write, tmp_path: Path) -> None:
    plain = load_study(write())
    assert not any("quantized" in cell.config for cell in plain.cells) and "quantized" not in record(plain)
    assert load_study(write(quantized=None)).cells == load_study(write(quantized=[])).cells == plain.cells
    made = load_study(write(quantized=BOTH))
    assert {cell.key.config for cell in made.cells}.isdisjoint(cell.key.config for cell in plain.cells)
    path = tmp_path / "again.yaml"
    path.write_text(record(made), encoding="utf-8")
    assert load_study(path) == made
    given = made.specification(made.cells[0], 0)
    assert json.loads(json.dumps(given))["quantized"] == BOTH
    assert built(tmp_path, given).quantized == ("int8", "int4")
    assert built(tmp_path, {**given, "search": True}).quantized == ()  # a trial is not measured


@pytest.mark.parametrize(("given", "error"), [
    ("int8", "quantized: expected a list, got 'int8'"), (["int9"], "quantized: there is no 'int9'"),
    (["int8", "int8"], "quantized: int8 stands twice"), ([8], "quantized: there is no 8"),
])
def test_quantized__written_wrongly_is_refused_at_its_place(write: Write, given: Any, error: str) -> None:
    with pytest.raises(InputError, match=re.escape(error)):
        load_study(write(quantized=given))


def texts(reviews: Path, **more: Any) -> dict[str, Any]:
    return {"reviews": {"class_path": "TextClassification", "init_args": {
        "train": str(reviews), "max_length": 32, "batch_size": 8, **more}}}


def test_quantized__is_refused_before_anything_runs(
    write: Write, reviews: Path, monkeypatch: pytest.MonkeyPatch, here: Here
) -> None:
    with pytest.raises(InputError, match="int8 is a test set of the data set, too"):
        plan(load_study(write(quantized=BOTH, datasets=texts(reviews, tests={"int8": str(reviews)}))))
    with pytest.raises(InputError, match="torchao quantises no weights of float64"):
        plan(load_study(write(quantized=BOTH, trainer={"precision": "64-true"})))
    with pytest.raises(InputError, match=r"report: test.int8/accuracy: .* no test set of that name"):
        plan(load_study(write(report="test.int8/accuracy")))
    assert plan(load_study(write(quantized=BOTH, report="test.int8/accuracy"))).cells
    monkeypatch.setattr("ftlab.training.quantized.adaptable_layers", lambda model, grouped: {})
    with pytest.raises(Incompatible, match=r"probe on reviews from bert: quantized: int8 finds nothing"):
        plan(load_study(write(quantized=BOTH)))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torchao" else found(name, *rest))
    code, _, errors = here("run", write(quantized=["int8"]))
    assert code == 2 and not Path("mlflow.db").exists()
    assert "int8 and int4 weights are torchao's, which is not installed" in errors
    assert 'mend: pip install "ftlab[quantized]"' in errors
    assert plan(load_study(write())).cells  # who does not ask does not need it


def test_torchao__is_imported_within_functions_alone() -> None:
    """Its import takes seconds, and an environment without it runs every study that does not ask for it."""
    files = Path(ftlab.__file__).parent.rglob("*.py")
    for file in (file for file in files if "torchao" in file.read_text(encoding="utf-8")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        at_import = [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))]
        for node in at_import:
            assert not isinstance(node, ast.Import | ast.ImportFrom) or "torchao" not in ast.unparse(node), file


def test_results__show_each_quantised_model_against_itself(write: Write, here: Here, reviews: Path) -> None:
    pytest.importorskip("torchao")
    path = write(quantized=BOTH, seeds=[0, 1, 2], techniques={"full": {"class_path": "FullFineTuning",
                                                                     "init_args": {"lr": 0.001}}})
    code, output, errors = here("run", path)
    assert code == 0, output + errors
    assert "full@int8" in output and "quantised afterwards" in output
    folder = Path("results/small")
    runs = list(csv.DictReader((folder / "runs.csv").read_text().splitlines()))
    tests = {line["a"]: line for line in csv.DictReader((folder / "tests.csv").read_text().splitlines())}
    lines = {line["quantized"]: line for line in csv.DictReader((folder / "quantized.csv").read_text().splitlines())}
    assert [*tests] == ["full@int8", "full@int4"] and {line["b"] for line in tests.values()} == {"full"}
    for name in BOTH:
        apart = [float(run[f"test.{name}/accuracy"]) - float(run["test/accuracy"]) for run in runs]
        test, line = tests[f"full@{name}"], lines[name]
        assert float(test["difference"]) == pytest.approx(np.mean(apart), abs=1e-7)
        assert float(line["mean"]) == pytest.approx(np.mean([float(run[f"test.{name}/accuracy"]) for run in runs]))
        assert line["difference"] == test["difference"] and line["p"] == test["p_holm"]
        assert float(line["disk_bytes"]) == float(runs[0][f"cost/disk_{name}_bytes"]) < float(lines[""]["disk_bytes"])
        assert float(line["latency_seconds"]) == pytest.approx(
            np.mean([float(run[f"cost/latency_{name}_seconds"]) for run in runs]))
    raw = [float(tests[f"full@{name}"]["p"]) for name in BOTH]
    low, high = sorted(range(2), key=raw.__getitem__)
    holm = [0.0, 0.0]  # by hand: the smaller twice, the larger no less than that
    holm[low] = min(1.0, 2 * raw[low])
    holm[high] = max(holm[low], raw[high])
    assert [float(tests[f"full@{name}"]["p_holm"]) for name in BOTH] == pytest.approx(holm)
    code, output, errors = here("report", path)
    page = (folder / "report.html").read_text()
    assert code == 0 and 'id="quantised-afterwards"' in page and 'href="#quantised-afterwards"' in page
    assert "full@int4" in page
    code, output, errors = here("table", path, "--columns", "test/accuracy,test@int8/accuracy,cost/disk_int8_bytes")
    assert code == 0 and "test.int8/accuracy" in output, errors
    again = yaml.safe_load((folder / "study.yaml").read_text())
    assert again["quantized"] == BOTH


def test_one_seed__is_tested_over_examples(write: Write, here: Here) -> None:
    pytest.importorskip("torchao")
    import pyarrow.parquet as pq

    path = write(quantized=["int4"], seeds=[0], techniques={"probe": {"class_path": "LinearProbe"}})
    code, output, errors = here("run", path)
    assert code == 0, output + errors
    folder = Path("results/small")
    (_, line) = csv.DictReader((folder / "quantized.csv").read_text().splitlines())
    files = {file.name: pq.read_table(file).to_pydict() for file in Path("mlartifacts").rglob("test*.parquet")}
    right = {name: np.array([t == p for t, p in zip(rows["target"], rows["prediction"], strict=True)])
             for name, rows in files.items()}
    now, then = right["test.int4.parquet"], right["test.parquet"]
    wins, losses = int((now & ~then).sum()), int((then & ~now).sum())
    p = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert float(line["difference"]) == pytest.approx((wins - losses) / len(now))
    assert float(line["p"]) == pytest.approx(p) and line["test"].startswith("McNemar's exact test")
