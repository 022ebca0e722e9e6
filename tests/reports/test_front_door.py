"""What a store may hold, through the front door: a study file, logged runs, the commands."""

import csv
import html
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow import MlflowClient

from ftlab.errors import InputError
from ftlab.studies.study import load_study
from ftlab.tracking.tracker import Tracker

UNRENDERED = True
NASTY = r"""=1+1|<b>x</b>&50%$x_1^2$\input{a}[b]*c*~#"é±/../"""
Here = Callable[..., tuple[int, str, str]]


class Front:
    """One study with two techniques, whose runs are logged and not trained.

    Args:
        folder: of the study file.
        empty: a store with MLflow's tables.
        here: calls the command line in that folder.
    """

    def __init__(self, folder: Path, empty: Path, here: Here) -> None:
        self.folder, self.here = folder, here
        (folder / "mlflow.db").write_bytes(empty.read_bytes())
        self.uri = f"sqlite:///{folder}/mlflow.db"

    def runs(self, hits: dict[str, list[int]], stored: bool = True,
             metrics: dict[str, str] | None = None, question: str = "Which?",
             reason: str = "out of memory") -> None:
        """Log runs with so many of 40 examples right, by technique a number a seed; the rest failed.

        Args:
            hits: numbers.
            stored: whether predictions are.
            metrics: by technique, what is logged instead of test/accuracy.
            question: the study's.
            reason: of failed runs.
        """
        (self.folder / "s.yaml").write_text(yaml.safe_dump({
            "name": "small", "question": question, "seeds": [0, 1, 2][:max(map(len, hits.values())) or 3],
            "backbones": {"bert": {"class_path": "HuggingFace", "init_args": {"source": "x"}}},
            "datasets": {"sst2": {"class_path": "TextClassification", "init_args": {"train": "x.csv"}}},
            "techniques": {name: {"class_path": "LoRA", "init_args": {"rank": rank + 1}}
                           for rank, name in enumerate(hits)}}, sort_keys=False))
        study, tracker = load_study(self.folder / "s.yaml"), Tracker(self.uri)
        tracker.open_study(study.name, {})
        for order, cell in enumerate(study.cells):
            name = cell.key.technique
            cell_id = tracker.open_cell(cell.key, cell.config, study.seeds, order)
            for seed in study.seeds:
                run = tracker.open_run(cell_id, seed, {})
                if seed >= len(hits[name]):
                    tracker.end_run(run, "FAILED", reason)
                    continue
                self.log(tracker, run, hits[name][seed],
                         (metrics or {}).get(name, "test/accuracy"), stored)
            tracker.end_cell(cell_id)
        tracker.close()

    def log(self, tracker: Tracker, run: str, right: int, metric: str, stored: bool) -> None:
        tracker.log_metrics(run, {metric: right / 40, "cost/trainable_parameters": 1e3,
                                  "cost/total_parameters": 1e6}, 1, 1)
        if stored:
            folder = self.folder / "work" / run / "predictions"
            folder.mkdir(parents=True)
            pq.write_table(pa.table({
                "id": [str(n) for n in range(40)], "target": ["a", "b"] * 20,
                "prediction": [("a", "b")[n % 2] if n < right else ("b", "a")[n % 2]
                               for n in range(40)]}), folder / "test.parquet")
            tracker.log_artifacts(run, folder.parent)
        tracker.end_run(run, "FINISHED")

    def call(self, *words: str) -> str:
        """What a command says in a wide terminal; it has to succeed."""
        code, output, errors = self.here(words[0], "s.yaml", *words[1:], "--tracking-uri", self.uri)
        assert (code, errors) == (0, ""), errors
        return " ".join(output.split())

    def page(self) -> str:
        """The report's words, without marks."""
        self.call("report")
        text = (self.folder / "results/small/report.html").read_text()
        text = re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)
        return " ".join(re.sub(r"<[^>]*>", " ", text).split())

    def lines(self, name: str) -> list[dict[str, str]]:
        """A CSV of the results."""
        text = (self.folder / f"results/small/{name}.csv").read_text()
        return list(csv.DictReader(text.splitlines()))

    def descriptions(self) -> dict[str, str]:
        """What MLflow's UI says of each cell."""
        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name("small")
        runs = client.search_runs([experiment.experiment_id], "tags.`ftlab.kind` = 'cell'")
        return {run.data.tags["ftlab.technique"]: run.data.tags["mlflow.note.content"] for run in runs}


@pytest.fixture
def front(tmp_path: Path, empty_store: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> Front:
    monkeypatch.setenv("COLUMNS", "200")
    return Front(tmp_path, empty_store, here)


def test_no_finished_run(front: Front) -> None:
    front.runs({"probe": [], "lora": []})
    said = front.call("table")
    assert "probe [1]" in said and "over 0 seeds" in said and "nothing was tested" in said
    assert "3 failed: out of memory" in said and "highest" not in said
    assert "3 failed: out of memory" in front.call("table", "--columns", "datasets")
    assert "Nothing to draw" in front.call("plot")
    assert "nothing to compare yet" in front.page()
    assert "**Incomplete**" in front.descriptions()["lora"]
    side = f"{front.uri}#small"
    code, _, errors = front.here("compare", side, side)
    assert code == 2 and "no test metric in common" in errors


def test_one_seed(front: Front) -> None:
    front.runs({"probe": [30], "lora": [36]})
    said = front.call("table")
    assert "75.00 ± - (1)" in said
    assert "nan" not in said.replace("provenance", "")
    alone = "with fewer than three seeds in common it is these trained models that are compared"
    assert f"lora has the highest accuracy, 90.00%; {alone}" in said
    assert f"Bold: Nothing: {alone}" in said and "significantly" not in said
    page = front.page()
    assert alone in page and "these trained models alone: McNemar" in page and "p = 0.0312" in page
    (line,) = front.lines("tests")
    assert (line["p_examples"], line["p"]) == ("0.03125", "")
    assert line["test"] == "none: fewer than 3 seeds in common"
    assert "75.00 ± - (1)" in front.call("table", "--columns", "datasets")
    assert "(n = 1)" in front.call("plot", "--only", "scores")
    assert "± - (1)" in front.descriptions()["probe"]


def test_unequal_seeds(front: Front) -> None:
    front.runs({"probe": [30, 31, 32], "lora": [38, 39]})
    said = front.call("table")
    assert "lora [1]" in said and "2 of 3 seeds; 1 failed: out of memory" in said
    assert "probe reaches 77.50% in accuracy; no other technique is complete." in said
    lines = front.lines("table")
    assert [(line["technique"], line["n"], line["rank"]) for line in lines] == [
        ("probe", "3", "1"), ("lora", "2", "nan")]
    assert "no other technique is complete" in front.page()
    assert "**Incomplete**" in front.descriptions()["lora"]


def test_missing_predictions(front: Front) -> None:
    front.runs({"probe": [30, 29, 30], "lora": [38, 39, 38]}, stored=False)
    assert "t test over seeds, n = 3 seeds, Holm" in front.call("table")
    assert "error_overlap" not in front.call("plot")
    assert "t test over seeds; 3 seeds, 0 examples" in front.page()


def test_two_runs_of_one_seed(front: Front) -> None:
    front.runs({"probe": [30, 31, 32], "lora": [38, 39, 39]})
    study, tracker = load_study(front.folder / "s.yaml"), Tracker(front.uri)
    cell = tracker.open_cell(study.cells[0].key, {}, study.seeds, 0)
    front.log(tracker, tracker.open_run(cell, 0, {}), 10, "test/accuracy", True)
    tracker.end_cell(cell)
    tracker.close()
    said = front.call("table")
    assert "60.83" in said and "(3)" in said and "(4)" not in said, "(10 + 31 + 32) / 3 of 40"
    seeds = [(line["technique"], line["seed"]) for line in front.lines("runs")]
    assert len(seeds) == len(set(seeds)) == 6


def test_a_metric_that_a_cell_lacks(front: Front) -> None:
    front.runs({"probe": [30, 31], "lora": [38, 39]}, metrics={"lora": "test/f1_macro"})
    assert "test/accuracy missing or not finite in seed 0, 1" in front.call("table")
    said = front.call("table", "--columns", "test/accuracy,test/f1_macro")
    assert re.search(r"probe \[1\] 76.25 ± 1.77 \(2\) - lora \[2\] - 96.25 ± 1.77 \(2\)", said)
    code, _, errors = front.here("table", "s.yaml", "--columns", "test/recall_macro",
                                 "--tracking-uri", front.uri)
    assert code == 2 and "there are: test/accuracy, test/f1_macro" in errors


@pytest.mark.parametrize("name", ["$x_1^2$", r"\input{a}", "<b>x</b>", "=1+1", "-1", "../x", "a/b"])
def test_names_that_a_format_could_take_for_more_are_refused(front: Front, name: str) -> None:
    with pytest.raises(InputError, match="is not a name") as caught:
        front.runs({name: [30], "lora": [38]})
    assert "digits, '.', '_' and '-'" in caught.value.mend
    code, _, errors = front.here("table", "s.yaml", "--tracking-uri", front.uri)
    assert code == 2 and "is not a name" in errors and not (front.folder / "results").exists()


def test_texts_of_any_characters(front: Front, rendered: None) -> None:
    front.runs({"probe": [30, 31, 30], "lora_1.x": [38, 39]}, question=NASTY, reason=NASTY)
    assert NASTY in front.call("table")
    front.call("table", "--columns", "datasets")
    for path in [front.folder / "results/small/table.tex",
                 *front.folder.glob("results/small/tables/*.tex")]:
        tex = path.read_text()
        assert r"\input" not in tex and r"\textbackslash{}input\{a\}" in tex.replace(
            r"\allowbreak{}", "")
    assert "<b>x</b>" not in (front.folder / "results/small/table.html").read_text()
    assert NASTY in html.unescape(front.page())
    assert "<b>x</b>" not in (front.folder / "results/small/report.html").read_text()
    (note,) = {line["note"] for line in front.lines("table") if line["note"]}
    assert note.endswith(NASTY) and note.startswith("2 of 3 seeds")
    said = front.descriptions()["lora_1.x"]
    assert r"\<b\>x\</b\>" in said and "<b>" not in said


def test_a_password_in_a_stores_address_is_not_said(front: Front) -> None:
    secret = "postgresql://ftlab:hunter2@127.0.0.1:1/x"
    code, output, errors = front.here("compare", secret, f"{front.uri}#small")
    assert code == 2 and "hunter2" not in output + errors and "#STUDY" in errors
