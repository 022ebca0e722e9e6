"""From the store to what diagnoses read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ftlab.reports.comparison import Comparison
from ftlab.reports.diagnoses.base import CellHistory, Diagnosis, Finding, RunHistory, StudyHistory
from ftlab.reports.study_results import StudyResults
from ftlab.statistics.moderated import SeedScores
from ftlab.statistics.multiple_testing import FEWEST, pairs
from ftlab.statistics.power import Noise, noise
from ftlab.statistics.two_studies import step
from ftlab.statistics.until_decided import compare
from ftlab.studies.decisions import comparable
from ftlab.studies.discover import members
from ftlab.tracking.cell_metric import in_same_clusters, measured
from ftlab.tracking.records import RunRecord

CURVES = ("train/loss", "train/epoch_loss", "train/grad_norm", "train/lr", "train/fit", "val/loss",
          "epoch")
"""The curves that are read besides the metric that selects."""
MOST_RUNS = 2000
"""Curves are read one by one, some milliseconds each; of more runs they are not."""


def diagnose(observed: StudyHistory) -> dict[Diagnosis, list[Finding]]:
    """Run every diagnosis there is; the room is walked."""
    diagnoses: list[Diagnosis] = [made() for made in members(Diagnosis).values()]
    return {diagnosis: diagnosis.find(observed) for diagnosis in diagnoses}


def observe(results: StudyResults, select_by: str,
            select_upwards: bool) -> StudyHistory:
    """Read what a study's runs recorded.

    Args:
        results: of the study.
        select_by: the metric that chooses epochs.
        select_upwards: whether more of it is better.
    """
    count = sum(len(record.runs) for record in results.records.values())
    wanted = (*CURVES, select_by) if count <= MOST_RUNS else ()
    cells = []
    for row in results.rows:
        record = results.records.get(row.key)
        runs = [] if record is None else record.runs
        task = results.tasks.get(row.key.dataset)
        named = task is not None and task.one_class
        cells.append(CellHistory(row.key, tuple(_course(results, run, wanted, named)
                                            for run in runs), row.collapsed))
    noises = {comparison.group: _noise(results, comparison) for comparison in results.comparisons
              if len(comparison.means) > 1 and comparison.rule is None}
    return StudyHistory(tuple(cells), results.comparisons, results.metric, select_by, select_upwards,
                    bool(wanted), {group: seen for group, seen in noises.items() if seen is not None})


def _noise(results: StudyResults, comparison: Comparison) -> Noise | None:
    """Noise of a group's differences: over examples too, where all runs say what each one adds."""
    dataset = comparison.group[1]
    cells = in_same_clusters([
        measured(record, results.metric, results.tracker, results.contributions.get(dataset))
        for key, record in results.records.items()
        if (key.backbone, key.dataset) == comparison.group and key.technique in comparison.means])
    common = sorted(set.intersection(*(set(cell.values) for cell in cells)))
    if len(common) < FEWEST:
        return None
    by_example = comparable(cells)
    study = {cell.key.technique: SeedScores(
        np.array([cell.values[seed] for seed in common]),
        np.stack([cell.examples[seed].to_numpy() for seed in common]) if by_example else None,
        cell.clustered) for cell in cells}
    resolution = step(value for scores in study.values() for value in scores.values)
    return noise(compare(study, pairs(list(study)), resolution).values())


def _course(results: StudyResults, run: RunRecord, wanted: Sequence[str], named: bool
            ) -> RunHistory:
    names = [name for name in dict.fromkeys(wanted) if name in run.metrics]
    predictions = results.predictions(run) if named and run.status == "FINISHED" else None
    return RunHistory(run.seed, run.status, run.reason, run.metrics,
                  {name: results.history(run, name) for name in names},
                  run.tags.get("ftlab.note", ""), predictions, run.blocks)
