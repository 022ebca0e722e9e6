"""`ftlab table` on study files whose runs are in a store; nothing is trained, no data is read."""

import csv

import pytest
import yaml
from typer.testing import CliRunner

from ftlab.cli import app
from ftlab.errors import InputError
from ftlab.reports.study_table import chosen_table, table
from ftlab.studies.study import load_study
from ftlab.tracking.tracker import Tracker


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Two study files and the store that holds runs of their cells."""
    folder = tmp_path_factory.mktemp("studies")
    uri = f"sqlite:///{folder}/mlflow.db"
    paths = []
    for name, gain in (("first", 0.0), ("second", 0.05)):
        data = {n: {"class_path": "TextClassification", "init_args": {"train": f"{n}.csv"}}
                for n in ("sst2", "rte")}
        study = {
            "name": name, "backbones": {"bert": {"class_path": "HuggingFace",
                                                 "init_args": {"source": "nowhere"}}},
            "datasets": data, "seeds": [0, 1],
            "techniques": {"probe": {"class_path": "LinearProbe",
                                     "init_args": {"lr": 0.01 + gain}}, "lora": "LoRA"},
            "groups": {"all": ["sst2", "rte"]},
            "paper": {"citation": "Someone (2020)", "url": "https://example.org", "where": "Table 1",
                      "unit": "percent", "numbers": {"lora": {"all": 81.0}},
                      "protocol": dict.fromkeys(("split", "metric", "averaging", "preprocessing",
                                                 "initialisation"), "the same")},
        }
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(yaml.safe_dump(study, sort_keys=False))
        loaded = load_study(paths[-1])
        tracker = Tracker(uri)
        tracker.open_study(name, {})
        for order, cell in enumerate(loaded.cells):
            cell_id = tracker.open_cell(cell.key, {}, loaded.seeds, order)
            for seed in loaded.seeds:
                run = tracker.open_run(cell_id, seed, {})
                score = 0.8 + gain + 0.01 * seed
                tracker.log_metrics(run, {"test/accuracy": score, "cost/train_seconds": 700.0}, 1, 1)
                tracker.end_run(run, "FINISHED")
            tracker.end_cell(cell_id)
        tracker.close()
    return paths, uri


def test_table__several_studies_with_columns(studies, tmp_path):
    paths, uri = studies
    done = CliRunner().invoke(app, ["table", *map(str, paths), "--columns", "datasets",
                                    "--tracking-uri", uri, "--results", str(tmp_path)])
    assert done.exit_code == 0, done.output
    folder = tmp_path / "first+second" / "tables"
    assert {p.name for p in folder.iterdir()} == {f"datasets.{e}" for e in ("md", "tex", "html", "csv")}
    lines = list(csv.DictReader((folder / "datasets.csv").read_text().splitlines()))
    assert [(r["study"], r["technique"], round(float(r["mean over tasks.mean"]), 4)) for r in lines] \
        == [("first", "probe", 0.805), ("first", "lora", 0.805), ("second", "probe", 0.855),
            ("second", "lora", 0.855)]
    assert "datasets.md" in done.output and "first: from bert" in done.output


def test_table__columns_of_one_study_leave_its_table_alone(studies, tmp_path):
    paths, uri = studies
    study = load_study(paths[0])
    report = table(study, uri, tmp_path)
    before = {path: path.read_bytes() for path in report.paths}
    assert report.paper is not None
    (line,) = csv.DictReader((tmp_path / "first" / "paper.csv").read_text().splitlines())
    assert (line["group"], line["verdict"]) == ("all", "inside the interval")
    made = chosen_table([study], "test/accuracy,cost/train_seconds", uri, tmp_path)
    assert {path.parent for path in made.paths} == {tmp_path / "first" / "tables"}
    assert "cost/train_seconds, min" in made.table.headings and "11.7" in str(made.table.groups)
    assert before == {path: path.read_bytes() for path in before}
    with pytest.raises(InputError, match="test/loss: no finished run has it"):
        chosen_table([study], "test/loss", uri, tmp_path)
