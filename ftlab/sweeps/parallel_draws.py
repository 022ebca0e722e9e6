"""Counts the trials that can be drawn at once, since no result of one could change another."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import FrozenTrial, TrialState


def independent(sampler: BaseSampler, begun: Sequence[FrozenTrial]) -> float:
    """Count the further trials of a search that get the same values as one after another.

    Args:
        sampler: of the search.
        begun: its trials so far.

    Returns:
        0 where the next trial may depend on the last; infinity where none depends on any.
    """
    fallback = getattr(sampler, "_independent_sampler", None)  # draws where the sampler does not
    most = math.inf if fallback is None else independent(fallback, begun)
    return min(most, _own_draws(sampler, begun))


def _own_draws(sampler: BaseSampler, begun: Sequence[FrozenTrial]) -> float:
    match sampler:
        case RandomSampler():
            return math.inf
        case BruteForceSampler():
            # then a trial that goes on is left out as one that has ended is
            return 0 if sampler._avoid_premature_stop else math.inf
        case QMCSampler():
            # the first trial that gives a value says what there is to be drawn
            states = (TrialState.COMPLETE, TrialState.PRUNED)
            return math.inf if any(trial.state in states for trial in begun) else 0
        case TPESampler() | GPSampler():
            # at random until so many trials have a value: never more than have begun
            return max(0, sampler._n_startup_trials - len(begun))
        case NSGAIISampler() | NSGAIIISampler():
            return max(0, (sampler.population_size or 0) - len(begun))  # the first generation
    return 0
