import csv
import html.parser
import io
import json
import math
import random
import re

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from scipy.special import expit, logit
from tracked_study import write

from ftlab.errors import InputError
from ftlab.reports.csv_files import write_file
from ftlab.reports.metric_text import cost
from ftlab.tracking.metric_range import is_percent

UNRENDERED = True
FILES = {
    "runs.csv",
    "table.md",
    "table.tex",
    "table.csv",
    "table.html",
    "tests.csv",
    "provenance.json",
    "figures/captions.md",
    *(f"figures/{name}.{kind}" for name in ("scores", "trade_off", "costs")
      for kind in ("png", "pdf")),
}
NASTY = r"""=cmd|' /C calc'!A0 <script>alert("x")</script> & 50% $x_1^2$ \input{/etc/passwd} `a` [b] *c* ~#"""


def read(folder):
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def lines(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def plain_study(store):
    return [
        store.add("full", [0.95, 0.96, 0.97], trainable=1e6),
        store.add("lora", [0.93, 0.95, 0.94], trainable=5000),
        store.add("probe", [0.90, 0.91], ["non-finite loss"]),
    ]


def test_write__same_store_same_bytes_whatever_the_order(store, tmp_path, rendered):
    cells = plain_study(store)
    report = write("study", cells, store, tmp_path / "a", {"b": 1, "a": 2})
    random.Random(0).shuffle(store.records)
    write("study", cells, store, tmp_path / "b", {"a": 2, "b": 1})
    assert read(tmp_path / "a") == read(tmp_path / "b")
    assert set(read(tmp_path / "a" / "study")) == FILES
    assert {str(p.relative_to(tmp_path / "a" / "study")) for p in report.paths} == FILES
    before = read(tmp_path / "a")
    write("study", cells, store, tmp_path / "a", {"b": 1, "a": 2})
    assert read(tmp_path / "a") == before


def test_write__numbers_are_those_of_scipy(store, tmp_path):
    values = [0.95, 0.96, 0.972]
    report = write("study", [store.add("full", values)], store, tmp_path, {})
    (line,) = lines(tmp_path / "study" / "table.csv")
    mean = sum(values) / 3  # the interval of Student's t, on the logit scale at the mean
    low, high = expit(stats.t.interval(0.95, 2, logit(mean), stats.sem(values) / mean / (1 - mean)))
    assert float(line["mean"]) == pytest.approx(sum(values) / 3)
    assert float(line["std"]) == pytest.approx(stats.tstd(values))
    assert (float(line["ci_low"]), float(line["ci_high"])) == pytest.approx((low, high))
    known = stats.bootstrap((values,), np.mean, method="BCa", rng=1).confidence_interval
    assert (float(line["bootstrap_low"]), float(line["bootstrap_high"])) == pytest.approx(known, rel=1e-3)
    write("one", [store.add("probe", [0.9])], store, tmp_path, {})
    (alone,) = lines(tmp_path / "one" / "table.csv")
    assert alone["bootstrap_low"] == alone["bootstrap_high"] == alone["ci_low"] == "nan"
    text = (tmp_path / "study" / "table.md").read_text()
    assert f"{100 * sum(values) / 3:.2f} ± {100 * stats.tstd(values):.2f} (3)" in text
    assert f"{100 * low:.2f}, {100 * high:.2f}" in text
    assert "1,000 (0.1%)" in text
    assert report.frame.loc[0, "mean"] == pytest.approx(sum(values) / 3)


def test_write__gaps_are_shown_and_never_ranked(store, tmp_path):
    cells = [
        store.add("full", [0.8, 0.8, 0.8]),
        store.add("lora", [0.99, 0.99], ["non-finite loss"]),
        store.add("bitfit", [], ["oom", "oom"], seeds=3),
        store.rename(store.add("x", [0.9]), study="other"),
    ]
    cells[3] = store.records[0].key.__class__("study", "minilm", "bbc", "never", "0")
    report = write("study", cells, store, tmp_path, {})
    notes = {row.key.technique: row.note for row in report.rows}
    assert notes == {
        "full": "",
        "lora": "2 of 3 seeds; 1 failed: non-finite loss",
        "bitfit": "0 of 3 seeds; 2 failed: oom; 1 not run",
        "never": "not run",
    }
    assert {row.key.technique: row.rank for row in report.rows} == {
        "full": 1,
        "lora": None,
        "bitfit": None,
        "never": None,
    }
    text = (tmp_path / "study" / "table.md").read_text()
    for note in filter(None, notes.values()):
        assert note in text
    assert re.search(r"^\| bitfit \S+ \| - \| - \| - ", text, re.MULTILINE)
    statuses = [(r["technique"], r["status"]) for r in lines(tmp_path / "study" / "runs.csv")]
    assert statuses.count(("bitfit", "MISSING")) == 1
    assert statuses.count(("bitfit", "FAILED")) == 2


def test_write__a_nan_seed_is_not_averaged_away(store, tmp_path):
    report = write("study", [store.add("full", [0.9, math.nan, 0.8])], store, tmp_path, {})
    assert math.isnan(report.rows[0].summary.mean)
    assert "seed 1" in report.rows[0].note
    assert lines(tmp_path / "study" / "runs.csv")[1]["test/accuracy"] == "nan"


def test_write__one_seed_has_no_spread(store, tmp_path):
    write("study", [store.add("full", [0.9])], store, tmp_path, {})
    assert "90.00 ± - (1)** | - |" in (tmp_path / "study" / "table.md").read_text()


@pytest.mark.parametrize("higher", [True, False])
def test_write__best_of_each_group_in_the_given_order(store, tmp_path, higher):
    cells = [
        store.add("full", [0.9, 0.901, 0.902], dataset="sst2"),
        store.add("full", [0.7, 0.701, 0.702]),
        store.add("lora", [0.8, 0.801, 0.802], dataset="sst2"),
        store.add("lora", [0.75, 0.751, 0.752]),
    ]
    report = write("study", cells, store, tmp_path, {}, higher_is_better=higher)
    names = [(row.key.dataset, row.key.technique) for row in report.rows]
    assert names == [("sst2", "full"), ("sst2", "lora"), ("bbc", "full"), ("bbc", "lora")]
    assert [row.rank for row in report.rows] == ([1, 2, 2, 1] if higher else [2, 1, 1, 2])
    text = (tmp_path / "study" / "table.md").read_text()
    bold = ["90.10", "75.10"] if higher else ["80.10", "70.10"]
    assert re.findall(r"\*\*([\d.]+)", text) == bold
    assert text.index("sst2 from minilm") < text.index("bbc from minilm")


@pytest.mark.parametrize(
    ("metric", "percent"),
    [
        *((name, True) for name in (
            "test/accuracy", "balanced_accuracy", "test/f1/sport", "val/f1_macro", "test/map_50",
            "test/map/cat", "test/mar_100", "test/mean_average_precision", "test/wer", "test/cer",
            "test/exact_match", "test/rouge1", "test/rougeL", "test/bleu", "test/recall",
            "test/calibration_error", "my_top5_accuracy",
        )),
        *((name, False) for name in (
            "test/loss", "test/perplexity", "test/mse", "test/rmse", "test/mae", "test/pearson",
            "test/spearman", "test/r2", "test/loss/accuracy", "test/mape", "test/cereal",
            "lr", "cost/train_seconds", "best_epoch",
        )),
    ],
)  # fmt: skip
def test_percent__is_for_shares_whatever_a_class_is_called(metric, percent):
    assert is_percent(metric) == percent


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.5, 0.7], "0.6000 ± 0.1414 (2)"),
        ([23.25, 24.25], "23.75 ± 0.71 (2)"),
        ([2345.0, 2347.0], "2,346.0 ± 1.4 (2)"),
        ([1e-5, 3e-5], "2.000e-05 ± 1.414e-05 (2)"),
    ],
)
def test_write__plain_metrics_keep_their_digits(store, tmp_path, values, shown):
    cells = [store.add("full", values, metric="test/mse")]
    write("study", cells, store, tmp_path, {}, metric="test/mse", higher_is_better=False)
    assert shown in (tmp_path / "study" / "table.md").read_text()


def test_write__less_is_better_where_the_metric_says_so(store, tmp_path, rendered):
    cells = [store.add(t, v, metric="test/wer") for t, v in
             (("full", [0.3, 0.301, 0.302]), ("lora", [0.2, 0.201, 0.202]),
              ("untuned", [0.6, 0.601, 0.602]))]
    for higher in (True, False):
        report = write("study", cells, store, tmp_path / str(higher), {}, metric="test/wer",
                       higher_is_better=higher)
        assert [row.rank for row in report.rows] == ([2, 3, 1] if higher else [2, 1, 3])
        folder = tmp_path / str(higher) / "study"
        bold = "60.10" if higher else "20.10"
        assert f"**{bold} ± 0.10 (3)**" in (folder / "table.md").read_text()
        assert rf"\bfseries {bold} +- 0.10" in (folder / "table.tex").read_text()
        assert f"<strong>{bold}" in (folder / "table.html").read_text()
        assert ("(lowest)" in dict(report.table.about)["Bold"]) != higher
    pictures = [(tmp_path / name / "study/figures/scores.png").read_bytes()
                for name in ("True", "False")]
    assert pictures[0] != pictures[1], "the figure says which way is better"


def test_write__what_trains_nothing_has_no_peak_of_training(store, tmp_path):
    cells = [store.add("untuned", [0.5, 0.5], trainable=0), store.add("lora", [0.6, 0.6])]
    write("study", cells, store, tmp_path, {})
    text = (tmp_path / "study" / "table.md").read_text().splitlines()
    untuned, lora = (next(t for t in text if t.startswith(f"| {n} ")) for n in ("untuned", "lora"))
    assert "| 0 (0%) |" in untuned.replace("\\", "") and untuned.endswith("| - |")
    assert lora.endswith("| 3 |")


def test_write__percent_by_name_not_by_value(store, tmp_path):
    cells = [store.add("full", [0.5, 0.7], metric="test/loss")]
    write("study", cells, store, tmp_path, {}, metric="test/loss", higher_is_better=False)
    assert "0.6000 ± 0.1414 (2)" in (tmp_path / "study" / "table.md").read_text()


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)


def test_write__text_is_escaped_everywhere(store, tmp_path, rendered):
    cells = [store.add(NASTY, [0.9, 0.8], ["@reason <b> | \\x\nnext"], dataset="=1+1")]
    report = write("study", cells, store, tmp_path, {})
    folder = tmp_path / "study"
    tags = Tags()
    tags.feed((folder / "table.html").read_text())
    assert tags.seen.isdisjoint({"script", "b", "img", "a", "link"})
    tex = (folder / "table.tex").read_text()
    body = tex.split(r"\midrule")[1]
    assert r"\input" not in tex
    assert not re.search(r"(?<!\\)[%#_]", body)
    assert not re.findall(r"(?<!\\)\$([^$]*)(?<!\\)\$", body.split(r"\bottomrule")[0])
    assert tex.count("{") - tex.count(r"\{") == tex.count("}") - tex.count(r"\}")
    table = [r for r in (folder / "table.md").read_text().splitlines() if r.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in table} == {7}
    assert "<script" not in "".join(re.sub(r"\\.", "", row) for row in table)
    for name in ("runs.csv", "table.csv"):
        for line in lines(folder / name):
            assert line["dataset"] == "'=1+1"
            assert not any(str(v).startswith(("=", "+", "@")) for v in line.values())
            assert line["technique"] == "'" + NASTY
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.rich())
    assert "[b] *c*" in console.export_text().replace("\n", " ")


def test_write__negative_numbers_stay_numbers(store, tmp_path):
    write("study", [store.add("full", [-0.5, -0.25])], store, tmp_path, {})
    values = [line["test/accuracy"] for line in lines(tmp_path / "study" / "runs.csv")]
    assert values == ["-0.5", "-0.25"]


def test_write__columns_of_runs(store, tmp_path):
    cells = plain_study(store)
    for record in store.records:
        for run in record.runs:
            run.metrics.update({"val/loss": 1.0, "lr": 0.1, "test/zero": 0.0})
    write("study", cells, store, tmp_path, {})
    header = (tmp_path / "study" / "runs.csv").read_text().splitlines()[0]
    assert header == (
        "study,backbone,dataset,technique,seed,status,run_id,test/accuracy,test/zero,val/loss,lr,"
        "train/loss,cost/peak_memory_bytes,cost/total_parameters,cost/train_seconds,"
        "cost/trainable_parameters"
    )
    (first, *_) = lines(tmp_path / "study" / "runs.csv")
    assert first["cost/trainable_parameters"] == "1000000"


def test_write__provenance_without_secrets(store, tmp_path):
    write("study", plain_study(store), store, tmp_path, {"uri": "http://u:p@h/x", "é": 1})
    text = (tmp_path / "study" / "provenance.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"uri": "http://h/x", "é": 1}


def test_write__latex_rows_have_all_columns(store, tmp_path):
    write("study", plain_study(store), store, tmp_path, {})
    tex = (tmp_path / "study" / "table.tex").read_text()
    rows = [row for row in tex.splitlines() if row.endswith(r"\\")]
    assert len(rows) == 4
    assert {row.count(" & ") for row in rows[1:]} == {7}, "two have brackets beside their number"
    assert rows[0].count(r"\multicolumn{2}{c}") == 2 and rows[0].count(" & ") == 5
    for name in ("toprule", "midrule", "bottomrule", "begin{table}", "end{table}"):
        assert f"\\{name}" in tex


def test_write__wrong_metric_names_the_right_ones(store, tmp_path):
    with pytest.raises(InputError) as caught:
        write("study", plain_study(store), store, tmp_path, {}, metric="test/acuracy")
    assert "test/accuracy" in caught.value.mend
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc"])
def test_write__stays_in_its_folder(store, tmp_path, name):
    with pytest.raises(InputError, match="name of a folder"):
        write(name, [], store, tmp_path, {})


def test_write__no_finished_run_leaves_no_old_figure(store, tmp_path, rendered):
    cells = plain_study(store)
    write("study", cells, store, tmp_path, {})
    store.records = []
    bad = store.add("full", [], ["oom"])
    write("study", [bad], store, tmp_path, {})
    assert not (tmp_path / "study" / "figures" / "scores.png").exists()


def test_write__figure_takes_any_name_and_holds_no_date(store, tmp_path, rendered):
    cells = [store.add("$\\frac{$ 中文", [0.9, 0.8]), store.add("b", [0.7], dataset="$")]
    write("study", cells, store, tmp_path, {})
    png = (tmp_path / "study" / "figures" / "scores.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert b"Software" not in png
    assert b"tIME" not in png


def test_write_file__a_failure_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = write_file(tmp_path / "a.txt", "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ftlab.files.os.replace", full)
    with pytest.raises(InputError, match="No space left"):
        write_file(path, "new")
    assert read(tmp_path) == {"a.txt": b"old"}


def test_write__results_folder_is_a_file(store, tmp_path):
    (tmp_path / "results").touch()
    with pytest.raises(InputError, match="results"):
        write("study", plain_study(store), store, tmp_path / "results", {})


@pytest.mark.parametrize(("value", "text"), [
    (16.3, "16.3"), (0.0149, "0.015"), (0.05, "0.1"), (0.0, "0.0"), (2e-9, "0.000000")])
def test_cost__something_is_not_written_as_nothing(value: float, text: str) -> None:
    number, unit = cost("cost/train_seconds", [16.3, value])
    assert (number(value), unit) == (text, "s")
