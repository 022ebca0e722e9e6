"""Power as it is said against what simulated studies find."""

import math

import numpy as np
import pytest
from scipy import stats
from simulated import hits_of
from statsmodels.stats.power import TTestPower

from ftlab.statistics.multiple_testing import LEVEL, holm
from ftlab.statistics.paired import p_over_both
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
        return np.mean([p_over_both(table) <= level for table in tables])
    assert 0.80 - 3 * math.sqrt(0.16 / studies) <= found(shift) <= 0.90
    assert found(0.8 * shift) < 0.72


def test_noise__is_unbiased_whatever_the_number_of_seeds():
    """Seeds of 2 points for each technique, 444 examples; the pair's share of examples by many seeds."""
    draw = np.random.default_rng(2)
    seen = [noise(hits_of(draw, np.full((7, 3), 0.85) + 0.02 * draw.normal(size=(7, 3)), EXAMPLES))
            for _ in range(150)]
    many = [noise(hits_of(draw, np.full((7, 60), 0.85) + 0.02 * draw.normal(size=(7, 60)), EXAMPLES))
            for _ in range(30)]
    for name in ("seeds", "examples"):
        a, b = (np.array([getattr(one, name) for one in some]) for some in (seen, many))
        apart = abs(a.mean() - b.mean())
        assert apart < 3 * math.hypot(a.std() / math.sqrt(len(a)), b.std() / math.sqrt(len(b)))
    assert np.mean([one.seeds for one in many]) == pytest.approx(2 * 0.02**2 + 0.1 / EXAMPLES, rel=0.25)


def test_noise__of_values_is_the_mean_over_pairs():
    values = np.array([[0.8, 0.85, 0.83], [0.7, 0.76, 0.72], [0.9, 0.9, 0.99]])
    pairs = [np.var(values[a] - values[b], ddof=1) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert noise(values) == Noise(pytest.approx(np.mean(pairs)))


@pytest.mark.parametrize(("seeds", "mark"), [(3, 0.04), (5, 0.20), (10, 0.66)])
def test_four_points_beside_a_baseline_are_found_as_the_docs_say(seeds, mark):
    """Seven techniques, a standard deviation of two points over seeds, 444 examples."""
    draw, studies, found = np.random.default_rng(seeds), 300, 0
    for _ in range(studies):
        means = np.full((7, seeds), 0.85) + 0.02 * draw.normal(size=(7, seeds))
        means[1] += 0.04
        hits = hits_of(draw, means, EXAMPLES)
        raw = {("0", str(n)): p_over_both(hits[0] - hits[n]) for n in range(1, 7)}
        found += raw["0", "1"] <= LEVEL and holm(raw)["0", "1"] <= LEVEL
    print(f"power with {seeds} seeds for four points: {found / studies:.3f}")
    assert found / studies == pytest.approx(mark, abs=3 * math.sqrt(mark * (1 - mark) / studies) + 0.01)
