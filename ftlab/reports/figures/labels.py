"""Names, metrics and costs as figures write them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ftlab.tracking.metric_range import is_percent
from ftlab.tracking.mlflow_values import shorten
from ftlab.visible import visible

LONGEST = 28  # characters of a technique's name


def group_title(group: tuple[str, str]) -> str:
    """`bbc from minilm`, of a backbone and a data set."""
    backbone, dataset = group
    return shorten(_line(f"{dataset} from {backbone}"), 60)


def labels(names: Iterable[str], longest: int = LONGEST) -> dict[str, str]:
    """A short text for each name; cut in the middle, and no two alike."""
    texts: dict[str, str] = {}
    for name in dict.fromkeys(names):
        line = _line(name)
        if len(line) > longest:
            tail = longest // 3
            line = f"{line[:longest - tail - 1]}…{line[-tail:]}"
        same = sum(other == line or other.startswith(f"{line} (") for other in texts.values())
        texts[name] = f"{line} ({same + 1})" if same else line
    return texts


def _line(text: str) -> str:
    return visible(" ".join(text.split()))


def metric_title(metric: str, higher_is_better: bool = True) -> str:
    """`test/accuracy, %`; says where less is better."""
    unit = ", %" * is_percent(metric)
    return f"{shorten(_line(metric), 40)}{unit}{'' if higher_is_better else ' (less is better)'}"


def scale(metric: str) -> int:
    """The factor from a metric's own unit to the one shown."""
    return 100 if is_percent(metric) else 1


def short(value: float) -> str:
    """A number of three digits: `75.7k`, `0.012`, `22.6M`."""
    if not math.isfinite(value):
        return "-"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            return f"{_digits(value / size)}{letter}"
    return _digits(value)


def _digits(value: float) -> str:
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{float(f'{value:.3g}'):g}"


@dataclass(frozen=True)
class Cost:
    """A cost, and how it is written.

    Attributes:
        metric: as the runs log it.
        title: for an axis.
        units: from small to large: name, and its size in the metric's own unit.
        of_fit: what trains nothing has no such number.
    """

    metric: str
    title: str
    units: tuple[tuple[str, float], ...] = (("", 1.0),)
    of_fit: bool = False

    def unit(self, values: Iterable[float]) -> tuple[str, float]:
        """Title with unit, and the size of that unit, for the largest of the values."""
        largest = max((value for value in values if math.isfinite(value)), default=0.0)
        fitting = [unit for unit in self.units if unit[1] <= largest] or [self.units[0]]
        name, size = fitting[-1]
        return f"{self.title}{', ' * bool(name)}{name}", size


_BYTES = (("B", 1.0), ("KiB", 2.0**10), ("MiB", 2.0**20), ("GiB", 2.0**30))
_SECONDS = (("ms", 1e-3), ("s", 1.0))
_FLOPS = (("MFLOP", 1e6), ("GFLOP", 1e9), ("TFLOP", 1e12))

TRAINABLE = Cost("cost/trainable_parameters", "trainable parameters")
TIME = Cost("cost/train_seconds", "training time", _SECONDS)
MEMORY = Cost("cost/peak_memory_bytes", "peak memory of training", _BYTES, of_fit=True)
COSTS: Sequence[Cost] = (
    TRAINABLE,
    Cost("cost/checkpoint_bytes", "checkpoint", _BYTES),
    Cost("cost/bank_bytes", "kept of training examples", _BYTES),
    TIME,
    MEMORY,
    Cost("cost/train_flops", "compute of training per example", _FLOPS),
    Cost("cost/inference_flops", "compute of inference per example", _FLOPS),
    Cost("cost/latency_seconds", "latency of one example, unmerged", _SECONDS),
    Cost("cost/latency_merged_seconds", "latency of one example, merged", _SECONDS),
)
"""In the order of the figure."""
