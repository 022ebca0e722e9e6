"""Runs of one cell on one model and one set of features: prepared once, finished one by one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from lightning import Trainer

from ftlab.errors import GuardFailed
from ftlab.training import hardware
from ftlab.training.adapt import adapt, load
from ftlab.training.event_log import Report
from ftlab.training.execute import finish
from ftlab.training.fit import best_epoch
from ftlab.training.guards import TensorGuard
from ftlab.training.make_trainer import make_trainer
from ftlab.training.run import Run
from ftlab.training.shortcuts.base import Fitting, NotApplicable, Result, Stops
from ftlab.training.shortcuts.linear_heads.cached_head import CachedHead, find_head, head_alone
from ftlab.training.shortcuts.linear_heads.head_members import SeedGroup, StackedRun, random_state
from ftlab.training.shortcuts.linear_heads.stacked_heads import train_stack
from ftlab.training.shortcuts.take import take
from ftlab.training.solve import costs_of, problem_of, solver_of
from ftlab.training.trial import trial_metrics


def train_alone(fitting: Fitting, head: CachedHead, prepared: float) -> dict[str, float]:
    """Train the head of one run, and leave its model as the best epoch made it.

    Args:
        fitting: the run.
        head: of its model.
        prepared: seconds that its features took.

    Raises:
        GuardFailed: the result would be wrong.
    """
    seed = SeedGroup(fitting.run.data, fitting.guard, head.parameters(), random_state(fitting.device))
    member = StackedRun(fitting.run, seed, fitting.best, fitting.report)
    measured = train_stack([member], head, fitting.memory, prepared)
    member.settle(head, fitting.run.technique.model)
    return measured


def fit_heads(runs: Sequence[Run], reports: Sequence[Report], stops: Stops) -> list[Result]:
    """Execute runs whose heads train as one stack; see `shared_fit.execute_together`.

    Raises:
        NotApplicable: they cannot; says why. Nothing has trained, and the runs may be executed.
    """
    begin = time.perf_counter()
    stack = _Stack(runs, reports, stops)
    measured = stack.solve() if stack.solved else train_stack(
        stack.by_seed(), stack.head, stack.memory, stack.cached)
    prepared = (time.perf_counter() - begin) / len(runs)
    results: list[Result] = []
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
        runs, reports, stops: see `fit_heads`.
    """

    def __init__(self, runs: Sequence[Run], reports: Sequence[Report], stops: Stops) -> None:
        first, self.whole = runs[0], stops is None
        self.memory = load(first, reports[0])
        model, guard = adapt(first, reports[0])
        self.trainer: Trainer = make_trainer(first, [])
        splits = first.data.needed(self.whole)
        self.fitting = Fitting(first, guard, self.trainer, self.memory, best_epoch(first, model),
                               splits, reports[0])
        first.solver = solver_of(self.fitting)
        self.solved = first.solver is not None
        self.cached = take(self.fitting, steps=("inputs",)).seconds
        self.head: CachedHead = (head_alone(first) if self.solved
                                 else find_head(first, self.trainer))
        self.model = model
        self.seeds = {first.seed: self._seed(first, guard)}
        self.members: list[StackedRun] = []
        for number, (run, report) in enumerate(zip(runs, reports, strict=True)):
            if run.seed not in self.seeds:
                self.seeds[run.seed] = self._another(run, first, report)
            seed = self.seeds[run.seed]
            if run is not first:
                run.technique.bind(model, first.data.task)
            if run.settings.precision != first.settings.precision:  # `auto`, and not built itself
                hardware.suit(run, model, report)
            run.data = seed.data.with_cached(first.data.cached, first.data.blank_inputs)
            if run is not first:
                run.solver = solver_of(replace(self.fitting, run=run, report=report))
            if (run.solver is not None) != self.solved:
                raise NotApplicable("some have epochs, and of some the optimum is computed")
            best = best_epoch(run, model, None if stops is None else stops[number])
            self.members.append(StackedRun(run, seed, best, report))
            report({"event": "shortcut", "text": "solved with the features of "
                    f"{len(runs)} runs" if self.solved else
                    f"trained as one of {len(runs)} heads by one matrix product"})

    def _seed(self, run: Run, guard: TensorGuard) -> SeedGroup:
        return SeedGroup(run.data, guard, self.head.parameters(),
                         random_state(self.trainer.strategy.root_device))

    def _another(self, run: Run, first: Run, report: Report) -> SeedGroup:
        """Another seed's start: its model is built as that of the first, and only its head kept."""
        run.backbone, run.data = first.backbone, first.data.with_cached({})
        load(run, report)
        model, guard = adapt(run, report)
        names, before = self.head.names, self.seeds[first.seed].guard.before
        if {n: value for n, value in guard.before.items() if n not in names} != {
            n: value for n, value in before.items() if n not in names
        }:
            raise NotApplicable("the frozen weights are not the same for every seed")
        if self.solved and run.data.fingerprint != first.data.fingerprint:
            raise NotApplicable("the examples are not the same for every seed")
        start = [model.get_parameter(name).detach().clone() for name in names]
        return SeedGroup(run.data, guard, start, random_state(self.trainer.strategy.root_device))

    def solve(self) -> dict[str, float]:
        """Compute the members' optima, on the same features; returns what the fit cost a run."""
        self.memory.start()
        begin = time.perf_counter()
        problem = problem_of(self.fitting)
        optima = []
        for member in self.members:
            try:
                assert member.run.solver is not None
                member.optimum = member.run.solver(problem)
                optima.append(member.optimum)
            except GuardFailed as error:  # this run alone fails
                member.error = error
        return costs_of(optima, time.perf_counter() - begin, self.cached, self.memory.peak())

    def by_seed(self) -> list[StackedRun]:
        """The members, those of one seed together."""
        return [member for seed in self.seeds.values() for member in self.members
                if member.seed is seed]

    def result(
        self, member: StackedRun, measured: dict[str, float], prepared: float, everything: bool
    ) -> dict[str, float]:
        """The final metrics of a member whose head has been trained."""
        begin, run = time.perf_counter(), member.run
        if self.solved:
            member.settle_optimum(self.fitting, None if everything else set(self.head.names))
        else:
            member.settle(self.head, self.model, everything)
        if not self.whole:
            return trial_metrics(run, member.best, measured)
        results = finish(run, self.memory, self.trainer, member.best, measured, member.report)
        return results | {"cost/total_seconds": prepared + time.perf_counter() - begin}
