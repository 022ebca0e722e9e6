"""The models' predictions, example by example, from the stored records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ftlab.reports.cell_summary import CellSummary
from ftlab.reports.study_results import StudyResults
from ftlab.tasks.class_names import name_order
from ftlab.tracking.records import CellKey


@dataclass(frozen=True)
class Mistakes:
    """The test examples of a group that each technique gets wrong.

    Attributes:
        ids: of the examples.
        wrong: by technique, seed and example.
    """

    ids: list[str]
    wrong: dict[str, dict[int, NDArray[np.bool_]]]

    @property
    def shared(self) -> list[str]:
        """Examples that every technique gets wrong with every seed."""
        everyone = [answers for seeds in self.wrong.values() for answers in seeds.values()]
        return [self.ids[place] for place in np.flatnonzero(np.logical_and.reduce(everyone))]


def mistakes(results: StudyResults, group: tuple[str, str]) -> Mistakes | None:
    """Collect the errors of all runs on the examples of the first.

    Returns:
        None where answers are not right or wrong, or fewer than two techniques have predictions.
    """
    ids: pd.Index | None = None
    by_technique: dict[str, dict[int, NDArray[np.bool_]]] = {}
    for row in results.rows:
        if row.group != group:
            continue
        for seed, right in _right(results, row.key).items():
            ids = right.index if ids is None else ids
            if right.index.is_unique and len(right) == len(ids) and right.index.isin(ids).all():
                wrong = right.reindex(ids).to_numpy() == 0
                by_technique.setdefault(row.key.technique, {})[seed] = wrong
    if ids is None or len(by_technique) < 2:
        return None
    return Mistakes([str(example) for example in ids], by_technique)


def _right(results: StudyResults, key: CellKey) -> dict[int, pd.Series]:
    by_seed: dict[int, pd.Series] = {}
    for run in results.runs(key) if key.dataset in results.tasks else ():
        records = results.predictions(run)
        right = None if records is None else results.tasks[key.dataset].right(records)
        if records is not None and right is not None:
            by_seed[run.seed] = pd.Series(right, index=pd.Index(records["id"]))
    return by_seed


def classes(results: StudyResults, group: tuple[str, str]) -> list[str]:
    """The classes of training, targets and predictions, in the task's order.

    Returns:
        Nothing where the task is no classification, or nothing was predicted.
    """
    if group[1] not in results.tasks:
        return []
    runs = [run for row in results.rows if row.group == group for run in results.runs(row.key)]
    stored = [records for run in runs if (records := results.predictions(run)) is not None]
    if not stored or not results.tasks[group[1]].one_class:
        return []
    names = {name for records in stored for name in (*records["target"], *records["prediction"])}
    return sorted({*names, *results.class_counts(group)}, key=name_order) if names else []


def best(results: StudyResults, group: tuple[str, str], most: int) -> list[CellSummary]:
    """The group's rows in the study's order; of more than `most` those with the best means."""
    sign = -1 if results.higher_is_better else 1
    rows = [row for row in results.rows if row.group == group]
    ranked = sorted(rows, key=lambda row: (math.isnan(row.summary.mean), sign * row.summary.mean))
    kept = {row.key for row in ranked[:most]}
    return [row for row in rows if row.key in kept]


def confusions(results: StudyResults, key: CellKey, names: Sequence[str]
               ) -> dict[int, NDArray[np.int64]]:
    """By seed, counts (C, C) of a classification's test split: row = target."""
    place = {name: n for n, name in enumerate(names)}
    matrices = {}
    for run in results.runs(key):
        records = results.predictions(run)
        if records is None:
            continue
        matrix = np.zeros((len(names), len(names)), dtype=np.int64)
        at = (_places(place, records["target"]), _places(place, records["prediction"]))
        np.add.at(matrix, at, 1)
        matrices[run.seed] = matrix
    return matrices


def _places(place: dict[str, int], names: Iterable[str]) -> list[int]:
    return [place[name] for name in names]
