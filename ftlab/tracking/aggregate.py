"""Mean, spread and interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Summary:
    """Statistics of one metric over seeds.

    Attributes:
        mean: nan where there is no value.
        std: sample standard deviation (ddof=1); nan below two values.
        n: how many values.
        ci_low, ci_high: 95% Student t interval of the mean over seeds; nan below two values.
    """

    mean: float
    std: float
    n: int
    ci_low: float
    ci_high: float

    def as_metrics(self, metric: str) -> dict[str, float]:
        """`<metric>.mean`, `.n`, and where two seeds allow it `.std`, `.ci_low`, `.ci_high`.

        In twelve digits: the UI shows all there are, and 0.72 is no 0.7200000000000001.
        """
        values = {"mean": self.mean, "n": float(self.n)}
        if self.n > 1:
            values |= {"std": self.std, "ci_low": self.ci_low, "ci_high": self.ci_high}
        return {f"{metric}.{name}": float(f"{value:.12g}") for name, value in values.items()}


def summarise(values: Iterable[float], confidence: float = 0.95) -> Summary:
    """Mean, standard deviation (ddof=1) and Student t interval (Student 1908) of the mean.

    A value that is not finite makes all of it nan: a broken seed is never averaged away.
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
    return Summary(mean, std, n, mean - half, mean + half)
