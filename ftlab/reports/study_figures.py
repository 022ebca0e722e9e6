"""The figures of a study file, from what the tracking store holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ftlab.reports.figures import all_figures
from ftlab.reports.study_results import read
from ftlab.studies.study import Study
from ftlab.tracking.tracker import Tracker


@dataclass(frozen=True)
class WrittenFigures:
    """The figures written.

    Attributes:
        paths: files written, in a fixed order.
        captions: by figure.
    """

    paths: tuple[Path, ...]
    captions: dict[str, str]


def plot(study: Study, tracking_uri: str | None = None, results: str | Path = "results",
         only: Sequence[str] = ()) -> WrittenFigures:
    """Draw a study's figures into `results/<study>/figures/`, as `table` does with all of them.

    Args:
        study: from `load_study`.
        tracking_uri: MLflow's store; None as in `Tracker`.
        results: the folder above the study's own.
        only: names of figures, `scores` for instance; empty for all.

    Raises:
        InputError: nothing of the study is tracked, or there is no figure of a name.
    """
    tracker = Tracker(tracking_uri)
    measured = read(study, tracker).directed().compared()
    folder = Path(results) / study.name / "figures"
    paths = all_figures.write(measured, folder, only)
    captions = {figure.name: figure.caption for figure in all_figures.drawn(measured, only)}
    tracker.close()
    return WrittenFigures(tuple(paths), captions)
