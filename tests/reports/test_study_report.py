"""The report's page from a real tracking store, without training, and in a browser."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from matplotlib.figure import Figure

from ftlab.errors import InputError
from ftlab.reports import study_report
from ftlab.reports.diagnoses import run_histories
from ftlab.reports.figures import all_figures
from ftlab.reports.figures.base import Drawing
from ftlab.reports.figures.matplotlib_axes import canvas
from ftlab.reports.page.diagnoses import UNREAD
from ftlab.reports.page.markup import tag
from ftlab.reports.study_report import report
from ftlab.reports.study_results import StudyResults
from ftlab.studies.study import Study, load_study
from ftlab.tracking.records import CellKey, CellRecord, RunRecord
from ftlab.tracking.tracker import Tracker

EVIL = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>"
SECRET = "hunter2"
PROVENANCE = {"versions": {"ftlab": "0.1.0", "torch": "2.14.1"}, "python": "3.11",
              "commit": "c0ffee+", "device": "CPU, 2 cores"}


class Small(Drawing):
    """Each technique's mean, with a text that somebody smuggled in."""

    name: ClassVar[str] = "small"
    title: ClassVar[str] = "Means"

    def data(self, results: StudyResults) -> pd.DataFrame | None:
        rows = [row for row in results.rows if row.summary.n]
        return pd.DataFrame({"technique": [row.key.technique for row in rows],
                             "mean": [row.summary.mean for row in rows]}) if rows else None

    def draw(self, data: pd.DataFrame, results: StudyResults) -> Figure:
        figure, (axes,) = canvas([1], 1, 4.0, 3.0)
        axes.bar(data["technique"], data["mean"])
        axes.set_title(f"a {EVIL}")
        return figure

    def caption(self, data: pd.DataFrame, results: StudyResults) -> str:
        return f"n = {len(data)} techniques {EVIL}"


@pytest.fixture(autouse=True)
def drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_figures, "drawings", lambda: [Small()])


def make_study(folder: Path, datasets: Sequence[str] = ("bbc",), techniques: Sequence[str] = (
        "probe", "lora"), **settings: Any) -> Study:
    classes = {"probe": "LinearProbe", "lora": "LoRA", "full": "FullFineTuning"}
    data = {name: {"class_path": "TextClassification", "init_args": {"train": f"{name}.csv"}}
            for name in datasets}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({
        "name": "small", "question": f"Which? {EVIL}",
        "backbones": {"bert": {"class_path": "HuggingFace", "init_args": {
            "source": f"https://user:{SECRET}@models.example.org/bert"}}},
        "datasets": data, "techniques": {name: classes[name] for name in techniques},
        "seeds": [0, 1, 2], "trainer": {"max_epochs": 2}, **settings}, sort_keys=False))
    return load_study(path)


def predictions(folder: Path, right: int, of: int = 40) -> None:
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    table = {"id": [str(i) for i in range(of)], "target": ["a", "b"] * (of // 2),
             "prediction": [("a", "b")[i % 2] if i < right else ("b", "a")[i % 2]
                            for i in range(of)]}
    pq.write_table(pa.table(table), folder / "predictions/test.parquet")


class Memory:
    """Stands in for a tracker where a store on disk would only take time."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[CellKey, tuple[int, ...]]] = {}
        self.runs_by_id: dict[str, dict[str, Any]] = {}
        self.points: dict[tuple[str, str], list[tuple[int, float]]] = {}

    def open_study(self, study: str, tags: Mapping[str, str]) -> None:
        pass

    def open_cell(self, key: CellKey, config: object, seeds: Sequence[int], order: int) -> str:
        self.keys[key.title] = key, tuple(seeds)
        return key.title

    def open_run(self, cell_id: str, seed: int, params: object) -> str:
        run_id = f"{cell_id} {seed}"
        self.runs_by_id[run_id] = {"cell_id": cell_id, "seed": seed, "tags": {}, "metrics": {}}
        return run_id

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        self.runs_by_id[run_id]["tags"] |= tags

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int, at: int) -> None:
        self.runs_by_id[run_id]["metrics"] |= metrics
        for name, value in metrics.items():
            self.points.setdefault((run_id, name), []).append((step, value))

    def end_run(self, run_id: str, status: str, reason: str = "") -> None:
        self.runs_by_id[run_id] |= {"status": status, "reason": reason}

    def end_cell(self, cell_id: str) -> None:
        pass

    def close(self) -> None:
        pass

    def cells(self, study: str) -> list[CellRecord]:
        return [CellRecord(cell_id, key, seeds, tuple(
            RunRecord(run_id, params={}, started=0, ended=1, **run)
            for run_id, run in self.runs_by_id.items() if run["cell_id"] == cell_id))
            for cell_id, (key, seeds) in self.keys.items()]

    def file(self, run: RunRecord, name: str) -> None:
        return None

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        return self.points.get((run_id, metric), [])


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    made = Memory()
    monkeypatch.setattr(study_report, "Tracker", lambda uri: made)
    return made


def fill(study: Study, tracker: Any, work: Path, right: Mapping[str, Sequence[int]],
         reason: str = "", stored: bool = True) -> None:
    """Runs with so many of 40 right, by technique a number a seed; the others failed or never ran.

    Args:
        study: whose cells.
        tracker: of the store.
        work: a folder for files.
        right: numbers.
        reason: why the remaining seeds failed; empty leaves them out.
        stored: whether predictions are.
    """
    tracker.open_study(study.name, {})
    for order, cell in enumerate(study.cells):
        hits = right.get(cell.key.technique, right.get(cell.key.dataset, ()))
        cell_id = tracker.open_cell(cell.key, cell.config, study.seeds, order)
        for seed in study.seeds if reason else study.seeds[:len(hits)]:
            run_id = tracker.open_run(cell_id, seed, {})
            tracker.set_tags(run_id, {"ftlab.provenance": json.dumps(PROVENANCE),
                                      "ftlab.note": f"a note {EVIL}",
                                      "ftlab.dataset_sha256": "d" * 64})
            if seed >= len(hits):
                tracker.end_run(run_id, "FAILED", reason)
                continue
            for step, loss in ((10, 0.9), (20, 0.5)):
                tracker.log_metrics(run_id, {"train/epoch_loss": loss, "val/loss": loss,
                                             "val/accuracy": 0.9}, step, step)
            tracker.log_metrics(run_id, {
                "test/accuracy": hits[seed] / 40, "val/accuracy": 0.9, "best_epoch": 1.0,
                "cost/trainable_parameters": 1e3, "cost/train_seconds": 75.0,
                "cost/peak_memory_bytes": 3 * 2.0**20}, 21, 21)
            if stored:
                predictions(work / run_id, hits[seed])
                tracker.log_artifacts(run_id, work / run_id)
            tracker.end_run(run_id, "FINISHED")
        tracker.end_cell(cell_id)
    tracker.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, str]:
    folder = tmp_path_factory.mktemp("made")
    study, uri = make_study(folder), f"sqlite:///{folder}/mlflow.db"
    fill(study, Tracker(uri), folder / "work", {"probe": [30, 29, 30], "lora": [38, 39, 38]})
    return study, uri


class Page(HTMLParser):
    """What a page holds: its elements, and their text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def all(self, *names: str) -> str:
        return " ".join(text for name, texts in self.texts.items() if name in names or not names
                        for text in texts if name not in ("script", "style") or name in names)


def read(path: Path) -> tuple[str, Page]:
    html = path.read_text(encoding="utf-8")
    return html, Page(html)


def test_report__answers_and_holds_every_part(made: tuple[Study, str], tmp_path: Path) -> None:
    study, uri = made
    path = report(study, uri, tmp_path, command=["ftlab", "run", "small.yaml", "--set",
                                                 f"a.api_key={SECRET}"])
    assert path == tmp_path / "small" / "report.html"
    html, page = read(path)
    said = page.all()
    assert f"Which? {EVIL}" in said
    assert "lora has the highest accuracy, 95.83%: significantly better than probe" in said
    for part in ("Table", "Figures", "Diagnoses", "Costs", "Provenance", "Reproduce"):
        assert part in page.texts["h2"]
    assert "1.25 min" in said
    assert "3 MiB" in said
    assert "CPU, 2 cores" in said
    assert "c0ffee, with changed files" in said
    assert "d" * 64 in said
    assert "techniques.lora.init_args.rank: 8" in said
    assert "--set 'a.api_key=[redacted]'" in said
    assert "best val/accuracy is restored" in said
    assert SECRET not in html
    assert "models.example.org" in said
    assert "a note" in said


def test_report__loads_nothing_and_runs_nothing(
    made: tuple[Study, str], tmp_path: Path
) -> None:
    html, page = read(report(*made, out=tmp_path / "page.html"))
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                assert value.startswith("#")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"][1:] for name, attributes in page.elements
            if name == "use"} <= set(ids)
    assert not {"script", "img", "iframe", "object", "link", "base", "form", "foreignobject"} & {
        n for n, _ in page.elements}
    assert [n for n, _ in page.elements].count("svg") == 2
    meta = next(a for n, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in meta["content"].split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'none'"
    assert html.index("Content-Security-Policy") < html.index("<style")


def test_report__of_the_same_store_is_the_same_bytes(
    made: tuple[Study, str], tmp_path: Path
) -> None:
    study, uri = made
    first = report(study, uri, out=tmp_path / "a.html").read_bytes()
    assert report(study, uri, out=tmp_path / "b.html").read_bytes() == first


def test_markup__escapes_texts_and_attributes() -> None:
    assert tag("p", "a<b", tag("b", "&"), title='"x"') == (
        '<p title="&quot;x&quot;">a&lt;b<b>&amp;</b></p>')
    assert tag("p", "http://me:pw@host/?api_key=1&b=2") == (
        "<p>http://host/?api_key=[redacted]&amp;b=2</p>")


def test_several_data_sets__are_answered_each_and_over_all(tmp_path: Path, memory: Memory) -> None:
    study = make_study(tmp_path, ("one", "two", "three", "four", "five"))
    fill(study, memory, tmp_path / "work", {"probe": [30, 29, 30], "lora": [38, 39, 38]}, stored=False)
    _, page = read(report(study, results=tmp_path))
    said = page.all("p")
    for name in ("one", "five"):
        assert f"lora has the highest accuracy on {name} from bert" in said
    assert ("Over 5 data sets lora has the best mean rank, 1.00: significantly better than probe "
            "(2.00) (Nemenyi's test).") in said


def test_no_finished_run__says_so_and_why(tmp_path: Path, memory: Memory) -> None:
    study = make_study(tmp_path)
    fill(study, memory, tmp_path / "work", {}, reason=f"out of memory {EVIL}")
    html, page = read(report(study, results=tmp_path))
    said = page.all()
    assert "nothing to compare yet" in said
    assert "0 of 2 cells complete" in said
    assert "failed: out of memory" in said
    assert "Runs that did not finish" in said
    assert "Figures" not in page.texts["h2"]
    assert len(html) < 100_000


def answer_of(html: str) -> str:
    found = re.search(r'<div class="answer">(.*?)</div>', html, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_answer__names_who_is_not_in_it_and_what_the_best_trains(
    tmp_path: Path, memory: Memory
) -> None:
    study = make_study(tmp_path, techniques=("probe", "lora", "full"))
    fill(study, memory, tmp_path / "work", {"probe": [30, 29, 30], "lora": [38, 39, 38],
                                            "full": [5]}, reason="out of memory", stored=False)
    html, _ = read(report(study, results=tmp_path))
    said = answer_of(html)
    assert "<p>It trains 1,000 parameters.</p>" in said
    assert "<p>Not compared, as not all of their seeds have finished: full.</p>" in said


def test_answer__names_the_cheapest_of_those_that_stand(tmp_path: Path, memory: Memory) -> None:
    study = make_study(tmp_path)
    fill(study, memory, tmp_path / "work", {"probe": [34, 36, 35], "lora": [36, 34, 38]},
         stored=False)
    for run in memory.runs_by_id.values():
        if run["cell_id"].startswith("probe"):
            run["metrics"] |= {"cost/trainable_parameters": 10.0, "cost/total_parameters": 1e4}
    html, _ = read(report(study, results=tmp_path))
    assert ("probe, not significantly worse, trains 10 parameters (0.1% of all) where lora trains "
            "1,000 parameters") in answer_of(html)


def test_answer__equal_means_are_said_and_no_choice_of_validation_is_invented(
    tmp_path: Path, memory: Memory
) -> None:
    study = make_study(tmp_path)
    fill(study, memory, tmp_path / "work", {"probe": [34, 36, 35], "lora": [34, 36, 35]},
         stored=False)
    html, _ = read(report(study, results=tmp_path))
    assert "not significantly better than lora (the same mean)" in answer_of(html)
    clear = make_study(tmp_path, name="clear")
    memory.keys.clear()
    memory.runs_by_id.clear()
    fill(clear, memory, tmp_path / "work", {"probe": [20, 19, 20], "lora": [38, 39, 38]},
         stored=False)  # all with the same score on validation
    assert "Selection unstable" not in read(report(clear, results=tmp_path))[1].texts["strong"]


def test_answer__of_many_data_sets_begins_with_all_of_them(tmp_path: Path, memory: Memory) -> None:
    study = make_study(tmp_path, [f"set{n}" for n in range(7)])
    fill(study, memory, tmp_path / "work", {"probe": [30, 29, 30], "lora": [38, 39, 38]},
         stored=False)
    html, _ = read(report(study, results=tmp_path))
    first, _, folded = answer_of(html).partition("<details>")
    assert first.startswith("<p>Over 7 data sets lora has the best mean rank")
    assert "on set0 from" not in first and folded.count("lora has the highest") == 7


def test_one_seed__invents_no_interval(tmp_path: Path, memory: Memory) -> None:
    study = make_study(tmp_path, seeds=[0])
    fill(study, memory, tmp_path / "work", {"probe": [30], "lora": [38]}, stored=False)
    _, page = read(report(study, results=tmp_path))
    said = page.all()
    assert "nothing is claimed of the techniques" in said
    assert "95.00 ± - (1)" in said
    assert "not tested" in said
    assert "a claim on techniques needs at least three" in said


def test_missing_predictions__leave_the_test_over_seeds(tmp_path: Path, memory: Memory) -> None:
    study = make_study(tmp_path)
    fill(study, memory, tmp_path / "work", {"probe": [30, 29, 30], "lora": [38, 39, 38]}, stored=False)
    _, page = read(report(study, results=tmp_path))
    assert "t test over seeds; 3 seeds, 0 examples" in page.all()


def test_many_runs__leave_their_curves_unread_and_say_so(
    tmp_path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path)
    fill(study, memory, tmp_path / "work", {"probe": [30, 29, 30], "lora": [38, 39, 38]}, stored=False)
    monkeypatch.setattr(run_histories, "MOST_RUNS", 5)
    monkeypatch.setattr(memory, "history", None)  # asking would fail
    assert UNREAD in read(report(study, results=tmp_path))[1].all()


def test_absent_metric__is_refused_with_those_that_there_are(
    made: tuple[Study, str], tmp_path: Path
) -> None:
    study, uri = made
    other = replace(study, report="test/f1_macro")
    with pytest.raises(InputError, match="test/f1_macro: no finished run has it") as caught:
        report(other, uri, tmp_path)
    assert "test/accuracy" in caught.value.mend
    assert not list(tmp_path.iterdir())


def test_other_settings_tracked__is_refused_and_not_shown_as_never_run(
    made: tuple[Study, str], tmp_path: Path
) -> None:
    other = make_study(tmp_path, trainer={"max_epochs": 9})
    with pytest.raises(InputError, match="has 2 cells of it, none with these settings") as caught:
        report(other, made[1], tmp_path)
    assert "--set" in caught.value.mend
    assert not (tmp_path / "small").exists()


def test_nothing_tracked__is_refused(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    with pytest.raises(InputError, match="no tracking store"):
        report(study, f"sqlite:///{tmp_path}/mlflow.db", tmp_path)


def test_command__writes_the_page_and_says_its_size(
    made: tuple[Study, str], here: Any, tmp_path: Path
) -> None:
    _, uri = made
    make_study(tmp_path)
    code, output, errors = here("report", "small.yaml", "--tracking-uri", uri, "--out", "r.html")
    assert (code, errors) == (0, "")
    assert re.fullmatch(r"Open in a browser: r.html \(\d\.\d MB\)\n", output)
    assert "ftlab run small.yaml --seeds 0,1,2" in (tmp_path / "r.html").read_text()


def test_browser__draws_it_from_a_file_on_a_phone_and_in_the_dark(
    made: tuple[Study, str], tmp_path: Path, chromium: Any
) -> None:
    path = report(*made, out=tmp_path / "page.html")
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True})
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    chromium.get(path.as_uri())
    assert chromium.get_log("browser") == []
    run = chromium.execute_script
    assert run("return document.documentElement.scrollWidth") == 390
    shown = "[...document.querySelectorAll('.plot svg')].filter(svg => svg.clientWidth)"
    assert run(f"return {shown}.length") == 1
    assert run(f"return {shown}[0].clientWidth") < 390
    assert chromium.title == "small: ftlab report"
    dark = run("return getComputedStyle(document.body).backgroundColor")
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "features": [{"name": "prefers-color-scheme", "value": "light"}]})
    assert run("return getComputedStyle(document.body).backgroundColor") != dark
    assert run("return performance.getEntriesByType('resource').length") == 0
    # what a text could smuggle in does not run, even where it were not escaped
    run("const s = document.createElement('script'); s.textContent = \"document.title = 'taken'\";"
        "document.body.append(s)")
    assert chromium.title == "small: ftlab report"
    assert "Content Security Policy" in chromium.get_log("browser")[0]["message"]
