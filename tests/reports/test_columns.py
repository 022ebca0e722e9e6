import csv
import io
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from ftlab.errors import InputError
from ftlab.reports.columns import grid, parse
from ftlab.reports.csv_files import to_csv
from ftlab.reports.formats import markdown, page, terminal
from ftlab.reports.latex import latex
from ftlab.reports.study_results import StudyResults
from ftlab.reports.table import Line, Table
from ftlab.statistics.averages import over_groups, over_tasks
from ftlab.tasks.classification import Classification
from tests.reports.conftest import Store

SCORES = {
    ("full", "sst2"): [0.90, 0.92], ("full", "cola"): [0.60, 0.62], ("full", "rte"): [0.70, 0.72],
    ("lora", "sst2"): [0.91, 0.93], ("lora", "cola"): [0.64, 0.66], ("lora", "rte"): [0.60, 0.62],
}
GROUPS = {"single": ["sst2", "cola"], "pair": ["rte"]}


def source(store, keys, name="study", groups=None, report="test/accuracy"):
    records = {r.key: r for r in store.records if r.key in keys}
    tasks = {key.dataset: Classification() for key in keys}
    return StudyResults(name, report, keys, records, tasks, groups or {})


def fill(store, scores=SCORES):
    return [store.add(technique, values, dataset=dataset)
            for (technique, dataset), values in scores.items()]


def numbers(made):
    columns, lines = made.numbers()
    return list(csv.DictReader(io.StringIO(to_csv(columns, lines))))


def test_datasets__one_column_each_with_both_averages(store):
    made = grid([source(store, fill(store), groups=GROUPS)], parse("datasets"))
    assert list(made.columns) == [
        "sst2", "cola", "rte", "mean of single", "mean of pair", "mean over groups",
        "mean over tasks"]
    full, lora = numbers(made)
    assert float(full["mean over tasks.mean"]) == pytest.approx((0.91 + 0.61 + 0.71) / 3)
    assert float(full["mean over groups.mean"]) == pytest.approx(((0.91 + 0.61) / 2 + 0.71) / 2)
    assert float(full["mean over tasks.std"]) == pytest.approx(0.02 / math.sqrt(2))
    assert float(lora["mean of single.mean"]) == pytest.approx((0.92 + 0.65) / 2)
    about = dict(made.about)
    assert "counts each of the 3 data sets once" in about["Averages"]
    assert "single: sst2, cola; pair: rte" in about["Averages"]
    assert "Mean ranks over 3 data sets (1 the best): lora 1.33, full 1.67" in about["Over data sets"]
    assert "Nemenyi" in about["Over data sets"]


def test_datasets__says_where_the_averages_name_different_winners(store):
    scores = {("a", "x"): [0.9, 0.9], ("a", "y"): [0.9, 0.9], ("a", "z"): [0.5, 0.5],
              ("b", "x"): [0.85, 0.85], ("b", "y"): [0.85, 0.85], ("b", "z"): [0.58, 0.58]}
    made = grid([source(store, fill(store, scores), groups={"p": ["x", "y"], "q": ["z"]})],
                parse("datasets"))
    assert "they disagree: best over tasks a, over groups b" in dict(made.about)["Averages"]


def test_datasets__an_incomplete_cell_is_in_no_average(store):
    keys = fill(store)
    keys.append(store.add("probe", [0.99], ["oom"], dataset="sst2"))
    keys += [store.add("probe", [0.99, 0.98], dataset=name) for name in ("cola", "rte")]
    made = grid([source(store, keys)], parse("datasets"))
    probe = numbers(made)[2]
    assert probe["mean over tasks.mean"] == "" and float(probe["sst2.mean"]) == 0.99
    assert float(probe["cola.mean"]) == pytest.approx(0.985)
    assert "probe on sst2 from minilm: 1 of 2 seeds; 1 failed: oom" in probe["note"]
    assert "probe [1]" in markdown(made.table()).replace("\\", "")


def test_datasets__unequal_seeds_have_a_mean_and_no_spread():
    uneven = over_tasks([{0: 0.5, 1: 0.7}, {0: 0.9}])
    assert uneven.mean == pytest.approx((0.6 + 0.9) / 2)
    assert math.isnan(uneven.std) and math.isnan(uneven.ci_low) and uneven.n == 1
    assert over_tasks([{0: 0.5}, {}]).n == 0
    assert over_groups([[{0: 0.5, 1: 0.7}], [{0: 0.9}]]).mean == pytest.approx(0.75)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=5))
def test_averages__of_one_group_are_the_mean_over_tasks(values):
    tasks = [dict(enumerate(each)) for each in values]
    one, other = over_tasks(tasks), over_groups([tasks])
    assert other.mean == pytest.approx(one.mean)
    assert one.mean == pytest.approx(sum(map(sum, values)) / (3 * len(values)))
    assert over_groups([[task] for task in tasks]).mean == pytest.approx(one.mean)


def test_metrics__each_is_compared_in_its_own_direction(store):
    keys = [store.add("full", [0.90, 0.91, 0.90]), store.add("lora", [0.50, 0.51, 0.50])]
    losses = {"full": 2.0, "lora": 1.0}
    for record in store.records:
        for run in record.runs:
            run.metrics["test/loss"] = losses[record.key.technique] + run.seed / 100
            run.metrics["cost/latency_seconds"] = 0.012
    made = grid([source(store, keys)], parse("test/accuracy,test/loss,cost/latency_seconds"))
    stands = {line["technique"]: (line["test/accuracy.stands"], line["test/loss.stands"],
                                  line["cost/latency_seconds.stands"]) for line in numbers(made)}
    assert stands == {"full": ("1", "0", "0"), "lora": ("0", "1", "0")}
    terms = [term for term, _ in made.about]
    assert "Bold (test/accuracy)" in terms and "Bold (test/loss)" in terms
    text = markdown(made.table()).replace("\\", "")
    assert "cost/latency_seconds, ms" in text and "| 12.00 |" in text


def test_metrics__one_that_some_cells_lack(store):
    keys = [store.add("full", [0.9, 0.91]), store.add("lora", [0.8, 0.81])]
    for run in store.records[0].runs:
        run.metrics["test/f1_macro"] = 0.5
    made = grid([source(store, keys)], parse("test/accuracy,test/f1_macro"))
    full, lora = numbers(made)
    assert float(full["test/f1_macro.mean"]) == 0.5 and lora["test/f1_macro.mean"] == ""
    assert lora["note"] == "lora on bbc from minilm: test/f1_macro missing or not finite in seed 0, 1"
    keys.append(store.add("full", [0.7, 0.71], dataset="rte"))
    other = numbers(grid([source(store, keys)], parse("test/f1_macro")))[-1]
    assert (other["dataset"], other["test/f1_macro.mean"]) == ("rte", ""), "no run of it has any"
    with pytest.raises(InputError, match="test/f1_mcro: no finished run has it") as caught:
        grid([source(store, keys)], parse("test/f1_mcro"))
    assert "test/f1_macro" in caught.value.mend


def test_studies__share_a_table_and_keep_apart(store):
    keys = fill(store)
    other = Store()
    twins = [other.rename(other.add("full", [0.5, 0.6], dataset="sst2"), study="second")]
    made = grid([source(store, keys), source(other, twins, "second")], parse("datasets"))
    assert list(dict.fromkeys((row.study, row.backbone) for row in made.rows)) == [("study", "minilm"), ("second", "minilm")]
    assert [title for title, _ in made.table().groups] == [
        "study: from minilm", "second: from minilm"]
    last = numbers(made)[-1]
    assert (last["study"], last["sst2.mean"], last["cola.mean"]) == ("second", "0.55", "")
    with pytest.raises(InputError, match="report test/accuracy and test/loss"):
        grid([source(store, keys), source(other, twins, "second", report="test/loss")],
             parse("datasets"))


def test_studies__say_where_data_of_one_name_differ(store):
    keys = [store.add("full", [0.9, 0.8])]
    other = Store()
    twins = [other.rename(other.add("full", [0.5, 0.6]), study="second")]
    for kept, digest in ((store, "a"), (other, "b")):
        for record in kept.records:
            for run in record.runs:
                run.tags["ftlab.dataset_sha256"] = digest
    sources = [source(store, keys), source(other, twins, "second")]
    assert "bbc is not the same data" in dict(grid(sources, parse("datasets")).about)["Data"]
    store.records[0].runs[0].tags["ftlab.dataset_sha256"] = "c"
    assert "Data" not in dict(grid(sources[:1], parse("datasets")).about), "of studies, not of runs"


@pytest.mark.parametrize("text", ["", "accuracy", "datasets,test/loss", "test/loss,test/loss",
                                  "../x", "datasets:accuracy"])
def test_parse__refuses(text):
    with pytest.raises(InputError, match="--columns"):
        parse(text)


def test_grid__same_bytes_whatever_the_order_of_the_store(store):
    keys = fill(store)

    def every():
        store.records[:] = [replace(r, runs=tuple(random.sample(r.runs, len(r.runs))))
                            for r in random.sample(store.records, len(store.records))]
        made = grid([source(store, keys, groups=GROUPS)], parse("datasets"))
        sheet = made.table()
        return markdown(sheet), latex(sheet), page(sheet), to_csv(*made.numbers())

    random.seed(0)
    first = every()
    assert all(every() == first for _ in range(3))


def test_terminal__names_the_columns_that_do_not_fit(store):
    made = grid([source(store, fill(store), groups=GROUPS)], parse("datasets"))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal(made.table(), 80))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "but in the files" in text and "mean over tasks" in text.split("but in the files")[1]
    assert "91.00 ± 1.41 (2)" in text, "what is shown is whole"


def test_terminal__a_text_wraps_where_a_number_stays_whole(store):
    line = Line(("full", "[92.97, 97.03]", "outside interval and tolerance"))
    sheet = Table(("technique", "interval", "verdict"), (("", (line,)),), (), "Caption.")
    console = Console(width=38, record=True, file=io.StringIO())
    console.print(terminal(sheet, 38))
    text = console.export_text()
    assert "[92.97, 97.03]" in text and "Not shown" not in text
    assert "outside" in text and "tolerance" in text and "outside interval and" not in text


NASTY = st.text(st.sampled_from("ab=+-@|\\{}[]<>&$%#_^~\"'`*()\n\t/ é±"), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(NASTY, NASTY, st.lists(st.one_of(st.floats(-2, 2), st.just(math.nan)), min_size=1, max_size=4))
def test_sheets__any_name_and_number_keeps_the_table_whole(technique, dataset, values):
    store = Store()
    keys = [store.add(technique, values, ["<b>|&"], dataset=dataset),
            store.add(technique + "x", values, dataset=dataset)]
    sheet = grid([source(store, keys)], parse("test/accuracy,cost/train_seconds")).table()
    rows = [line for line in markdown(sheet).splitlines() if line.startswith("|")]
    assert {row.replace("\\\\", "").replace("\\|", "").count("|") for row in rows} == {4}
    tex = latex(sheet)
    body = tex.split("\\midrule")[1].split("\\bottomrule")[0]
    plain = body.replace("\\textbackslash{}", "").replace("\\{", "").replace("\\}", "")
    assert plain.count("{") == plain.count("}")
    for line in body.strip().splitlines():
        assert line.endswith("\\\\") and line.replace("\\&", "").count("&") in (2, 3)
    shown = page(sheet)
    assert shown.count("<td>") == 2 * 3 and "<b>" not in shown
