"""Numbers as CSV, and files that appear whole or not at all."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ftlab.errors import InputError
from ftlab.files import write
from ftlab.reports.cell_summary import CellSummary
from ftlab.reports.comparison import Comparison
from ftlab.reports.formats import escape_csv
from ftlab.statistics.bootstrap import bootstrap_interval
from ftlab.statistics.multiple_testing import FEWEST
from ftlab.statistics.verdict import Verdict
from ftlab.tracking.records import CellKey, CellRecord

PAIR = ("backbone", "dataset", "a", "b", "difference", "ci_low", "ci_high", "effect", "test",
         "seeds", "examples", "p", "p_holm", "p_baseline", "p_seeds", "p_examples", "equal_within",
         "verdict", "p_equal", "p_planned", "more_seeds", "examples_needed")
"""Columns of `tests.csv`."""
_RUN = ("study", "backbone", "dataset", "technique", "seed", "status", "run_id")


def exact(value: float) -> str:
    """The shortest text that reads back as the same number; whole numbers without a point."""
    if math.isfinite(value) and value == int(value) and abs(value) < 2**53:
        return str(int(value))
    return repr(float(value))


def to_csv(columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> str:
    """RFC 4180 with Unix line ends; a missing value is empty, a nan says `nan`."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([escape_csv(column) for column in columns])
    for line in lines:
        writer.writerow([_field(line.get(column, "")) for column in columns])
    return file.getvalue()


def _field(value: Any) -> str:
    if isinstance(value, (int, float)):
        return exact(value)
    return escape_csv(str(value))


def runs_csv(cells: Sequence[CellKey], records: Iterable[CellRecord]) -> str:
    """One line a run that counts, and one, MISSING, a seed that was never run."""
    by_key = {record.key: record for record in records}
    kept = [by_key[key] for key in cells if key in by_key]
    names = {name for record in kept for run in record.runs for name in run.metrics}
    return to_csv([*_RUN, *sorted(names, key=_place)], _run_lines(kept))


def _run_lines(records: Iterable[CellRecord]) -> Iterator[dict[str, Any]]:
    for record in records:
        runs = {run.seed: run for run in record.runs}
        for seed in sorted({*record.seeds, *runs}):
            line: dict[str, Any] = {name: getattr(record.key, name) for name in _RUN[:4]}
            run = runs.get(seed)
            line |= {"seed": seed, "status": run.status if run else "MISSING"}
            if run:
                line |= {"run_id": run.run_id, **run.metrics}
            yield line


def tests_csv(comparisons: Sequence[Comparison]) -> str:
    """`pair_lines` as CSV."""
    return to_csv(PAIR, pair_lines(comparisons))


def pair_lines(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """One line per pair: the test that decides, and those over seeds and examples.

    Below three seeds in common none decides; `p_examples` then compares these trained models. Where
    seeds were added until a verdict, p-values and intervals hold whenever one stops, and `p_planned`
    is the test as if its seeds had been planned, which claims nothing.
    """
    lines: list[dict[str, Any]] = []
    for comparison in comparisons:
        for (a, b), pair in comparison.pairs.items():
            line: dict[str, Any] = dict(zip(("backbone", "dataset", "a", "b"),
                                            (*comparison.group, a, b), strict=True))
            if (test := pair.decides) is not None:
                line |= {"test": test.test, "difference": test.difference, "ci_low": test.low,
                         "ci_high": test.high, "effect": test.effect, "seeds": test.seeds,
                         "examples": test.examples, "p": test.p, "p_holm": pair.p}
            else:
                line["test"] = f"none: fewer than {FEWEST} seeds in common"
            if comparison.baseline in (a, b) and test is not None:
                line["p_baseline"] = comparison.against[a if b == comparison.baseline else b].p
            line["p_seeds"] = "" if pair.seeds is None else pair.seeds.p
            line["p_examples"] = "" if pair.examples is None else pair.examples.p
            if math.isfinite(pair.equal_within):
                line["equal_within"] = pair.equal_within
            if (verdict := pair.verdict) is not None:
                line["verdict"] = _answer(verdict, comparison.higher_is_better)
                line["p_equal"] = verdict.p_equal
                if verdict.evidence is not None:
                    line["p_planned"] = verdict.evidence.p_differs
                for name, value in (("more_seeds", verdict.more_seeds),
                                    ("examples_needed", verdict.examples)):
                    line[name] = "" if value is None else value
            lines.append(line)
    return lines


def _answer(verdict: Verdict, higher_is_better: bool) -> str:
    """Verdict on a against b: `better`, `worse`, `equal`, or the reason why there is none."""
    if verdict.kind != "different" or verdict.evidence is None:
        return verdict.kind
    return "better" if (verdict.evidence.difference > 0) == higher_is_better else "worse"


def _place(name: str) -> tuple[int, str]:
    """test/*, val/*, others, cost/*; each by name."""
    return {"test": 0, "val": 1, "cost": 3}.get(name.split("/")[0], 2), name


def table_lines(rows: Sequence[CellSummary], metric: str) -> list[dict[str, Any]]:
    """The table as numbers in base units, a mapping a row."""
    bootstrapped = [bootstrap_interval(row.values) for row in rows]
    return [
        {
            "backbone": row.key.backbone,
            "dataset": row.key.dataset,
            "technique": row.key.technique,
            "metric": metric,
            "mean": row.summary.mean,
            "median": row.median,
            "std": row.summary.std,
            "n": row.summary.n,
            "ci_low": row.summary.ci_low,
            "ci_high": row.summary.ci_high,
            "interval": row.summary.interval,
            "bootstrap_low": low,
            "bootstrap_high": high,
            "seeds": row.seeds,
            "collapsed": "" if row.collapsed is None else row.collapsed,
            "rank": row.rank if row.rank is not None else math.nan,
            "trainable_parameters": row.trainable,
            "total_parameters": row.total,
            "trainable_percent": row.percent,
            "train_seconds": row.seconds,
            "peak_memory_bytes": row.memory,
            "note": row.footnote,
        }
        for row, (low, high) in zip(rows, bootstrapped, strict=True)
    ]


def write_file(path: Path, content: str | bytes) -> Path:
    """Write a file and its folder: a reader never sees half of it.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, content)
    except OSError as error:
        raise InputError(
            f"results {path}: {error.strerror or error}", "free space, or give another --results"
        ) from error
    return path
