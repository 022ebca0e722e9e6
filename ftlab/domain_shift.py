"""`ftlab shift`: how far the test sets and streams of a study's data lie from its own domain."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ftlab.data.base import DataModule
from ftlab.data.examples import NAMED, STREAM, SplitName
from ftlab.errors import InputError
from ftlab.files import write
from ftlab.statistics.two_samples import FOLDS, Apart, apart
from ftlab.studies.plan import Plan, pairs
from ftlab.studies.run_process import built
from ftlab.studies.study import Study
from ftlab.training.frozen_features import unlabelled_features

MOST = 2000
"""Examples of a split that are compared: the matrices of their distances are squares."""
OWN = "test"
"""The test split, of the own domain: what it is away from validation is the zero line."""


@dataclass(frozen=True)
class Shift:
    """A split of a data set as a backbone sees it, against the validation split.

    Attributes:
        dataset: its name in the study.
        backbone: likewise.
        split: `test`, a named test set or a stream.
        found: the distances.
    """

    dataset: str
    backbone: str
    split: SplitName
    found: Apart

    def __str__(self) -> str:
        f = self.found
        line = " (zero line)" if self.split == OWN else ""
        return (f"{self.split}{line}: A-distance {f.a_distance:.2f} [{f.low:.2f}, {f.high:.2f}], "
                f"MMD^2 {f.mmd:.4f} (p {f.p:.3f}), CORAL {f.coral:.2g}")


def measure(study: Study, results: Path) -> Iterator[Shift]:
    """Compare splits by the features that the pre-trained backbone gives a new head, as runs read them.

    Each is compared with the validation split, which is of the own domain, and the test split first:
    the distance of these two is what chance makes. All comparisons of a data set are of as many
    examples. Labels are not read, and nothing is tracked.

    Args:
        study: checked.
        results: folder in whose `<study>/shift` the table goes.

    Raises:
        InputError: there is nothing but the own domain, or a split is too small.
    """
    found: list[Shift] = []
    for backbone, data, cells in pairs(study, Plan(study)):
        if not (others := _others(data)):
            continue
        key, splits = cells[0].key, ["validation", OWN, *others]
        least = min(splits, key=lambda name: len(data.splits[name]))
        rows = len(data.splits[least])
        if rows < 2 * FOLDS:
            raise InputError(f"{key.dataset}: {rows} examples in {least} are too few "
                             "to say how far apart two domains are",
                             f"give each split {2 * FOLDS} examples at least")
        with tempfile.TemporaryDirectory(prefix="ftlab-features-") as folder:
            run = replace(built(Path(folder), study.specification(cells[0], study.seeds[0])),
                          backbone=backbone, data=data)  # which are read already
            read = unlabelled_features(run, splits, lambda event: None)
        features = {name: _drawn(vectors.numpy(), rows) for name, vectors in read.items()}
        for name in splits[1:]:
            found.append(Shift(key.dataset, key.backbone, name,
                               apart(features["validation"], features[name])))
            yield found[-1]
    if not found:
        raise InputError(f"study {study.name}: its data are of one domain",
                         "name another by split: {target: DOMAIN}, tests: {NAME: SOURCE} or beside")
    where = results / study.name / "shift"
    where.mkdir(parents=True, exist_ok=True)
    write(where / "shift.csv", _csv(found))


def _others(data: DataModule) -> list[SplitName]:
    """Named test sets, and streams without a test set of their name."""
    named = [name for name in data.splits if name.startswith(NAMED)]
    return named + [name for name in data.splits if name.startswith(STREAM)
                    and f"{NAMED}{name.removeprefix(STREAM)}" not in named]


def _drawn(features: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    return features[np.random.default_rng(0).permutation(len(features))[:min(rows, MOST)]]


def _csv(found: Sequence[Shift]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["backbone", "dataset", "split", "zero_line", *asdict(found[0].found)])
    rows.writerows([each.backbone, each.dataset, each.split, each.split == OWN,
                    *asdict(each.found).values()] for each in found)
    return text.getvalue()
