"""Metrics on their way to MLflow: its entities, and a buffer that makes batches of them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence

from mlflow.entities import Metric

from ftlab.tracking.mlflow_values import name_of

MOST = 500  # metrics waiting before they are sent, and in one batch (MLflow's limit is 1000)
LONGEST_WAIT = 3.0  # seconds before waiting metrics are sent


def as_metrics(
    values: Mapping[str, float], step: int, timestamp_ms: int
) -> tuple[list[Metric], str]:
    """MLflow's metrics, and the name of one that was infinite and became nan (empty: none)."""
    metrics, infinite = [], ""
    for name, value in values.items():
        number = float(value)
        if math.isinf(number):
            number, infinite = math.nan, name
        metrics.append(Metric(name_of(name), number, timestamp_ms, step))
    return metrics, infinite


def plain(metrics: Sequence[Metric]) -> list[tuple[str, float, int, int]]:
    """Metrics as JSON can hold them: name, value, milliseconds since 1970, step."""
    return [(metric.key, metric.value, metric.timestamp, metric.step) for metric in metrics]


class MetricBuffer:
    """Metrics by run, until a batch is due: MLflow takes 3.4 ms for one and 0.05 ms in a batch."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Metric]] = {}
        self._taken = time.monotonic()

    def add(self, run_id: str, metrics: list[Metric]) -> bool:
        """Keep metrics, and say whether a batch is due."""
        self._waiting.setdefault(run_id, []).extend(metrics)
        full = sum(map(len, self._waiting.values())) >= MOST
        return full or time.monotonic() - self._taken >= LONGEST_WAIT

    def take(self) -> Iterator[tuple[str, list[Metric]]]:
        """Empty the buffer: run and batch, in order."""
        self._taken = time.monotonic()
        waiting, self._waiting = self._waiting, {}
        for run_id, metrics in waiting.items():
            for start in range(0, len(metrics), MOST):
                yield run_id, metrics[start : start + MOST]
