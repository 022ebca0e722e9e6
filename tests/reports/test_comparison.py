"""Which test decides, what stands beside the best, and what is said of it."""

import csv
import io
from dataclasses import astuple, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from ftlab.reports import csv_files
from ftlab.reports.against_baseline import sentences
from ftlab.reports.cell_summary import build
from ftlab.reports.comparison import compare, compared, ranked
from ftlab.reports.sentences import answer, bold, ties
from ftlab.statistics.clusters import by_cluster
from ftlab.statistics.paired import over_both, over_examples, over_seeds
from ftlab.statistics.two_studies import step
from ftlab.tasks.classification import Classification
from ftlab.tracking.cell_metric import CellMetric, measured
from ftlab.tracking.records import CellKey

GROUP = ("minilm", "bbc")
RANDOM = np.random.default_rng(2)


def cell(name, share, seeds=(0, 1, 2), examples=200, known=None, ids=None):
    """A technique that is right on a share of the examples, about, and its predictions."""
    key = CellKey("study", *GROUP, name, name)
    hits = {seed: (RANDOM.random(examples) < share).astype(float) for seed in seeds}
    index = pd.Index(ids or [f"row {n}" for n in range(examples)])
    found = {seed: pd.Series(hits[seed], index=index) for seed in (seeds if known is None else known)}
    return CellMetric(key, {seed: float(each.mean()) for seed, each in hits.items()}, found)


def table(a, b):
    return np.stack([a.examples[seed].to_numpy() - b.examples[seed].to_numpy() for seed in a.values])


def test_seeds_and_examples_decide_where_both_are_known():
    a, b = cell("a", 0.9), cell("b", 0.6)
    pair = compare(GROUP, [a, b], True).pairs["a", "b"]
    assert astuple(pair.decides)[:-1] == pytest.approx(astuple(over_both(table(a, b)))[:-1])
    assert pair.decides.test == "t test over seeds and examples"
    assert pair.examples == over_examples(table(a, b))
    assert pair.seeds == over_seeds(list(a.values.values()), list(b.values.values()),
                                    step([*a.values.values(), *b.values.values()]))
    assert pair.p == pair.decides.p  # a family of one


@pytest.mark.parametrize("other", [
    {"known": ()}, {"known": (0, 2)}, {"ids": [f"other {n}" for n in range(200)]},
    {"examples": 150},
])
def test_seeds_alone_decide_where_predictions_are_missing_or_of_other_examples(other):
    a, b = cell("a", 0.9), cell("b", 0.6, **other)
    pair = compare(GROUP, [a, b], True).pairs["a", "b"]
    assert pair.decides == pair.seeds is not None
    assert pair.examples is None


@pytest.mark.parametrize("known", [None, ()])
def test_no_interval_of_a_difference_leaves_what_the_metric_can_differ_by(known):
    """All right against few of 12, with seeds far apart: beyond 1 by Student's t test."""
    a, b = cell("a", 1.0, examples=12), cell("b", 0.3, examples=12)
    for seed, hits in enumerate((0, 3, 7)):
        b.examples[seed][:] = (np.arange(12) < hits).astype(float)
        b.values[seed] = hits / 12
    a, b = (replace(each, examples={}) if known == () else each for each in (a, b))
    free, ours = (compare(GROUP, [a, b], True, metric=metric).pairs["a", "b"].decides
                  for metric in ("test/loss", "test/accuracy"))
    assert free.high > 1 and ours == replace(free, high=1.0)


def test_only_seeds_in_common_are_compared():
    a, b = cell("a", 0.9, seeds=(0, 1, 2, 3)), cell("b", 0.6, seeds=(1, 2, 3, 5))
    assert compare(GROUP, [a, b], True).pairs["a", "b"].decides.seeds == 3
    apart = compare(GROUP, [a, cell("b", 0.6, seeds=(7, 8))], True)
    assert not apart.tested
    assert apart.standing == ()


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
@pytest.mark.parametrize("known", [None, ()])
def test_below_three_seeds_trained_models_are_compared_and_nothing_is_claimed(seeds, known):
    """90% against 50%: McNemar's p of these models, but no bold and no sentence on techniques."""
    a, b = cell("a", 0.9, seeds=seeds, known=known), cell("b", 0.5, seeds=seeds, known=known)
    comparison = compare(GROUP, [a, b], True, "b")
    pair = comparison.pairs["a", "b"]
    assert pair.decides is None and pair.seeds is None and not pair.differs
    assert comparison.best == "a" and comparison.standing == ()
    if known is None:
        assert pair.examples.p < 0.001
        name = "McNemar's exact test" if len(seeds) == 1 else "paired bootstrap"
        assert pair.examples.test == f"{name} over examples"
    for text in (bold([comparison], True), answer(comparison, "test/accuracy", False),
                 *sentences([comparison], "test/accuracy")):
        assert "these trained models that are compared, and nothing is claimed" in text
        assert "significantly" not in text
    (line,) = csv.DictReader(io.StringIO(csv_files.tests_csv([comparison])))
    assert line["test"] == "none: fewer than 3 seeds in common"
    assert [line[name] for name in ("p", "p_holm", "p_seeds")] == ["", "", ""]
    assert line["p"] == line["p_holm"] == line["p_baseline"] == ""


def test_a_pair_of_too_few_seeds_among_others_is_said():
    cells = [cell("a", 0.9), cell("b", 0.5), cell("c", 0.7, seeds=(0, 1))]
    comparison = compare(GROUP, cells, True)
    assert comparison.standing == ("a",)
    said = bold([comparison], True)
    assert "2 pairs: untested, with fewer than three seeds in common" in said
    assert answer(comparison, "test/accuracy", False).endswith("not tested against c.")


def test_holm_over_all_pairs_of_a_group():
    cells = [cell("a", 0.9), cell("b", 0.85), cell("c", 0.5)]
    comparison = compare(GROUP, cells, True)
    smallest = min(pair.decides.p for pair in comparison.pairs.values())
    assert min(pair.p for pair in comparison.pairs.values()) == pytest.approx(min(1, 3 * smallest))
    assert "correction over the 3 pairs" in bold([comparison], True)


def test_less_may_be_better():
    comparison = compare(GROUP, [cell("a", 0.9), cell("b", 0.1)], False)
    assert comparison.best == "b"
    assert comparison.standing == ("b",)
    assert answer(comparison, "test/wer", True).startswith("b has the lowest wer on bbc from minilm")


def flat(name, mean, spread=0.0):
    """A technique with known means and no predictions."""
    values = {seed: mean + spread * (seed - 2) for seed in range(5)}
    return CellMetric(CellKey("study", *GROUP, name, name), values)


def test_the_answer_in_a_sentence():
    cells = [flat("full", 0.9, 0.001), flat("lora", 0.899, 0.002), flat("probe", 0.7, 0.003)]
    found = compare(GROUP, cells, True)
    p = moderated({cell.key.technique: list(cell.values.values()) for cell in cells}, "full", "lora")
    assert answer(found, "test/accuracy", False) == (
        "full has the highest accuracy, 90.00%: significantly better than probe (by 20.00 points, "
        f"p < 0.001); not significantly better than lora (by 0.10 points, p = {p:.3f}).")
    alone = answer(compare(GROUP, cells[:1], True), "test/accuracy", False)
    assert alone == "full reaches 90.00% in accuracy; no other technique is complete."
    twins = compare(GROUP, [flat("a", 0.5), flat("b", 0.5)], True)
    assert twins.standing == ("a", "b")
    assert "not significantly better than b (the same mean)" in answer(
        twins, "test/accuracy", False)


class Files:
    """A tracker that has files alone."""

    def __init__(self):
        self.files = {}

    def file(self, run, name):
        return self.files.get((run.run_id, name))

    def keep(self, run, hits, **more):
        columns = {"id": [f"row {n}" for n in range(len(hits))], "target": ["yes"] * len(hits),
                   "prediction": ["yes" if hit else "no" for hit in hits]} | more
        out = io.BytesIO()
        pq.write_table(pa.table(columns), out)
        self.files[run.run_id, "predictions/test.parquet"] = out.getvalue()


def test_predictions_come_from_the_store(store):
    files, task = Files(), Classification()
    draws = np.random.default_rng(0)  # of its own: the same whichever test came before
    hits = {name: draws.random((3, 60)) < share for name, share in (("a", 0.9), ("b", 0.5))}
    keys = [store.add(name, each.mean(axis=1)) for name, each in hits.items()]
    for record in store.records:
        for run, row in zip(record.runs, hits[record.key.technique], strict=True):
            files.keep(run, row)
    first = measured(store.records[0], "test/accuracy", files, task.contributions)
    assert first.examples[1].to_list() == hits["a"][1].tolist()
    rows = build(keys, store.records, "test/accuracy", True)
    rows, (comparison,) = compared(rows, store.records, "test/accuracy", True, files,
                                   {"bbc": task.contributions})
    expected = over_both(hits["a"].astype(float) - hits["b"].astype(float))
    assert astuple(comparison.pairs["a", "b"].decides)[:-1] == pytest.approx(astuple(expected)[:-1])
    assert [row.stands for row in rows] == [True, False]
    unread, _ = compared(rows, store.records, "test/auroc", True, files, {"bbc": task.contributions})
    assert [row.stands for row in unread] == [False, False]


def moderated(values, a, b):
    """The test's formula for metrics of seeds alone, written out for one pair."""
    seeds, names = len(values[a]), list(values)
    df = seeds - 1
    least = step(value for scores in values.values() for value in scores)
    own = {name: max(np.var(scores, ddof=1), least**2 / 2) for name, scores in values.items()}
    total, mean = sum(own.values()), sum(own.values()) / len(own)
    raised = {name: max(own[name], (mean + df * own[name]) / seeds) / seeds for name in names}
    freedom = {name: df + 1 - own[name] / total for name in names}
    apart = np.array([np.subtract(values[name], np.mean(values[name])) for name in names])
    products = apart @ apart.T
    together = products.sum() - np.trace(products)
    sizes = np.sqrt(np.diagonal(products))
    r = together / (sizes.sum() ** 2 - (sizes**2).sum())
    r = np.clip(r - 0.5 / np.sqrt(len(names) * (len(names) - 1) / 2 * df), 0, 0.9) * df / seeds
    error = raised[a] + raised[b] - 2 * r * np.sqrt(raised[a] * raised[b])
    error = np.sqrt(max(error, least**2 / seeds))
    nu = (raised[a] + raised[b]) ** 2 / (raised[a]**2 / freedom[a] + raised[b]**2 / freedom[b])
    t = abs(np.mean(values[a]) - np.mean(values[b])) / error
    return 2 * stats.t.sf(t, nu)


@pytest.mark.parametrize("others", [False, True, None])
def test_clusters_are_the_units_where_all_runs_have_the_same(store, others):
    files, task = Files(), Classification()
    hits = {name: RANDOM.random((3, 60)) < share for name, share in (("a", 0.9), ("b", 0.5))}
    clusters = [n // 4 if n < 40 else n for n in range(60)]
    for name, each in hits.items():
        store.add(name, each.mean(axis=1))
    for record in store.records:
        for run, row in zip(record.runs, hits[record.key.technique], strict=True):
            own = [*clusters[:39], 100, *clusters[40:]] if others and record.key.technique == "b" else clusters
            older = others is None and (record.key.technique == "b" or run.seed == 2)
            files.keep(run, row, **({} if older else {"cluster": own}))  # an older ftlab recorded none
    a, b = (measured(record, "test/accuracy", files, task.contributions) for record in store.records)
    assert (a.clustered, len(a.examples[0]), len(b.examples[0])) == (60, 30, {None: 60}.get(others, 30 + bool(others)))
    (pair,) = compare(GROUP, [a, b], True).pairs.values()
    if others:
        assert pair.decides == pair.seeds and pair.examples is None
        return
    made = by_cluster(hits["a"].astype(float) - hits["b"], clusters)
    assert pair.decides.p == pytest.approx(over_both(made).p)
    assert (pair.decides.test, pair.decides.units) == (
        "t test over seeds and clusters", "30 clusters of 60 examples")
    assert pair.examples.test == "paired bootstrap over clusters"


def test_what_stands_is_decided_by_the_corrected_p_values():
    """Against a alone each of the two is found at 5% (p = 0.021); among three pairs neither is."""
    seeds = {"a": [0.90, 0.90, 0.90], "b": [0.89, 0.88, 0.87], "c": [0.89, 0.87, 0.88]}
    cells = [CellMetric(CellKey("s", "minilm", "bbc", name, "0"), dict(enumerate(values)))
             for name, values in seeds.items()]
    found = compare(("minilm", "bbc"), cells, True)
    alone = moderated(seeds, "a", "b")
    assert alone < 0.05 and found.pairs["a", "b"].p == pytest.approx(3 * alone)
    assert found.standing == ("a", "b", "c") and not found.pairs["a", "b"].differs


def test_a_difference_is_found_at_5_percent_and_no_sooner():
    cells = [CellMetric(CellKey("s", "minilm", "bbc", name, "0"), dict(enumerate(values)))
             for name, values in (("a", [0.90, 0.90, 0.90]), ("b", [0.89, 0.88, 0.87]))]
    (pair,) = compare(("minilm", "bbc"), cells, True).pairs.values()
    assert pair.p == pytest.approx(0.0742, abs=1e-4) and not pair.differs


def test_a_data_set_without_a_complete_technique_is_left_out_of_the_ranks():
    found = [compare(("minilm", name), [
        CellMetric(CellKey("s", "minilm", name, technique, "0"), {0: score})
        for technique, score in scores.items()], True)
        for name, scores in (("x", {"a": 0.9, "b": 0.8}), ("y", {}), ("z", {"a": 0.9, "b": 0.8}))]
    assert ranked(found, True)["minilm"].ranks == {"a": 1.0, "b": 2.0}
    assert ranked(found, True)["minilm"].data_sets == 2
    assert ranked(found[:2], True) == {}


def test_what_is_said_of_a_small_p_and_of_a_near_tie():
    near = [0.9, 0.91, 0.92]
    cells = [CellMetric(CellKey("s", "minilm", "bbc", name, "0"), dict(enumerate(values)))
             for name, values in (("a", near), ("b", [0.898, 0.9078, 0.9176]), ("c", [0.8981] * 3))]
    found = compare(("minilm", "bbc"), cells[:2], True)
    p = stats.ttest_rel(near, [0.898, 0.9078, 0.9176]).pvalue
    assert p == pytest.approx(0.00274, abs=1e-5)
    assert found.pairs["a", "b"].p > 0.1, "the differences scatter by less than the metric's step"
    found = compare(("minilm", "bbc"), cells, True)
    found = replace(found, pairs={pair: replace(each, p=p) for pair, each in found.pairs.items()})
    assert "p = 0.003" in answer(found, "test/accuracy", False)
    assert ties([found]) == "", "almost the same is not the same"
