"""What `--dry-run` says: cells, what trains, what is computed once, and about how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ftlab.backbones.base import Backbone
from ftlab.backbones.passes import Unplayable
from ftlab.data.base import DataModule
from ftlab.data.examples import SPLITS
from ftlab.studies.config import build
from ftlab.studies.display import clock
from ftlab.studies.pack import LARGEST, seeds_together, together_of
from ftlab.studies.plan import Plan, PlannedCell, plan
from ftlab.studies.study import Cell, Study
from ftlab.techniques.base import Technique
from ftlab.training import frozen_prefix
from ftlab.training.cache_plan import Forecast
from ftlab.training.costs import typical_batch
from ftlab.training.fit import Run
from ftlab.training.guards import TensorGuard
from ftlab.training.settings import TrainerSettings

START = 3.0  # seconds a run spends outside training and evaluation: build, measure, store


@dataclass(frozen=True)
class Foreseen:
    """What a run of a cell takes, about.

    Attributes:
        seconds: with nothing cached.
        cache: what a prefix cache would cost and save the runs that share it; None without one.
        why_not: why there is none.
    """

    seconds: float
    cache: Forecast | None = None
    why_not: str = ""

    @property
    def cached_seconds(self) -> float:
        """Of a run once the cache is there."""
        if self.cache is None:
            return self.seconds
        return max(START, self.seconds - (self.cache.plain - self.cache.read) / self.cache.runs)


@dataclass
class Estimate:
    """A plan with what each cell's runs take, about."""

    plan: Plan
    foreseen: dict[str, Foreseen] = field(default_factory=dict)

    @property
    def plain_seconds(self) -> float:
        """Of all runs, one after another, with nothing cached."""
        return sum(each.seconds for each in self.foreseen.values()) * len(self.plan.study.seeds)

    @property
    def total_seconds(self) -> float:
        """The same with the caches, each made once."""
        made: list[PlannedCell] = []
        total = 0.0
        for planned in self.plan.cells:
            here = self.foreseen[planned.cell.key.config]
            total += here.cached_seconds * len(self.plan.study.seeds)
            if here.cache is not None and not any(planned.shares_prefix(each) for each in made):
                made.append(planned)
                total += here.cache.build
        return total

    def rich(self) -> Group:
        """For the terminal: the cells, then what is computed once for each."""
        once = [f"{planned.cell.key.title}: {_once(planned, self.foreseen[planned.cell.key.config])}"
                f"{_together(planned.cell, self.plan.study)}" for planned in self.plan.cells]
        return Group(self._table(), "Computed once:", *(Text(f"  {line}") for line in once))

    def _table(self) -> Table:
        study = self.plan.study
        runs = len(self.plan.cells) * len(study.seeds)
        table = Table(
            title=f"{study.name}: {len(self.plan.cells)} cells x {len(study.seeds)} seeds = {runs} runs",
            caption=f"about {clock(self.total_seconds)} (without shortcuts "
            f"{clock(self.plain_seconds)}) and {self.plan.bytes / 1e6:,.0f} MB in all; "
            "nothing was run or written",
        )
        for column in ("technique", "dataset", "backbone"):
            table.add_column(column)
        for column in ("trainable", "% of all", "time a run", "plain", "disk a run"):
            table.add_column(column, justify="right")
        for planned in self.plan.cells:
            key, here = planned.cell.key, self.foreseen[planned.cell.key.config]
            table.add_row(
                key.technique,
                key.dataset,
                key.backbone,
                f"{planned.trainable:,}",
                f"{100 * planned.trainable / planned.total:.3g}",
                clock(here.cached_seconds),
                clock(here.seconds),
                f"{planned.checkpoint_bytes / 1e6:,.1f} MB",
            )
        return table


def _once(planned: PlannedCell, here: Foreseen) -> str:
    if here.cache is None:
        return f"nothing: {here.why_not}"
    blocks = "block" if planned.frozen_blocks == 1 else "blocks"
    return (f"what {planned.frozen_blocks} frozen {blocks} hand on, {here.cache.bytes / 1e6:,.0f} MB, saves "
            f"{clock(here.cache.saved)} in {here.cache.runs} runs")


def _together(cell: Cell, study: Study) -> str:
    """How runs of a cell share a process, as the end of a line."""
    stacks = seeds_together(cell, study.seeds, study.shortcuts)
    if len(stacks[0]) > 1:
        return f"; {len(stacks[0])} seeds train as one stack of heads"
    if (way := together_of(cell, study.shortcuts)) is not None:
        return f"; in a sweep up to {LARGEST[way]} trials may train as one"
    return ""


def estimate(study: Study) -> Estimate:
    """Plan a study, and time two training steps and one evaluation batch of each cell.

    Raises:
        InputError: as `plan`.
    """
    made = Estimate(plan(study))
    loaded: dict[str, tuple[DataModule, Backbone]] = {}
    for planned in made.plan.cells:
        pair = f"{planned.cell.key.dataset}/{planned.cell.key.backbone}"
        if pair not in loaded:
            data, backbone = build(planned.cell.data), build(planned.cell.backbone)
            data.plain = not study.shortcuts
            data.load()
            data.connect(backbone, seed=0)
            loaded[pair] = data, backbone
        sharing = sum(planned.shares_prefix(other) for other in made.plan.cells)
        made.foreseen[planned.cell.key.config] = _foresee(
            study, planned, *loaded[pair], runs=max(1, sharing) * len(study.seeds))
    return made


def _foresee(study: Study, planned: PlannedCell, data: DataModule, backbone: Backbone,
             runs: int) -> Foreseen:
    technique: Technique = build(planned.cell.technique)
    technique.prepare(data)
    technique.attach(backbone.build(data.task, technique.form), data.task).train()
    settings = TrainerSettings(**planned.cell.trainer)
    seconds = _time(technique, data, settings.max_epochs if technique.trains else 0)
    said = {**study.specification(planned.cell, study.seeds[0]), "runs_to_come": runs}
    run = Run(backbone, data, technique, settings, study.seeds[0], study.select_by, Path(), said,
              plain=not study.shortcuts)
    if not technique.trains:
        return Foreseen(seconds, why_not="nothing trains")
    if reason := frozen_prefix.why_not(run):
        return Foreseen(seconds, why_not=reason)
    source = frozen_prefix.Source(run, TensorGuard(technique.model).before, dict, nullcontext)
    try:
        cache = source.foresee(SPLITS)
    except Unplayable as error:
        return Foreseen(seconds, why_not=str(error))
    if not cache.pays:
        return Foreseen(seconds, why_not="reading would cost as much as computing")
    return Foreseen(seconds, cache)


def _time(technique: Technique, data: DataModule, epochs: int) -> float:
    """Seconds of a run with nothing cached."""
    import torch

    train, validation, test = (
        data.train_dataloader(),
        data.val_dataloader(),
        data.test_dataloader(),
    )
    batch = typical_batch(data)
    step = 0.0
    if technique.trains:
        technique.training_step(batch, 0).backward()
        step = _seconds(lambda: technique.training_step(batch, 0).backward())
        technique.zero_grad(set_to_none=True)
    # Evaluation is sorted by length: a forward pass of a training batch is nearer to the mean.
    # It is never packed, though.
    seen = next(iter(validation)) if data.packs else batch
    technique.eval()
    with torch.inference_mode():
        forward = _seconds(
            lambda: data.task.predict(technique.model, seen, technique.model(seen)))
    evaluations = len(validation) * (epochs + 1) + len(test)
    return START + epochs * len(train) * step + evaluations * forward


def _seconds(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin
