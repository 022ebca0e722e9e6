"""A sampler at work on invented scores, so that no trial is spent to find that it cannot."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from ftlab.errors import InputError
from ftlab.sweeps.distributions import Space
from ftlab.sweeps.progress import Direction
from ftlab.sweeps.sweep import Sweep

TRIALS = 12
"""More than the ten that samplers draw at random before their model begins, by default."""


def rehearse(sweep: Sweep, directions: Sequence[Direction]) -> None:
    """Let the sampler draw a few trials of each space, in memory.

    Raises:
        InputError: it cannot: a package is missing, an argument is of no use, or it takes no such
            space or number of objectives. Samplers say so only when they work.
    """
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # the user's choice
            for space in {repr(space): space for space in sweep.spaces.values()}.values():
                _rehearse(sweep, space, directions)
    finally:
        optuna.logging.set_verbosity(verbosity)


def _rehearse(sweep: Sweep, space: Space, directions: Sequence[Direction]) -> None:
    invent = random.Random(0)
    search = optuna.create_study(directions=list(directions), pruner=sweep.make_pruner())
    for number in range(min(sweep.trials, TRIALS) if space else 0):
        try:
            search.sampler = sweep.make_sampler(number)
            trial = search.ask(dict(space))
        except Exception as error:  # whatever Optuna's code says of the user's choice
            raise _refusal(sweep, search.sampler, error) from error
        values = [invent.random() for _ in directions]
        search._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, values)


def _refusal(sweep: Sweep, sampler: BaseSampler, error: Exception) -> InputError:
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    mend = "change its arguments, or choose another"
    if isinstance(error, ImportError):
        mend = f"install what it needs (pip install {error.name or 'PACKAGE'}), or choose another"
    return InputError(f"{sweep.place / 'sampler'}: {type(sampler).__name__}: {reason}", mend)
