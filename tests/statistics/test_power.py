"""Power as it is said against what simulated studies find."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats
from simulated_studies import Scenario
from statsmodels.stats.power import TTestPower

from ftlab.statistics.moderated import SeedScores, evidence
from ftlab.statistics.multiple_testing import LEVEL, holm
from ftlab.statistics.paired import of_two
from ftlab.statistics.power import Noise, noise, smallest_found

EXAMPLES = 444


@pytest.mark.parametrize("seeds", [3, 5, 10, 20])
@pytest.mark.parametrize("level", [0.05, 0.05 / 21])
def test_smallest_found__over_seeds_or_examples_alone_is_that_of_students_test(seeds, level):
    """By the noncentral F distribution of its square, and by statsmodels."""
    effect = smallest_found(Noise(0.02**2), seeds, level) / 0.02
    limit = stats.t.ppf(1 - level / 2, seeds - 1)
    assert stats.ncf.sf(limit**2, 1, seeds - 1, seeds * effect**2) == pytest.approx(0.8, abs=1e-4)
    over_examples = TTestPower().solve_power(nobs=EXAMPLES, alpha=level, power=0.8) * math.sqrt(EXAMPLES)
    found = smallest_found(Noise(0.02**2, 0.01**2, EXAMPLES), math.inf, level)
    assert found == pytest.approx(0.01 * over_examples, rel=1e-4)


@pytest.mark.parametrize("level", [0.05, 0.05 / 6])
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("share", [0.3, 1.0, 3.0])
def test_smallest_found__is_found_in_80_of_100_studies(level, seeds, share):
    """Between the extremes the deciding test finds it a little more often, and one of 80% of it not."""
    draw, studies = np.random.default_rng(5), 1000
    of_seeds, of_rest = 0.028**2, 0.1
    of_examples = share * of_seeds / seeds
    shift = smallest_found(Noise(of_seeds, of_examples, 200), seeds, level)
    def found(shift):
        tables = (shift + math.sqrt(of_seeds - of_rest / 200) * draw.normal(size=(seeds, 1))
                  + math.sqrt(200 * of_examples) * draw.normal(size=(1, 200))
                  + math.sqrt(of_rest) * draw.normal(size=(seeds, 200)) for _ in range(studies))
        return np.mean([of_two(table).p_differs <= level for table in tables])
    assert 0.80 - 3 * math.sqrt(0.16 / studies) <= found(shift) <= 0.90
    assert found(0.8 * shift) < 0.72


@pytest.mark.parametrize("seeds", [3, 10])
def test_noise__of_few_seeds_is_that_of_many(seeds):
    """Or a little more: seeds of 2 points for each technique, whose residuals are in the noise too."""
    draw, study = np.random.default_rng(2), Scenario((0.85,) * 7, (0.02,) * 7)
    means = []
    for count, studies in ((seeds, 100), (60, 15)):
        seen = [noise(in_pairs(of_examples(study.draw(draw, count))).values()) for _ in range(studies)]
        means.append([np.mean([getattr(one, name) for one in seen]) for name in ("seeds", "examples")])
    few, many = means
    assert 0.93 <= few[0] / many[0] <= 1.2
    assert few[1] == pytest.approx(many[1], rel=0.08)


def in_pairs(study):
    return evidence(study, list(combinations(study, 2)))


def test_noise__of_two_techniques_is_their_variances():
    table = np.random.default_rng(0).normal(size=(4, 50)) + np.arange(4)[:, None]
    seen, found = noise([of_two(table)]), of_two(table)
    assert seen == Noise(found.by_seeds * 4, found.by_examples, 50)
    assert seen.seeds == pytest.approx(table.mean(axis=1).var(ddof=1))


@pytest.mark.parametrize(("seeds", "alone", "borrowed"), [(3, 0.04, 0.11), (5, 0.16, 0.29), (10, 0.57, 0.69)])
def test_four_points_beside_a_baseline_are_found_as_the_docs_say(seeds, alone, borrowed):
    """Of one of seven techniques, with deviations of two points over seeds and 444 examples."""
    draw, study = np.random.default_rng(seeds), Scenario((0.85, 0.89) + (0.85,) * 5, (0.02,) * 7)
    found, studies = np.zeros(2), 300
    pairs = [("0", str(n)) for n in range(1, 7)]
    for _ in range(studies):
        hits = study.draw(draw, seeds)
        pooled = evidence(of_examples(hits), pairs)
        for place, raw in enumerate(({pair: of_two(hits[0] - hits[int(pair[1])]).p_differs for pair in pairs},
                                     {pair: pooled[pair].p_differs for pair in pairs})):
            found[place] += holm(raw)["0", "1"] <= LEVEL
    print(f"power with {seeds} seeds for four points: {found / studies}")
    marks = np.array([alone, borrowed])
    assert (np.abs(found / studies - marks) <= 3 * np.sqrt(marks * (1 - marks) / studies) + 0.01).all()


def of_examples(hits):
    """A study's scores by technique."""
    return {str(k): SeedScores(table.mean(axis=1), table) for k, table in enumerate(hits)}
