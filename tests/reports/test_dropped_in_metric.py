"""A metric that one entry adds: reports show it by its facts, with no other edit."""

from dataclasses import astuple, replace

import numpy as np
import pytest
from torchmetrics.classification import MulticlassHammingDistance

from ftlab.reports.columns import grid, parse
from ftlab.reports.default_columns import default_table
from ftlab.reports.drift.compare import drift
from ftlab.reports.drift.read_results import CellResult, ComparedStudy, measurements
from ftlab.reports.figures.labels import metric_title, scale
from ftlab.reports.study_files import write
from ftlab.reports.study_results import StudyResults
from ftlab.statistics.paired import over_both
from ftlab.tasks.classification import Classification
from ftlab.tasks.metric import Metric
from ftlab.tracking.metric_facts import from_tag, to_tag
from ftlab.tracking.metric_range import is_percent, limits
from tests.reports.test_comparison import Files

NAME = "test/slips"
RANDOM = np.random.default_rng(5)


class Slips(Classification):
    """Classification with a metric whose name suggests nothing."""

    def metrics(self) -> list[Metric]:
        def wrong(records):
            pairs = zip(records["target"], records["prediction"], strict=True)
            return np.array([a != b for a, b in pairs], dtype=np.float64)

        slips = Metric("slips", lambda: MulticlassHammingDistance(self.outputs), False, "share",
                       wrong)
        return [*super().metrics(), slips]


@pytest.fixture
def source(store) -> StudyResults:
    files = Files()
    hits = {name: RANDOM.random((3, 60)) < share for name, share in (("a", 0.9), ("b", 0.5))}
    keys = [store.add(name, 1 - each.mean(axis=1), metric=NAME) for name, each in hits.items()]
    for record in store.records:
        for run, row in zip(record.runs, hits[record.key.technique], strict=True):
            files.keep(run, row)
    task = Slips()
    task.higher_is_better = lambda metric: pytest.fail(f"the record knows {metric}")
    facts = from_tag(to_tag(Slips().facts()))
    records = {record.key: replace(record, facts=facts) for record in store.records}
    return StudyResults("study", NAME, keys, records, {"bbc": task}, tracker=files)


def test_it_is_in_tables_figures_and_paired_tests(source):
    assert source.upwards(NAME) is False
    results = replace(source, higher_is_better=False).compared()
    (comparison,) = results.comparisons
    assert comparison.best == "a" and [row.stands for row in results.rows] == [True, False]
    wrong = {name: np.stack([results.tasks["bbc"].contributions("slips", results.predictions(run))
                             for run in results.runs(row.key)])
             for name, row in zip("ab", results.rows, strict=True)}
    expected = over_both(wrong["a"] - wrong["b"]).within((0.0, 1.0))
    assert astuple(comparison.pairs["a", "b"].decides)[:-1] == pytest.approx(astuple(expected)[:-1])
    sheet = default_table(results)
    mean = f"{100 * results.rows[0].summary.mean:.2f}"
    assert f"{NAME}, %" in str(sheet) and mean in str(sheet)
    assert metric_title(results.metric, False) == f"{NAME}, % (less is better)"
    assert scale(results.named("val/slips")) == 100
    assert results.rows[0].summary.ci_low >= 0 and limits(results.named("val/slips")) == (0, 1)
    assert f"{NAME}, %" in str(grid([source], parse(NAME)).table())


def test_a_folder_states_what_the_store_does(source, tmp_path):
    write(replace(source.directed(), tracker=None), tmp_path, {"study": "study"})
    folder = tmp_path / "study"
    side = measurements(folder)
    assert side.facts == Slips().facts()
    movement = drift(side, side).movements[0]
    assert movement.metric == NAME and is_percent(movement.metric)
    (folder / "provenance.json").write_text('{"study": "study"}')  # as earlier versions wrote it
    assert measurements(folder).facts == {}


def test_drift_takes_the_facts_of_stores(source):
    cell = CellResult({0: "FINISHED", 1: "FINISHED"}, {NAME: {0: 0.1, 1: 0.2}})
    sides = [ComparedStudy(label, "study", {("b", "d", "t"): cell}, NAME, facts=Slips().facts())
             for label in ("old", "new")]
    (movement, *_) = drift(*sides).movements
    assert is_percent(movement.metric)
