"""Area under a curve over examples and its inversion, in closed form and against scipy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import trapezoid

from ftlab.statistics.sample_efficiency import area, needed


def test_area__of_a_line_in_the_logarithm_is_its_middle() -> None:
    counts = [1, 10, 1000]
    assert area(counts, [0.0, 1.0, 3.0]) == pytest.approx(1.5)
    assert area(counts, [0.4] * 3) == pytest.approx(0.4)
    rng = np.random.default_rng(0)
    x, y = np.sort(rng.uniform(1, 500, 8)), rng.random(8)
    assert area(x.tolist(), y.tolist()) == pytest.approx(
        trapezoid(y, np.log(x)) / (np.log(x[-1]) - np.log(x[0])))


def test_needed__lies_between_levels() -> None:
    assert needed([1, 100], [0.0, 1.0], 0.5) == pytest.approx(10)
    assert needed([1, 100], [1.0, 0.0], 0.5, higher_is_better=False) == pytest.approx(10)
    assert needed([5, 10], [0.7, 0.8], 0.6) == 5
    assert needed([5, 10], [0.7, 0.8], 0.8) == 10
    assert needed([5, 10], [0.7, 0.8], 0.81) == math.inf
    assert needed([1, 10, 100], [0.2, 0.6, 0.4], 0.5) < 10, "the first time"


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6, unique=True), st.floats(0, 1))
def test_needed__is_where_the_curve_first_is_there(scores: list[float], target: float) -> None:
    counts = [2.0**n for n in range(len(scores))]
    count = needed(counts, scores, target)
    if math.isinf(count):
        assert max(scores) < target
        return
    assert counts[0] <= count <= counts[-1]
    assert np.interp(np.log(count), np.log(counts), scores) >= target - 1e-6
