"""Clusters as units: the mean stays, the variance is statsmodels' and false claims are rare again."""

import re
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from simulated import clustered_study

from ftlab.statistics.clusters import by_cluster, effective_size
from ftlab.statistics.group_differences import wilson
from ftlab.statistics.moderated import SeedScores
from ftlab.statistics.multiple_testing import LEVEL, holm, pairs
from ftlab.statistics.paired import of_two, over_both, over_examples
from ftlab.statistics.until_decided import compare, decide
from ftlab.statistics.verdict import Rule
from ftlab.studies.verdict_words import first_look, words


def drawn(seeds=3, sizes=(1, 4, 2, 7, 1, 3, 5)):
    generator = np.random.default_rng(4)
    owner = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return (generator.random((seeds, len(owner))) + owner / len(sizes) > 1).astype(float), owner.tolist()


@pytest.mark.parametrize("sizes", [(1, 4, 2, 7, 1, 3, 5), (3, 3, 3), (1, 1, 1, 1)])
def test_mean__of_each_row_stays(sizes):
    table, owner = drawn(sizes=sizes)
    made = by_cluster(table, owner)
    assert made.shape == (3, len(sizes))
    np.testing.assert_allclose(made.mean(axis=1), table.mean(axis=1), rtol=1e-14)


def test_clusters_of_one_size__have_their_means_in_the_order_in_which_they_appear():
    table = np.array([[1.0, 0.0, 1.0, 1.0, 0.0, 0.0]])
    assert by_cluster(table, ["b", "a", "b", "c", "a", "c"]).tolist() == [[1.0, 0.0, 0.5]]
    assert by_cluster(table, list("fedcba")).tolist() == table.tolist()


def test_variance_of_the_mean__is_statsmodels_cluster_robust():
    table, owner = drawn(seeds=1)
    z = by_cluster(table, owner)[0]
    model = sm.OLS(table[0], np.ones(len(owner))).fit(cov_type="cluster", cov_kwds={"groups": np.array(owner)})
    assert z.var(ddof=1) / len(z) == pytest.approx(float(model.cov_params()[0, 0]), rel=1e-10)


def test_exact_duplicates__add_nothing():
    """Each example five times is each once, in both tests, McNemar's included."""
    once = np.random.default_rng(4).integers(-1, 2, (3, 40)).astype(float)
    five = by_cluster(np.repeat(once, 5, axis=1), np.repeat(np.arange(40), 5).tolist())
    assert over_both(five) == over_both(once)
    assert over_examples(five[:1]) == over_examples(once[:1])
    assert over_examples(once[:1]).test.startswith("McNemar")
    assert over_both(once).p > over_both(np.repeat(once, 5, axis=1)).p


def test_effective_size__is_the_ratio_of_variances():
    table, owner = drawn(seeds=1, sizes=(9, 4, 12, 7, 6, 3, 5, 8) * 4)
    values, ones = table[0], np.ones(len(owner))
    together = sm.OLS(values, ones).fit(cov_type="cluster", cov_kwds={"groups": np.array(owner)}).cov_params()[0, 0]
    alone = sm.OLS(values, ones).fit().cov_params()[0, 0]
    assert together > 1.5 * alone
    few = (1.9712 / 2.0395) ** 2  # Student's 97.5% with 215 and 31 degrees of freedom
    assert effective_size(values, owner) == pytest.approx(len(owner) * alone / together * few, rel=1e-3)


def test_effective_size__at_its_ends():
    assert effective_size([1.0, 0.0, 1.0], None) == effective_size([1.0, 0.0, 1.0], [4, 7, 1]) == 3
    assert effective_size([1.0, 0.0, 1.0], [0, 0, 0]) == 0
    assert effective_size([1.0] * 40, [n // 4 for n in range(40)]) == pytest.approx(10 * (2.0227 / 2.2622) ** 2, rel=1e-3)
    apart = [float(n % 2) for n in range(40)]  # each cluster half right: no more than independent ones
    assert effective_size(apart, [n // 4 for n in range(40)]) <= 40


def test_interval_of_a_share__covers_where_examples_are_in_clusters():
    """40 clusters of 5, of which a normal variable of unit variance decides, and noise of half of it."""
    generator, covered = np.random.default_rng(0), np.zeros(2)
    clusters = np.repeat(np.arange(40), 5).tolist()
    for _ in range(500):
        right = (generator.normal(size=40).repeat(5) + 0.7 * generator.normal(size=200) > -1.22).astype(float)
        for place, size in enumerate((200, effective_size(right, clusters))):
            low, high = wilson(float(right.mean()), size)
            covered[place] += low <= 0.8413 <= high  # P(normal of variance 1.49 > -1.22)
    alone, together = covered / 500
    print(f"coverage of Wilson's interval over examples {alone:.3f}, over clusters {together:.3f}")
    assert alone < 0.8 and together > 0.92


def moderated(tables, clustered=0):
    """Evidence on all pairs as a study of three and more techniques has it."""
    study = {name: SeedScores(table.mean(axis=1), table, clustered) for name, table in enumerate(tables)}
    return compare(study, pairs(range(len(tables))), 0.0)


def of_pairs(tables):
    return {(a, b): of_two(tables[a] - tables[b]) for a, b in pairs(range(len(tables)))}


@pytest.mark.parametrize("test", [of_pairs, moderated])
@pytest.mark.parametrize("seeds, sizes", [(10, (5,) * 40), (5, (1, 2, 5, 12) * 10)])
def test_false_claims__fall_from_20_to_at_most_5_percent(test, seeds, sizes, record_property):
    """Equal techniques that take to whole clusters, not to single examples; Holm over six pairs."""
    generator, studies = np.random.default_rng(1), 300
    owner = np.repeat(np.arange(len(sizes)), sizes).tolist()
    claims = np.zeros(2)
    for _ in range(studies):
        hits = clustered_study(generator, 4, seeds, sizes)
        for place, tables in enumerate((hits, [by_cluster(each, owner) for each in hits])):
            raw = {pair: found.p_differs for pair, found in test(tables).items()}
            claims[place] += min(raw.values()) <= LEVEL and min(holm(raw).values()) <= LEVEL
    alone, together = map(float, claims / studies)
    record_property("false claims over examples, clusters", (alone, together))
    print(f"{test.__name__}: false claims over examples {alone:.3f}, over clusters {together:.3f}")
    assert alone > 0.2 and together <= LEVEL


def test_verdicts__count_clusters():
    """Equal within five points is not to be shown by 40 clusters, and the words say of what."""
    owner = np.repeat(np.arange(40), 5).tolist()
    tables = [by_cluster(each, owner) for each in clustered_study(np.random.default_rng(2), 4, 5, (5,) * 40)]
    for found in moderated(tables, 200).values():
        assert (found.test, found.units) == (
            "moderated t test over seeds and clusters", "40 clusters of 200 examples")
    for some in (tables, tables[:2]):
        scores = {str(name): {seed: SeedScores(row[None].mean(axis=1), row[None], 200) for seed, row in
                              enumerate(table)} for name, table in enumerate(some)}
        family = pairs(list(scores))
        decision = decide(scores, family, Rule(0.005, 3, 5))
        said = [words(pair, replace(decision.verdicts[pair], kind=kind), "test/accuracy", True)
                for pair in family for kind in ("undecidable", "open")]
        assert all(re.search(r"would take about [0-9,]+ clusters", text) for text in said), said
        assert first_look(decision, Rule(0.005, 3, 5), "test/accuracy").startswith(
            "with 40 clusters of 200 test examples equality can be shown")
