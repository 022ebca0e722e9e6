"""What `--dry-run` says: cells, what trains, and about how much time and disk."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich.table import Table

from ftlab.backbones.base import Backbone
from ftlab.data.base import DataModule
from ftlab.studies.config import build
from ftlab.studies.display import clock
from ftlab.studies.plan import Plan, PlannedCell, plan
from ftlab.studies.study import Study
from ftlab.techniques.base import Technique

START = 3.0  # seconds a run spends outside training and evaluation: build, measure, store


@dataclass
class Estimate:
    """A plan with the seconds that each cell's runs take, about."""

    plan: Plan
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def total_seconds(self) -> float:
        """Of all runs, one after another."""
        return sum(self.seconds.values()) * len(self.plan.study.seeds)

    def rich(self) -> Table:
        """For the terminal."""
        study = self.plan.study
        runs = len(self.plan.cells) * len(study.seeds)
        table = Table(
            title=f"{study.name}: {len(self.plan.cells)} cells x {len(study.seeds)} seeds = {runs} runs",
            caption=f"about {clock(self.total_seconds)} and {self.plan.bytes / 1e6:,.0f} MB in all; "
            "nothing was run or written",
        )
        for column in ("technique", "dataset", "backbone"):
            table.add_column(column)
        for column in ("trainable", "% of all", "time a run", "disk a run"):
            table.add_column(column, justify="right")
        for planned in self.plan.cells:
            key = planned.cell.key
            table.add_row(
                key.technique,
                key.dataset,
                key.backbone,
                f"{planned.trainable:,}",
                f"{100 * planned.trainable / planned.total:.3g}",
                clock(self.seconds[key.config]),
                f"{planned.checkpoint_bytes / 1e6:,.1f} MB",
            )
        return table


def estimate(study: Study) -> Estimate:
    """Plan a study and time two training steps and one evaluation batch of each cell.

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
        made.seconds[planned.cell.key.config] = _time(planned, *loaded[pair])
    return made


def _time(planned: PlannedCell, data: DataModule, backbone: Backbone) -> float:
    import torch

    technique: Technique = build(planned.cell.technique)
    technique.prepare(data)
    technique.attach(backbone.build(data.task, technique.form), data.task).train()
    train, validation, test = (
        data.train_dataloader(),
        data.val_dataloader(),
        data.test_dataloader(),
    )
    batch = next(iter(train))
    step, epochs = 0.0, planned.cell.trainer["max_epochs"] if technique.trains else 0
    if technique.trains:
        technique.training_step(batch, 0).backward()
        begin = time.perf_counter()
        technique.training_step(batch, 0).backward()
        step = time.perf_counter() - begin
    # Evaluation is sorted by length: a forward pass of a training batch is nearer to the mean.
    # It is never packed, though.
    batch = next(iter(validation)) if data.packs else batch
    technique.eval()
    with torch.inference_mode():
        begin = time.perf_counter()
        data.task.predict(technique.model, batch, technique.model(batch))
        forward = time.perf_counter() - begin
    evaluations = len(validation) * (epochs + 1) + len(test)
    return START + epochs * len(train) * step + evaluations * forward
