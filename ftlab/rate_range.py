"""`ftlab lr`: the learning-rate range test of a study's techniques, as a table and a figure."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftlab.errors import InputError
from ftlab.files import write
from ftlab.reports.colours import styles
from ftlab.reports.figures.matplotlib_axes import canvas, logarithmic, paper
from ftlab.studies.run_process import built
from ftlab.studies.study import Study
from ftlab.tracking.records import CellKey
from ftlab.training.rate_test import RateTest, range_test

LOW, HIGH, STEPS = 1e-7, 10.0, 100


@dataclass(frozen=True)
class TestedRate:
    """A cell's test.

    Attributes:
        key: of the cell.
        test: its course.
        own: the rate that the study gives the technique.
    """

    key: CellKey
    test: RateTest
    own: float


def find_rates(study: Study, results: Path, low: float = LOW, high: float = HIGH,
               steps: int = STEPS) -> Iterator[TestedRate]:
    """Test every cell of a study that trains, with its first seed; nothing is tracked.

    Args:
        study: checked; `study.only` leaves techniques out.
        results: folder in whose `<study>/lr` table and figure go.
        low: the smallest rate.
        high: the largest.
        steps: of each test, at most.

    Raises:
        InputError: rates that are no range, or nothing trains.
    """
    if not 0 < low < high or steps < 10:
        raise InputError(f"no range test from {low:g} to {high:g} in {steps} steps",
                         "take a low rate above 0, a higher one, and at least 10 steps")
    tested = []
    for cell in study.cells:
        with tempfile.TemporaryDirectory(prefix="ftlab-lr-") as folder:
            run = built(Path(folder), study.specification(cell, study.seeds[0]))
            if not run.technique.trains:
                continue
            own = run.technique.lr
            test = range_test(run, lambda event: None, low, high, steps)
        tested.append(TestedRate(cell.key, test, own))
        yield tested[-1]
    if not tested:
        raise InputError(f"study {study.name}: nothing trains", "name a technique that does")
    where = results / study.name / "lr"
    where.mkdir(parents=True, exist_ok=True)
    write(where / "rates.csv", _csv(tested))
    for kind in ("png", "pdf"):
        write(where / f"rates.{kind}", _drawn(tested, kind))


def _csv(tested: Sequence[TestedRate]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["backbone", "dataset", "technique", "rate", "loss"])
    for cell in tested:
        rows.writerows([cell.key.backbone, cell.key.dataset, cell.key.technique, rate, loss]
                       for rate, loss in zip(cell.test.rates, cell.test.losses, strict=True))
    return text.getvalue()


def _drawn(tested: Sequence[TestedRate], kind: str) -> bytes:
    """A panel for each pair of data set and backbone; a dot where the loss falls fastest."""
    pairs = list(dict.fromkeys((cell.key.dataset, cell.key.backbone) for cell in tested))
    looks = styles(cell.key.technique for cell in tested)
    with paper():
        figure, panels = canvas([len(pairs)], 3, 4.2, 3.2)
        for axes, pair in zip(panels, pairs, strict=True):
            for cell in tested:
                if (cell.key.dataset, cell.key.backbone) != pair or not cell.test.rates:
                    continue
                colour, test = looks[cell.key.technique].colour, cell.test
                axes.plot(test.rates, test.losses, color=colour, label=cell.key.technique)
                at = test.rates.index(test.suggestion)
                axes.plot(test.suggestion, test.losses[at], "o", color=colour)
            logarithmic(axes, [rate for cell in tested for rate in cell.test.rates])
            axes.set_title(" from ".join(pair))
            axes.set_xlabel("learning rate")
            axes.set_ylabel("training loss, smoothed")
            axes.legend()
        content = io.BytesIO()
        figure.savefig(content, format=kind, dpi=150, metadata={"CreationDate": None}
                       if kind == "pdf" else None)
    return content.getvalue()
