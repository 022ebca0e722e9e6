import numpy as np
import pytest
from scipy import stats

from ftlab.statistics.collapse import collapsed, not_excluded


@pytest.mark.parametrize("seeds", [1, 3, 5, 10, 20])
def test_not_excluded__is_clopper_and_pearsons_one_sided_end(seeds):
    end = stats.binomtest(0, seeds, alternative="less").proportion_ci(0.95, "exact").high
    assert not_excluded(seeds) == pytest.approx(end)
    assert (1 - not_excluded(seeds)) ** seeds == pytest.approx(0.05)


@pytest.mark.parametrize(("values", "guessing", "upwards", "count"), [
    ([0.90, 0.88, 0.89], 0.2, True, 0),
    ([0.90, 0.88, 0.22], 0.2, True, 1),
    ([0.90, 0.22, 0.22], 0.2, True, 2),      # more than half of them
    ([0.90, 0.56, 0.54], 0.2, True, 1),      # half of the gain is at 0.55
    ([0.27, 0.22, 0.20], 0.2, True, 0),      # nobody learned much
    ([0.05, 0.06, 0.98], 1.0, False, 1),     # an error rate
    ([0.21, 0.20, 0.19], 0.2, True, 0),
    ([0.8, -0.1], 0.0, True, 1),             # a correlation
    ([0.9], 0.2, True, 0), ([], 0.2, True, 0),
])
def test_collapsed__keeps_less_than_half_of_the_best_gain(values, guessing, upwards, count):
    assert collapsed(values, guessing, upwards) == count


def test_collapsed__of_seeds_that_scatter_none_is_and_of_those_that_fall_all_are():
    draw = np.random.default_rng(0)
    assert sum(collapsed(draw.normal(0.85, 0.06, 10), 0.23, True) for _ in range(1000)) == 0
    fallen = [(draw.random(10) < 0.2) for _ in range(1000)]
    seen = [collapsed(np.where(f, 0.3, 0.9) + 0.02 * draw.normal(size=10), 0.23, True) for f in fallen]
    assert seen == [int(f.sum()) for f in fallen]
