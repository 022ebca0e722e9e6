"""`ftlab transferability`: backbones scored by features alone, held to a study's results."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ftlab.errors import Incompatible, InputError
from ftlab.reports.backbone_scores import BackboneScores, Transferability
from ftlab.reports.csv_files import write_file
from ftlab.reports.study_files import formatted
from ftlab.reports.study_results import StudyResults, read
from ftlab.statistics.transferability.all_scores import all_scores
from ftlab.statistics.transferability.base import Reads, Score
from ftlab.studies.run_process import built
from ftlab.studies.study import Cell, Study
from ftlab.studies.study_tasks import StudyTasks
from ftlab.tracking.tracker import Tracker
from ftlab.training.frozen_features import FrozenFeatures, frozen_features
from ftlab.wording import listed


def transferability(study: Study, tracking_uri: str | None = None, results: str | Path = "results",
                    say: Callable[[str], None] = lambda line: None) -> Transferability:
    """Score every backbone of a study on every data set with classes, and hold that to its results.

    Features are of the training split, as the study's runs read it. Nothing trains, nothing is
    tracked; files go to `results/<study>/transferability/`.

    Args:
        study: from `load_study`; what of it has run is compared.
        tracking_uri: MLflow's store; None as in `Tracker`.
        results: the folder above the study's own.
        say: takes a line for each backbone and data set, when it is done.

    Raises:
        InputError: no data set has one class an example, or no backbone has features to score.
    """
    stored, notes = _results(study, tracking_uri)
    unfit = [dataset for dataset in stored.datasets if not _has_classes(stored, dataset)]
    if len(unfit) == len(stored.datasets):
        raise InputError(f"study {study.name}: no data set has one class an example, and "
                         "transferability scores compare classes", "take a study of classification")
    scores = all_scores()
    rows = []
    for cell in _pairs(study):
        if cell.key.dataset not in unfit:
            rows.append(_scored(study, cell, scores, stored))
            say(_done(rows[-1]))
    if not any(row.scores for row in rows):
        raise InputError(f"study {study.name}: no backbone has features to score: "
                         f"{rows[0].lacking[0]}", "give the backbones a pooling")
    techniques = tuple(dict.fromkeys(key.technique for key in stored.keys
                                     if any(key.technique in row.results for row in rows)))
    notes += [f"{listed(unfit)}, whose examples have no one class each"] if unfit else []
    names = tuple(score.name for score in scores)
    made = Transferability(study.name, stored.metric, stored.higher_is_better, names, techniques,
                           tuple(rows), tuple(notes))
    return replace(made, paths=_written(made, Path(results) / study.name / "transferability"))


def _results(study: Study, tracking_uri: str | None) -> tuple[StudyResults, list[str]]:
    """The study's results, and why there are none, where a study is to be run only later."""
    tracker = Tracker(tracking_uri)
    try:
        stored, notes = read(study, tracker), []
    except InputError as error:
        stored = StudyResults(study.name, study.report, [cell.key for cell in study.cells], {},
                              StudyTasks(study))
        notes = [f"results: {error.what}"]
    finally:
        tracker.close()
    stored = stored.directed()
    return replace(stored, metric=stored.named(stored.metric)), notes


def _has_classes(stored: StudyResults, dataset: str) -> bool:
    task = stored.tasks[dataset]
    return task.one_class and task.output_type == "vector"


def _pairs(study: Study) -> list[Cell]:
    """A cell of each data set and backbone, a data set's together."""
    cells: dict[tuple[str, str], Cell] = {}
    for cell in study.cells:
        cells.setdefault((cell.key.dataset, cell.key.backbone), cell)
    order = list(dict.fromkeys(cell.key.dataset for cell in study.cells))
    return sorted(cells.values(), key=lambda cell: order.index(cell.key.dataset))


def _scored(study: Study, cell: Cell, scores: list[Score], stored: StudyResults) -> BackboneScores:
    backbone, dataset = cell.key.backbone, cell.key.dataset
    reached = {}
    for key in stored.keys:
        values = stored.values(key, stored.metric)
        if (key.backbone, key.dataset) == (backbone, dataset) and values:
            reached[key.technique] = math.fsum(values.values()) / len(values)
    with tempfile.TemporaryDirectory(prefix="ftlab-features-") as folder:
        run = built(Path(folder), study.specification(cell, study.seeds[0]))
        try:
            features = frozen_features(run, lambda event: None)
        except Incompatible as error:
            return BackboneScores(backbone, dataset, {}, reached, (error.what,))
    rows, lacking = _rows(features)
    labels = features.rows.batch["target"].cpu().numpy()
    found: dict[str, float] = {}
    reasons: dict[str, list[str]] = {}
    for score in scores:
        try:
            reason = lacking.get(score.reads, "")
            if not reason:
                found[score.name] = score(rows[score.reads], labels)
        except ValueError as error:
            reason = str(error)
        if reason:
            reasons.setdefault(reason, []).append(score.name)
    return BackboneScores(
        backbone, dataset, found, reached,
        tuple(f"{listed(names)}: {reason}" for reason, names in reasons.items()),
        *features.rows.features.shape)


def _rows(features: FrozenFeatures) -> tuple[dict[Reads, np.ndarray[Any, Any]], Mapping[str, str]]:
    """The rows of each kind of score, and why one kind is not to be had."""
    own = features.rows.features
    rows: dict[Reads, np.ndarray[Any, Any]] = {"features": own.cpu().numpy()}
    try:
        layer = features.source_layer()
        if layer.weight.shape[1] != own.shape[1]:
            return rows, {"probabilities": "the checkpoint's classifier reads features of another width"}
        rows["probabilities"] = layer.probabilities(own).cpu().numpy()
    except Incompatible as error:
        return rows, {"probabilities": error.what}
    return rows, {}


def _done(row: BackboneScores) -> str:
    if not row.scores:
        return f"{row.dataset} from {row.backbone}: not scored: {row.lacking[0]}"
    return (f"{row.dataset} from {row.backbone}: {row.examples} examples of {row.width} features, "
            f"{len(row.scores)} scores")


def _written(made: Transferability, folder: Path) -> tuple[Path, ...]:
    files = formatted("scores", made.table, *made.numbers())
    if made.techniques:
        files |= formatted("agreement", made.agreements, *made.agreement_numbers())
    return tuple(write_file(folder / name, content) for name, content in files.items())
