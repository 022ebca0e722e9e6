"""Training sets drawn from one pool: the variance that does not show over seeds."""

import numpy as np
import pytest
from scipy import stats

from ftlab.statistics.moderated import SeedScores, evidence
from ftlab.statistics.overlap import foreseen, inflation
from ftlab.statistics.paired import of_seeds, of_two, over_both, over_seeds
from ftlab.statistics.two_studies import step
from ftlab.statistics.until_decided import decide, stacked
from ftlab.statistics.verdict import Rule

S, E = 5, 60


def drawn_scores(generator: np.random.Generator, share: float, studies: int, pool: int = 100) -> np.ndarray:
    """Scores (studies, S): means of training sets that are drawn from a pool, itself drawn anew each study."""
    values = generator.normal(size=(studies, 1, pool)).repeat(S, axis=1)
    return generator.permuted(values, axis=2)[:, :, : int(share * pool)].mean(axis=2)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_the_factor_is_nadeau_and_bengio_s(share):
    scores = np.random.default_rng(0).normal(size=(2, S))
    plain, wider = (of_seeds(*scores, 0.0, overlap) for overlap in (0.0, share))
    variance = np.var(scores[0] - scores[1], ddof=1)
    assert wider.by_seeds == pytest.approx(variance * (1 / S + share / (1 - share)))
    assert inflation(share, S) == pytest.approx(wider.by_seeds / plain.by_seeds)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_the_variance_is_that_of_other_pools(share):
    scores = drawn_scores(np.random.default_rng(1), share, 4000)
    seen = scores.var(axis=1, ddof=1).mean() / S * inflation(share, S)
    assert seen == pytest.approx(scores.mean(axis=1).var(), rel=0.1)


def test_false_claims_over_seeds_and_examples():
    generator = np.random.default_rng(2)
    scores = drawn_scores(generator, 0.5, 600)
    rest = 0.2 * generator.normal(size=(600, S, E)) + 0.1 * generator.normal(size=(600, 1, E))
    tables = 0.5 * scores[:, :, None] + rest
    tests = {overlap: np.mean([over_both(table, overlap=overlap).p < 0.05 for table in tables])
             for overlap in (0.0, 0.5)}
    assert tests[0.5] <= 0.07
    assert tests[0.0] > 0.15
    alone = [over_seeds(row, np.zeros(S), 0.0, overlap=0.5).p < 0.05 for row in scores]
    assert 0.03 <= np.mean(alone) <= 0.07


def test_only_the_seeds_part_grows_in_both_tests():
    generator = np.random.default_rng(3)
    examples = {name: (generator.random((S, E)) < 0.5).astype(float) + generator.normal(0, 0.2, (S, 1))
                for name in "abc"}
    table = examples["a"] - examples["b"]
    plain, wider = of_two(table), of_two(table, overlap=0.3)
    study = {name: SeedScores(hits.mean(axis=1), hits) for name, hits in examples.items()}
    narrow, wide = (evidence(study, [("a", "b")], overlap=overlap)["a", "b"] for overlap in (0.0, 0.3))
    for before, after in ((plain, wider), (narrow, wide)):
        assert after.by_seeds == pytest.approx(before.by_seeds * inflation(0.3, S))
        assert (after.by_examples, after.difference) == (before.by_examples, before.difference)
        assert after.p_differs > before.p_differs
    # Satterthwaite's degrees of freedom go down to those of the seeds, whose part is larger
    assert wide.freedom < narrow.freedom


def test_the_effect_s_size_is_not_of_the_overlap():
    a, b = np.random.default_rng(4).normal(size=(2, S))
    found, wider = over_seeds(a, b, 0.0), over_seeds(a, b, 0.0, overlap=0.6)
    assert found.effect == wider.effect
    assert wider.high - wider.low == pytest.approx((found.high - found.low) * inflation(0.6, S) ** 0.5)
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_more_seeds_do_not_take_away_what_the_pool_adds():
    """Of five seeds q (1/5 + f/(1-f)), of twenty q (1/20 + f/(1-f))."""
    q, share = 3.0, 0.3
    apart = share / (1 - share)
    assert foreseen(q * (1 / 5 + apart), 5, 20, share) == pytest.approx(q * (1 / 20 + apart))
    assert foreseen(q / 5, 5, 20, 0.0) == pytest.approx(q / 20)


def test_a_decision_is_as_careful_as_the_test():
    generator = np.random.default_rng(6)
    scores = {name: {seed: SeedScores(np.array([mean + generator.normal(0, 0.01)])) for seed in range(8)}
              for name, mean in (("a", 0.8), ("b", 0.84), ("c", 0.8))}
    pairs = [("a", "b"), ("a", "c")]
    plain, careful = (decide(scores, pairs, Rule(0.02, 3, 8, overlap)) for overlap in (0.0, 0.9))
    assert plain.verdicts["a", "b"].kind == "different"
    assert careful.verdicts["a", "b"].kind in ("open", "undecided")
    known = careful.verdicts["a", "b"].evidence
    again = evidence({name: stacked(rows, known.seeds) for name, rows in scores.items()}, pairs,
                     step(v for rows in scores.values() for seed in range(known.seeds) for v in rows[seed].values), 0.9)
    assert known.by_seeds == pytest.approx(again["a", "b"].by_seeds)
