"""Simulated seeds whose mean is known: how often does the interval hold it?

The laws of accuracies are those of an audit by simulation, which found the marks with draws of its own; those of
correlations and of metrics with one end are held beside Student's interval, cut where the metric ends.
"""

import math

import numpy as np
import pytest
from scipy import stats

from ftlab.statistics.seed_summary import summarise
from ftlab.tracking.metric_range import limits

STUDIES = 20_000
ERROR = math.sqrt(0.05 * 0.95 / STUDIES)


def beta(mean, sd, low=0.0, width=1.0):
    """Mean and draws of a beta law between two ends."""
    share, spread = (mean - low) / width, sd / width
    size = share * (1 - share) / spread**2 - 1
    return mean, lambda draw, shape: low + width * draw.beta(share * size, (1 - share) * size, shape)


def gamma(distance, sd, end=0.0, sign=1):
    """Mean and draws of a gamma law of the distance from an end."""
    return end + sign * distance, lambda draw, shape: end + sign * draw.gamma(
        (distance / sd) ** 2, sd**2 / distance, shape)


def collapsing(share, low, high, sd):
    """Mean and draws of seeds of which a share falls from high to low."""
    return share * low + (1 - share) * high, lambda draw, shape: np.clip(
        np.where(draw.random(shape) < share, low, high) + sd * draw.normal(size=shape), 0, 1)


def covered(law, seeds, metric):
    """Share of intervals that hold the mean, ours and Student's; none of ours leaves the range."""
    mean, draws = law
    values = draws(np.random.default_rng(seeds), (STUDIES, seeds))
    made = [summarise(row, limits(metric)) for row in values.tolist()]
    low, high = (np.array([getattr(summary, end) for summary in made]) for end in ("ci_low", "ci_high"))
    half = stats.t.ppf(0.975, seeds - 1) * stats.sem(values, axis=1)
    student = np.abs(values.mean(axis=1) - mean) <= half
    first, last = limits(metric)
    assert ((low >= first) & (high <= last)).all()
    return np.mean((low <= mean) & (mean <= high)), student.mean()


@pytest.mark.parametrize(("law", "seeds", "mark"), [
    ((0.85, lambda draw, shape: np.clip(0.85 + 0.03 * draw.normal(size=shape), 0, 1)), 3, 0.952),
    (beta(0.95, 0.03), 3, 0.949),
    (beta(0.95, 0.03), 10, 0.945),
    (beta(0.995, 0.003), 5, 0.945),
    (beta(0.995, 0.003), 10, 0.945),
])
def test_of_shares_the_interval_covers_as_it_says(law, seeds, mark):
    ours, students = covered(law, seeds, "test/accuracy")
    assert ours == pytest.approx(mark, abs=4 * ERROR)
    assert ours >= students - 4 * ERROR


@pytest.mark.parametrize(("seeds", "most"), [(3, 0.75), (5, 0.75), (10, 0.92)])
def test_where_seeds_collapse_no_interval_covers(seeds, most):
    """One of five falls: three clean seeds are frequent, and agree on a mean that is too high."""
    ours, students = covered(collapsing(0.2, 0.6, 0.85, 0.02), seeds, "test/accuracy")
    assert ours < most
    assert ours == pytest.approx(students, abs=0.05)


@pytest.mark.parametrize(("law", "metric"), [
    (beta(0.3, 0.1, -1, 2), "test/pearson"), (beta(0.6, 0.08, -1, 2), "test/matthews"),
    (beta(0.95, 0.03, -1, 2), "test/pearson"), (beta(0.99, 0.006, -1, 2), "test/spearman"),
    (gamma(0.05, 0.02), "test/wer"), (gamma(0.02, 0.015), "test/wer"), (gamma(20.0, 3.0), "test/perplexity"),
    (gamma(0.1, 0.03, 1.0, -1), "test/r2"), (gamma(0.02, 0.01, 1.0, -1), "test/r2"),
])
@pytest.mark.parametrize("seeds", [3, 10])
def test_of_other_metrics_it_covers_better_than_students(law, metric, seeds):
    """Fisher's z of correlations, and the logarithm beside one end, of R2 that of 1 - R2."""
    ours, students = covered(law, seeds, metric)
    assert 0.938 <= ours <= 0.957
    assert ours >= students - ERROR
