"""How a metric's numbers are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ftlab.tracking.metric_range import is_percent

__all__ = ["cost", "digits", "is_percent"]


def digits(metric: str, values: Sequence[float]) -> Callable[[float], str]:
    """How a metric's numbers are written: one precision for all of `values`, the largest leads.

    Shares in percent with two decimals, others with about four digits.
    """
    if is_percent(metric):
        return lambda value: f"{100 * value:.2f}"
    sizes = [abs(value) for value in values if math.isfinite(value)]
    largest = max(sizes, default=0.0)
    if 0 < largest < 0.01 or largest >= 1e6:
        return lambda value: f"{value:.3e}"
    decimals = 4 if largest < 10 else 2 if largest < 1000 else 1
    return lambda value: f"{value:,.{decimals}f}"


def cost(name: str, values: Sequence[float]) -> tuple[Callable[[float], str], str]:
    """How a cost is written, and in which unit: one a column, the largest of `values` leads.

    Seconds, minutes or hours (of a latency milliseconds), MiB or GiB, GFLOP, and counts as they
    are; a cost of another name as a plain number without unit. What is not nothing is not written
    as nothing: 0.015 s beside 16.3 s.
    """
    largest = max((value for value in values if math.isfinite(value)), default=0.0)
    if name.endswith("_seconds"):
        if largest < 1 and "latency" in name:
            return _scaled(1e-3, 2), "ms"
        if largest < 600:
            return _scaled(1, 1), "s"
        return (_scaled(60, 1), "min") if largest < 36000 else (_scaled(3600, 1), "h")
    if name.endswith("_bytes"):
        return (_scaled(2**20, 0), "MiB") if largest < 10 * 2**30 else (_scaled(2**30, 1), "GiB")
    if name.endswith("_flops"):
        return _scaled(1e9, 2), "GFLOP"
    if name.endswith("_parameters"):
        return _scaled(1, 0), ""
    return digits(name, values), ""


def _scaled(divisor: float, decimals: int) -> Callable[[float], str]:
    def written(value: float) -> str:
        size = abs(value / divisor)
        small = 0 < size < 0.5 * 10.0**-decimals  # it would be written as nothing at all
        places = min(1 - math.floor(math.log10(size)), 6) if small else decimals
        return f"{value / divisor:,.{places}f}"

    return written
