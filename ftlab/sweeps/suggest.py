"""Asks Optuna for a trial's values: the same whoever asks, and whole whatever happened before."""

from __future__ import annotations

import hashlib
import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.study import Study as Search
from optuna.trial import FrozenTrial, Trial, TrialState

from ftlab.studies.study import Cell
from ftlab.sweeps.search_space import own_values
from ftlab.sweeps.sweep import Sweep


def ask(search: Search, sweep: Sweep, cell: Cell) -> FrozenTrial:
    """A cell's next trial, running; the first has the study's own values.

    Args:
        search: of the cell.
        sweep: brings the sampler and the space.
        cell: of the sweep.
    """
    space = sweep.spaces[cell.key.technique]
    trials = search.get_trials(deepcopy=False)
    if not trials:
        search.enqueue_trial(own_values(cell.technique, space))
    number = len([t for t in trials if t.state != TrialState.WAITING])
    search.sampler = sweep.make_sampler(_seed(sweep, cell, number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        trial = search.ask(dict(space))
    return search._storage.get_trial(trial._trial_id)


def complete(search: Search, sweep: Sweep, cell: Cell, trial: FrozenTrial) -> FrozenTrial:
    """A running trial with all its values; a coordinator may have died while it asked for them.

    Args:
        search: of the cell.
        sweep: brings the sampler and the space.
        cell: of the sweep.
        trial: as stored.
    """
    space = sweep.spaces[cell.key.technique]
    if space.keys() <= trial.params.keys():
        return trial
    search.sampler = sweep.make_sampler(_seed(sweep, cell, trial.number))
    search._thread_local.cached_all_trials = None  # as Study.ask does, and the next lines too
    asked = Trial(search, trial._trial_id)
    for name, distribution in space.items():
        asked._suggest(name, distribution)
    return search._storage.get_trial(trial._trial_id)


def _seed(sweep: Sweep, cell: Cell, number: int) -> int:
    """The seed of the sampler for one trial: the same whoever asks, whenever."""
    text = f"{sweep.digest} {cell.key.config} {number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
