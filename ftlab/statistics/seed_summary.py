"""Mean, spread and interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from scipy import stats

Range = tuple[float, float]
"""The least and the greatest value that a number can have."""

UNBOUNDED: Range = (-math.inf, math.inf)


@dataclass(frozen=True)
class Summary:
    """Statistics of one metric over seeds.

    Attributes:
        mean: nan where there is no value.
        std: sample standard deviation (ddof=1); nan below two values.
        n: how many values.
        ci_low, ci_high: 95% Student t interval of the mean over seeds, inside the metric's range;
            nan below two values.
    """

    mean: float
    std: float
    n: int
    ci_low: float
    ci_high: float

    def as_metrics(self, metric: str) -> dict[str, float]:
        """`<metric>.mean`, `.n`, and where two seeds allow it `.std`, `.ci_low`, `.ci_high`.

        In twelve digits: the UI shows all there are, and 0.72 is not 0.7200000000000001.
        """
        values = {"mean": self.mean, "n": float(self.n)}
        if self.n > 1:
            values |= {"std": self.std, "ci_low": self.ci_low, "ci_high": self.ci_high}
        return {f"{metric}.{name}": float(f"{value:.12g}") for name, value in values.items()}


def summarise(
    values: Iterable[float], limits: Range = UNBOUNDED, confidence: float = 0.95
) -> Summary:
    """Mean, standard deviation (ddof=1) and Student t interval (Student 1908) of the mean.

    A value that is not finite makes all of it nan: a broken seed is never averaged away. The
    interval does not leave the range, see `_within`.

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
    std = math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / (n - 1))
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * std / math.sqrt(n)
    low, high = limits
    if not all(low <= number <= high for number in numbers):  # a range that was promised in vain
        low, high = UNBOUNDED
    return Summary(mean, std, n, *_within(low, high, mean, half))


def _within(low: float, high: float, mean: float, half: float) -> tuple[float, float]:
    """The interval mean -+ half of what lies between low and high.

    Between two ends the half width is taken on the logit scale at the mean (the delta method; of a
    correlation that is Fisher's z) and the interval transformed back, which covers a share near
    its end better than Student's does. One end alone cuts the interval.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return max(mean - half, low), min(mean + half, high)
    width = high - low
    share = (mean - low) / width
    if half == 0 or not 0 < share < 1:  # all values are the same end
        return mean, mean
    centre = math.log(share / (1 - share))
    reach = half / width / (share * (1 - share))
    # of -e and of +e: no difference of large numbers near 0 or 1
    return low + width * _share(centre - reach), high - width * _share(-(centre + reach))


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
