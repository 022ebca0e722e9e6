"""Runs of one cell on one model and one set of features: prepared once, finished one by one."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence

from lightning import Trainer

from ftlab.data.examples import SPLITS
from ftlab.training import hardware
from ftlab.training.callbacks import Report
from ftlab.training.declined import NotApplicable
from ftlab.training.execute import finish
from ftlab.training.fit import adapt, best_epoch, load, make_trainer
from ftlab.training.guards import TensorGuard
from ftlab.training.heads.cached_head import CachedHead, find_head
from ftlab.training.heads.head_members import SeedGroup, StackedRun, random_state
from ftlab.training.heads.stacked_heads import train_stack
from ftlab.training.prefix import use_cache
from ftlab.training.run import Run
from ftlab.training.trial import found


def fit_heads(
    runs: Sequence[Run], reports: Sequence[Report], stops: Sequence[Callable[[], bool]] | None
) -> list[dict[str, float] | Exception]:
    """Runs whose heads train as one stack; see `together.execute_together`.

    Raises:
        Declined: they cannot; says why. Nothing has trained, and the runs may be executed.
    """
    begin = time.perf_counter()
    try:
        stack = _Stack(runs, reports, whole=stops is None)
    except NotApplicable:
        for run in runs:
            run.data.handed = {}
        raise
    for number, member in enumerate(stack.members):
        if stops is not None:
            member.stop = stops[number]
    measured = train_stack(stack.by_seed(), stack.head, stack.memory, stack.cached)
    prepared = (time.perf_counter() - begin) / len(runs)
    results: list[dict[str, float] | Exception] = []
    for number, member in enumerate(stack.members):
        try:
            results.append(stack.result(member, measured, prepared, everything=number == 0))
        # this run alone fails
        except Exception as error:  # noqa: BLE001
            results.append(error)
    return results


class _Stack:
    """The model, data and features that runs share; the first run's.

    Args:
        runs: see `fit_heads`.
        reports: of each.
        whole: whether they are whole runs, not trials.
    """

    def __init__(self, runs: Sequence[Run], reports: Sequence[Report], whole: bool) -> None:
        first, self.whole = runs[0], whole
        self.memory = load(first, reports[0])
        model, guard = adapt(first, reports[0])
        self.trainer: Trainer = make_trainer(first, [])
        splits = SPLITS if whole else SPLITS[:2]
        self.cached = use_cache.attach(first, self.trainer, guard, splits, reports[0])
        self.head: CachedHead = find_head(first, self.trainer)
        self.model = model
        self.seeds = {first.seed: self._seed(first, guard)}
        self.members: list[StackedRun] = []
        for run, report in zip(runs, reports, strict=True):
            if run.seed not in self.seeds:
                self.seeds[run.seed] = self._another(run, first, report)
            seed = self.seeds[run.seed]
            if run is not first:
                run.technique.attach(model, first.data.task)
            if run.settings.precision != first.settings.precision:  # `auto`, and not built itself
                hardware.suit(run, model, report)
            # of its own: what it clears at its end the others still need
            run.data = copy.copy(seed.data)
            run.data.handed = dict(first.data.handed)
            self.members.append(StackedRun(run, seed, best_epoch(run, model, whole), report))
            report({"event": "shortcut", "text": f"trained as one of {len(runs)} heads by one "
                                                 "matrix product"})

    def _seed(self, run: Run, guard: TensorGuard) -> SeedGroup:
        return SeedGroup(run.data, guard, self.head.parameters(),
                    random_state(self.trainer.strategy.root_device))

    def _another(self, run: Run, first: Run, report: Report) -> SeedGroup:
        """Another seed's start: its model is built as that of the first, and only its head kept."""
        run.backbone, run.data = first.backbone, copy.copy(first.data)
        run.data.handed = {}
        load(run, report)
        model, guard = adapt(run, report)
        names, before = self.head.names, self.seeds[first.seed].guard.before
        if {n: value for n, value in guard.before.items() if n not in names} != {
            n: value for n, value in before.items() if n not in names
        }:
            raise NotApplicable("the frozen weights are not the same for every seed")
        start = [model.get_parameter(name).detach().clone() for name in names]
        return SeedGroup(run.data, guard, start, random_state(self.trainer.strategy.root_device))

    def by_seed(self) -> list[StackedRun]:
        """The members, a seed's together."""
        return [member for seed in self.seeds.values() for member in self.members
                if member.seed is seed]

    def result(
        self, member: StackedRun, measured: dict[str, float], prepared: float, everything: bool
    ) -> dict[str, float]:
        """The final metrics of a member whose head has been trained."""
        begin, run = time.perf_counter(), member.run
        member.settle(self.head, self.model, everything)
        if not self.whole:
            return found(run, member.best, measured, member.pruned)
        results = finish(run, self.memory, self.trainer, member.best, measured, member.report)
        return results | {"cost/total_seconds": prepared + time.perf_counter() - begin}
