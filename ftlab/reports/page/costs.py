"""The costs of each technique, as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

from ftlab.reports.page.markup import Markup, join, table, tag
from ftlab.reports.study_results import StudyResults
from ftlab.statistics.seed_summary import summarise
from ftlab.tracking.records import CellKey

Unit = Callable[[float], str]


def _scaled(steps: Sequence[tuple[float, str]]) -> Unit:
    """A number with the unit that suits its size."""
    def with_unit(value: float) -> str:
        size, unit = next((step for step in steps if abs(value) >= step[0]), steps[-1])
        return f"{value / size:.3g} {unit}" if value else f"0 {steps[-1][1]}"
    return with_unit


SECONDS = _scaled([(3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")])
BYTES = _scaled([(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")])
OPERATIONS = _scaled([(1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1, "FLOP")])


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _joules(value: float) -> str:
    return f"{value:,.0f} J"


COLUMNS: tuple[tuple[str, str, Unit], ...] = (
    ("cost/trainable_parameters", "trainable parameters", _count),
    ("cost/checkpoint_bytes", "checkpoint", BYTES),
    ("cost/bank_bytes", "kept of training examples", BYTES),
    ("cost/train_seconds", "training", SECONDS),
    ("cost/step_seconds", "a step", SECONDS),
    ("cost/total_seconds", "whole run", SECONDS),
    ("cost/energy_joules", "energy, training", _joules),
    ("cost/peak_memory_bytes", "peak memory, training", BYTES),
    ("cost/inference_memory_bytes", "peak memory, inference", BYTES),
    ("cost/train_flops", "training FLOPs, an example", OPERATIONS),
    ("cost/inference_flops", "inference FLOPs, an example", OPERATIONS),
    ("cost/latency_seconds", "latency", SECONDS),
    ("cost/latency_merged_seconds", "latency, merged", SECONDS),
)
ABOUT = ("Means over finished seeds, on the machine named below; time and memory with ftlab's "
         "shortcuts, FLOPs and latency without. Training includes its validations; latency is "
         "that of one example.")


def costs(results: StudyResults) -> Markup:
    """A table a backbone and data set; columns that no run measured are left out."""
    parts = []
    for group, rows in groupby(results.rows, key=lambda row: row.group):
        lines = {row.key.technique: [_mean(results, row.key, name) for name, _, _ in COLUMNS]
                 for row in rows}
        measured = [n for n in range(len(COLUMNS))
                 if any(math.isfinite(values[n]) for values in lines.values())]
        if not measured:
            continue
        backbone, dataset = group
        shown = [[name, *(COLUMNS[n][2](values[n]) if math.isfinite(values[n]) else "-"
                          for n in measured)] for name, values in lines.items()]
        title = f"{dataset} from {backbone}" if len(results.groups) > 1 else ""
        parts.append(table(["technique", *(COLUMNS[n][1] for n in measured)], shown, title))
    return join([*parts, tag("p", ABOUT, class_="about")]) if parts else Markup("")


def _mean(results: StudyResults, key: CellKey, name: str) -> float:
    return summarise(results.values(key, name).values()).mean
