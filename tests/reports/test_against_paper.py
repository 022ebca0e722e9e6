import math

import pytest
from scipy import stats
from tracked_study import write

from ftlab.reports.against_paper import beside, layout, lines, verdict
from ftlab.reports.formats import markdown
from ftlab.statistics.seed_summary import summarise
from ftlab.studies.paper_numbers import PROTOCOL, Paper, PaperNumber
from ftlab.tracking.metric_range import limits


def paper(*numbers, tolerance=None, metric="test/accuracy"):
    return Paper("Hu et al. (2021)", "https://arxiv.org/abs/2106.09685", "Table 2", metric,
                 "percent", tolerance, dict.fromkeys(PROTOCOL, "as said"), numbers)


def number(technique, value, dataset="bbc", group=""):
    return PaperNumber(technique, "minilm", dataset, group, value)


VALUES = [0.90, 0.91, 0.92]
LOW, HIGH = stats.t.interval(0.95, 2, 0.91, stats.sem(VALUES))


@pytest.mark.parametrize(("published", "values", "tolerance", "said"), [
    (LOW + 1e-6, VALUES, None, "inside the interval"),
    (LOW - 1e-6, VALUES, None, "outside the interval"),
    (HIGH + 1e-6, VALUES, 0.03, "inside the tolerance"),
    (0.95, VALUES, 0.03, "outside interval and tolerance"),
    (0.86, VALUES, 0.05, "inside the tolerance"),  # 0.91 - 0.86 is a little more than 0.05
    (0.9, [0.9], None, "one seed: no interval"),
    (0.9, [0.91], 0.02, "one seed: inside the tolerance"),
    (0.9, [0.93], 0.02, "one seed: outside the tolerance"),
    (0.9, [0.9, 0.9], None, "equal seeds: no interval"),
    (0.9001, [0.9, 0.9], 0.02, "equal seeds: inside the tolerance"),
])
def test_verdict__is_of_the_interval_or_the_tolerance(published, values, tolerance, said):
    assert verdict(published, summarise(values), tolerance) == said


def test_beside__says_what_was_not_run_or_is_incomplete(store):
    keys = [store.add("full", VALUES), store.add("lora", [0.9, 0.9], ["oom"]),
            store.add("probe", [], ["oom"]), store.add("other", [0.5, 0.6], metric="test/loss")]
    never = keys[0].__class__("study", "minilm", "bbc", "never", "0")
    names = ("never", "other", "probe", "lora", "full", "gone")
    found = beside(paper(*(number(name, 0.91) for name in names)), [*keys, never],
                   {r.key: r for r in store.records}, {})
    said = {each.published.technique: (each.verdict, each.why) for each in found}
    assert said == {
        "full": ("inside the interval", ""),
        "lora": ("incomplete", "2 of 3 seeds; 1 failed: oom"),
        "probe": ("not run", "0 of 1 seeds; 1 failed: oom"),
        "other": ("not run", "no finished run has test/accuracy"),
        "never": ("not run", "not run"),
    }, "a technique that --only leaves out is not shown"


def test_beside__a_seed_without_the_metric_is_no_smaller_study(store):
    keys = [store.add("full", [0.9, math.nan, 0.92])]
    (found,) = beside(paper(number("full", 0.91)), keys, {r.key: r for r in store.records}, {})
    assert found.verdict == "not run" and found.ours.n == 0


def test_beside__a_group_is_its_mean_over_tasks(store):
    keys = [store.add("full", [0.8, 0.9], dataset="a"), store.add("full", [0.6, 0.7], dataset="b")]
    records = {r.key: r for r in store.records}
    one = paper(number("full", 0.75, "", "both"))
    (found,) = beside(one, keys, records, {"both": ["a", "b"]})
    assert found.ours == summarise([0.7, 0.8], limits("test/accuracy")) and found.verdict == "inside the interval"
    assert found.what == "mean of both from minilm"
    del records[keys[1]]
    (found,) = beside(one, keys, records, {"both": ["a", "b"]})
    assert (found.verdict, found.why) == ("incomplete", "not run")


def test_write__has_paper_ours_difference_and_verdict(store, tmp_path):
    keys = [store.add("full", VALUES), store.add("lora", [0.8])]
    said = paper(number("full", 0.902), number("lora", 0.85), tolerance=0.01)
    report = write("study", keys, store, tmp_path, {}, paper=said)
    text = (tmp_path / "study" / "paper.md").read_text().replace("\\", "")
    assert "| full | 90.20 | 91.00 ± 1.00 (3) | [88.19, 93.19] | +0.80 | inside the interval |" in text
    assert "| lora | 85.00 | 80.00 ± - (1) | - | -5.00 | one seed: outside the tolerance |" in text
    for part in ("Hu et al. (2021), Table 2, https://arxiv.org", "Protocol, averaging", "1.00 points"):
        assert part in text
    assert {"paper.md", "paper.tex", "paper.csv", "paper.html"} <= {p.name for p in report.paths}
    table = (tmp_path / "study" / "paper.csv").read_text().splitlines()
    assert table[1].startswith("study,minilm,bbc,,full,test/accuracy,0.902,0.91")


def test_layout__nothing_published_of_what_is_run(store):
    keys = [store.add("full", VALUES)]
    said = paper(number("lora", 0.9))
    assert lines("s", said, beside(said, keys, {}, {})) == []
    assert "Source" in markdown(layout("s", said, []))
