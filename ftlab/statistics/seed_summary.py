"""Mean, spread and interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from scipy import stats

Range = tuple[float, float]
"""The least and the greatest value that a number can have."""

UNBOUNDED: Range = (-math.inf, math.inf)

Interval = Literal["", "Student", "log", "logit", "Clopper-Pearson"]
"""Kind of an interval: Student's t of the mean over seeds on the metric's own scale, or its half
width taken on the log or logit scale; or that of test examples. Empty for none."""


@dataclass(frozen=True)
class Summary:
    """Statistics of one metric over seeds.

    Attributes:
        mean: nan where there is no value.
        std: sample standard deviation (ddof=1); nan below two values.
        n: how many values.
        ci_low, ci_high: 95% interval of the mean over seeds, inside the metric's range; nan below
            two values, and where all are equal, which says nothing of other seeds.
        interval: its kind.
    """

    mean: float
    std: float
    n: int
    ci_low: float
    ci_high: float
    interval: Interval = ""

    def as_metrics(self, metric: str) -> dict[str, float]:
        """`<metric>.mean`, `.n`, from two seeds on `.std`, and `.ci_low`, `.ci_high` of an interval.

        In twelve digits: the UI shows all there are, and 0.72 is not 0.7200000000000001.
        """
        values = {"mean": self.mean, "n": float(self.n)}
        if self.n > 1:
            values["std"] = self.std
        if self.interval:
            values |= {"ci_low": self.ci_low, "ci_high": self.ci_high}
        return {f"{metric}.{name}": float(f"{value:.12g}") for name, value in values.items()}


def summarise(
    values: Iterable[float], limits: Range = UNBOUNDED, confidence: float = 0.95
) -> Summary:
    """Mean, standard deviation (ddof=1) and interval of the mean by Student's t (Student 1908).

    A value that is not finite makes all of it nan: a broken seed is never averaged away. The
    interval does not leave the range, see `_within`; where all values are equal there is none.

    Args:
        values: one per seed.
        limits: of what is measured.
        confidence: of the interval.
    """
    numbers = [float(value) for value in values]
    n = len(numbers)
    nan = math.nan
    if n == 0 or not all(map(math.isfinite, numbers)):
        return Summary(nan, nan, n, nan, nan)
    mean = math.fsum(numbers) / n
    if n == 1:
        return Summary(mean, nan, n, nan, nan)
    if min(numbers) == max(numbers):
        return Summary(numbers[0], 0.0, n, nan, nan)
    std = math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / (n - 1))
    half = _quantile(0.5 + confidence / 2, n - 1) * std / math.sqrt(n)
    if not all(limits[0] <= number <= limits[1] for number in numbers):  # promised in vain
        limits = UNBOUNDED
    if half == 0 or mean in limits:  # but for rounding they are equal
        return Summary(mean, std, n, nan, nan)
    return Summary(mean, std, n, *_within(limits, mean, half))


@cache  # a study has thousands of metrics, of the same few numbers of seeds
def _quantile(probability: float, freedom: int) -> float:
    return float(stats.t.ppf(probability, freedom))


def over_examples(summary: Summary, examples: float, confidence: float = 0.95) -> Summary:
    """The same with the interval of its mean over the test examples, for seeds that are all equal.

    Clopper, Pearson (1934), https://doi.org/10.1093/biomet/26.4.404: at least this confidence.

    Args:
        summary: of shares of right answers.
        examples: of the test set, above 0; of clusters `clusters.effective_size`.
        confidence: of the interval.
    """
    right, tail = summary.mean * examples, (1 - confidence) / 2
    low = stats.beta.ppf(tail, right, examples - right + 1) if summary.mean > 0 else 0.0
    high = stats.beta.ppf(1 - tail, right + 1, examples - right) if summary.mean < 1 else 1.0
    return replace(summary, ci_low=float(low), ci_high=float(high), interval="Clopper-Pearson")


def _within(limits: Range, mean: float, half: float) -> tuple[float, float, Interval]:
    """The interval mean -+ half of what lies between two ends, with its kind.

    The half width is taken at the mean on a scale that has no end, and the interval transformed
    back (the delta method): log of the distance from one end, logit between two (of a correlation
    that is Fisher's z). Near an end it covers better than Student's does, and elsewhere no worse.
    """
    low, high = limits
    if math.isinf(low) and math.isinf(high):
        return mean - half, mean + half, "Student"
    if math.isinf(high):
        times = math.exp(half / (mean - low))
        return low + (mean - low) / times, low + (mean - low) * times, "log"
    if math.isinf(low):
        times = math.exp(half / (high - mean))
        return high - (high - mean) * times, high - (high - mean) / times, "log"
    width = high - low
    share = (mean - low) / width
    centre = math.log(share / (1 - share))
    reach = half / width / (share * (1 - share))
    # of -e and of +e: no difference of large numbers near 0 or 1
    return low + width * _share(centre - reach), high - width * _share(-(centre + reach)), "logit"


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
