"""A finished run of a study, chosen by its cell and by what it scored on validation."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from ftlab.errors import InputError
from ftlab.reports.study_results import StudyResults, read
from ftlab.studies.study import Study
from ftlab.tracking.records import CellKey
from ftlab.tracking.tracker import Tracker
from ftlab.wording import did_you_mean


@dataclass(frozen=True)
class ChosenRun:
    """A run of the store.

    Attributes:
        run_id: MLflow's.
        reason: which it is and why, for people.
    """

    run_id: str
    reason: str


def choose(study: Study, cell: str | None = None, seed: int | None = None,
           tracking_uri: str | None = None) -> ChosenRun:
    """Choose the run with the best validation score; the test split has no part in it.

    Of several cells the one with the best mean over its seeds is taken, then its best seed.

    Args:
        study: from `load_study`.
        cell: a technique where it stands in one cell, or `lora on bbc from minilm`; None for all.
        seed: None for the best.
        tracking_uri: as in `Tracker`.

    Raises:
        InputError: there is no such cell, or no such run is finished.
    """
    results = read(study, Tracker(tracking_uri))
    keys = _named(results, cell)
    scores = {key: results.values(key, study.select_by) for key in keys}
    if seed is not None:
        scores = {key: {seed: of[seed]} for key, of in scores.items() if seed in of}
    scores = {key: of for key, of in scores.items() if of}
    if not scores:
        where = f" of {cell}" if cell else ""
        which = f" with seed {seed}" if seed is not None else ""
        raise InputError(f"study {study.name}: no run{where}{which} is finished with {study.select_by}",
                         "ftlab run it first")
    sign = 1 if results.upwards(study.select_by) else -1
    best = max(scores, key=lambda key: sign * fmean(scores[key].values()))
    chosen = max(scores[best], key=lambda number: sign * scores[best][number])
    run = next(run for run in results.runs(best) if run.seed == chosen)
    of = f", the best of {len(scores)} cells" if len(scores) > 1 else ""
    seeds = f", of its {len(scores[best])} seeds the best" if len(scores[best]) > 1 else ""
    return ChosenRun(run.run_id, f"{best.title}, seed {chosen}: {study.select_by} "
                                 f"{scores[best][chosen]:.4f}{of}{seeds}")


def _named(results: StudyResults, cell: str | None) -> list[CellKey]:
    """The cells that a name may mean.

    Raises:
        InputError: there is none, or several.
    """
    if cell is None:
        return list(results.keys)
    named = [key for key in results.keys if cell in (key.technique, key.title)]
    if not named:
        names = [*dict.fromkeys(key.technique for key in results.keys), *(key.title for key in results.keys)]
        raise InputError(f"--cell {cell}: the study {results.study} has no such cell",
                         did_you_mean(cell, names))
    if len(named) > 1:
        raise InputError(f"--cell {cell}: the study {results.study} has it {len(named)} times",
                         f"say which: {'; '.join(key.title for key in named)}")
    return named
