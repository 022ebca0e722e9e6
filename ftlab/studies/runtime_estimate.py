"""Estimates the time of a cell's runs: some of its steps, timed as a run would take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device

from ftlab.backbones.base import Backbone
from ftlab.backbones.forward_trace import NotReplayable
from ftlab.data.base import DataModule
from ftlab.studies.components import Component, build
from ftlab.studies.plan import PlannedCell
from ftlab.studies.shared_process import seeds_together
from ftlab.studies.study import Study
from ftlab.techniques.head_optimum import ByEpochs, Solver
from ftlab.techniques.wrapper import Wrapper
from ftlab.training import by_steps, hardware, precision, quantized
from ftlab.training.adapt import adapt
from ftlab.training.costs import typical_batch
from ftlab.training.guards import TensorGuard
from ftlab.training.run import Run
from ftlab.training.shortcuts import compiled_blocks
from ftlab.training.shortcuts.base import NotApplicable
from ftlab.training.shortcuts.linear_heads.time_estimate import (
    HeadForecast,
    foresee_heads,
    foresee_optimum,
)
from ftlab.training.shortcuts.prefix_cache import prefix_source
from ftlab.training.shortcuts.prefix_cache.cache_estimate import Forecast, fastest
from ftlab.training.trainer_settings import TrainerSettings

START = 3.0  # seconds a run spends outside training and evaluation: build, measure, store


@dataclass(frozen=True)
class RuntimeEstimate:
    """The estimated time of a cell's run.

    Attributes:
        seconds: with nothing cached, as timed; see `plain_seconds`.
        cache: what a prefix cache would cost and save the runs that share it; None without one.
        why_not: why there is none.
        heads: the loop over heads that trains the cell's runs; None where the Trainer does.
        trainer: why it does, where it trains heads.
        hardware: what was decided for the machine, and why.
        retained: of each data set on which forgetting is measured, seconds of a run (in `seconds`).
        untimed: why no step was timed, so that `seconds` are none; empty where one was.
    """

    seconds: float
    cache: Forecast | None = None
    why_not: str = ""
    heads: HeadForecast | None = None
    trainer: str = ""
    hardware: tuple[str, ...] = ()
    retained: Mapping[str, float] = field(default_factory=dict)
    untimed: str = ""

    @property
    def plain_seconds(self) -> float:
        """The seconds of a run with nothing cached: at least what its frozen prefix was timed."""
        if self.cache is None:
            return self.seconds
        return max(self.seconds, START + self.cache.plain / self.cache.runs)

    @property
    def cached_seconds(self) -> float:
        """The seconds of a run once the cache is there, a stack's seconds shared among its runs."""
        if self.cache is None:
            return self.plain_seconds
        less = self.plain_seconds - (self.cache.plain - self.cache.read) / self.cache.runs
        if self.heads is None:
            return less
        # features are read once, not in every pass, which `START` covers
        return min(less, START + self.heads.together / self.heads.runs)


def foresee(study: Study, planned: PlannedCell, data: DataModule, backbone: Backbone,
            runs: int) -> RuntimeEstimate:
    """Time two training steps and an evaluation batch of a cell, and what shortcuts make of them.

    Args:
        study: of the cell.
        planned: the cell.
        data: loaded, and connected with the backbone.
        backbone: of the cell.
        runs: of the study that share the cell's frozen prefix.
    """
    record = {**study.specification(planned.cell, study.seeds[0]), "runs_to_come": runs}
    run = Run(backbone, data, build(planned.cell.technique), TrainerSettings(**planned.cell.trainer),
              study.seeds[0], study.select_by, Path(), record, plain=not study.shortcuts,
              head_trained=planned.cell.keeps_head, quantized=planned.cell.quantized)
    decided: list[str] = []

    def take(event: dict[str, Any]) -> None:
        if event["event"] == "hardware":
            decided.append(event["text"])

    _, guard = adapt(run, take)
    if run.technique.trains and run.settings.compile != "never":
        reason = compiled_blocks.why_not(run)
        decided.append(f"compile: no, {reason}" if reason else "compile: the blocks that train")
    clock = _Clock(run)
    run.solver = clock.solver()
    seconds = clock.run_seconds()
    cache, why_not = _cache(run, guard, clock)
    heads, trainer = _heads(study, planned, run, guard) if cache else (None, "")
    retained = clock.retained(planned.cell.retain) if planned.cell.retain else {}
    seconds += clock.quantized() if run.quantized else 0.0
    return RuntimeEstimate(seconds + sum(retained.values()), cache, why_not, heads, trainer,
                           tuple(decided), retained)


def _cache(run: Run, guard: TensorGuard, clock: _Clock) -> tuple[Forecast | None, str]:
    if not run.technique.trains and "begin_fit" not in run.technique.hooks:
        return None, "nothing trains"
    if reason := prefix_source.why_not(run):
        return None, reason
    source = prefix_source.PrefixSource(run, guard.before, clock.place, clock.context)
    try:
        cache = source.foresee(run.data.needed(whole=True))
    except NotReplayable as error:
        return None, str(error)
    return (cache, "") if cache.pays else (None, "reading would cost as much as computing")


def _heads(study: Study, planned: PlannedCell, run: Run,
           guard: TensorGuard) -> tuple[HeadForecast | None, str]:
    inner = run.technique
    while isinstance(inner, Wrapper):
        inner = inner.technique
    if run.technique.together != "heads":
        around = f"{type(run.technique).__name__} stands around {type(inner).__name__}"
        return None, around if inner.together == "heads" else ""
    stack = seeds_together(planned.cell, study.seeds, study.shortcuts)[0]
    try:
        if run.solver is not None:
            return foresee_optimum(run, len(stack)), ""
        return foresee_heads(run, guard, len(stack)), ""
    except NotApplicable as error:
        return None, str(error)


class _Clock:
    """Times an adapted run on the device and in the precision that it will have.

    Attributes:
        place: moves a batch there.
        context: that the model computes in.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.technique, self.data = run, run.technique, run.data
        # a model whose weights are to be shared out may not fit one device
        settings = run.settings
        alone = settings if settings.strategy != "fsdp" else replace(settings, accelerator="cpu")
        self.device = hardware.device_of(alone)
        self.technique.model.to(self.device)
        precision.chosen(settings, self.device)  # refuses what the device has not
        self.context = precision.context_of(settings.precision, self.device)
        self.batch = self.place(typical_batch(self.data))

    def place(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        moved = move_data_to_device(batch, self.device)
        return precision.convert_inputs(moved, self.run.settings.precision)

    def solver(self) -> Solver | None:
        """The run's solver, see `Technique.optimum`."""
        try:
            with self.context():
                return self.technique.optimum(self.technique.model, self.data)
        except ByEpochs:
            return None
        finally:
            self.technique.train()

    def run_seconds(self) -> float:
        """The seconds of a run with nothing cached."""
        data, technique, task = self.data, self.technique, self.data.task
        train, validation, test = (
            data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
        epochs = self.run.epochs
        step = self._step(self.batch) if epochs else 0.0
        # Evaluation is sorted by length: a forward pass of a training batch is nearer to the mean.
        # It is never packed, though.
        seen = self.place(next(iter(validation))) if data.packs else self.batch
        technique.eval()
        with torch.inference_mode(), self.context():
            forward = fastest(lambda: task.predict(technique.model, seen, technique.model(seen)))
        trained, validated = by_steps.foreseen(self.run.settings, len(train)) if epochs else (0, 0)
        fit = trained * step + validated * len(validation) * forward
        evaluations = len(validation) + len(test)
        if not epochs and {"begin_fit", "optimum"} & technique.hooks:  # features are read
            evaluations += len(train) + len(validation)
        return START + min(fit, self.run.settings.max_seconds or fit) + evaluations * forward

    def retained(self, components: Mapping[str, Component]) -> dict[str, float]:
        """Seconds of a pass over each data set on which forgetting is measured."""
        found, model = {}, self.technique.model.eval()
        for name, component in components.items():
            data: DataModule = build(component)
            data.load()
            data.connect(self.run.backbone, 0)
            loaders = [data.eval_loader(split) for split in ("train", "validation", "test")]
            batch = self.place(typical_batch(data))
            with torch.inference_mode(), self.context():
                found[name] = sum(map(len, loaders)) * fastest(lambda b=batch: model(b))  # type: ignore[misc]  # an argument that is never given
        self.data.connect(self.run.backbone, self.run.seed)
        return found

    def quantized(self) -> float:
        """Seconds of the passes over the test split as what the finished model is quantised to."""
        model, batches = self.technique.model.eval(), len(self.data.test_dataloader())
        here, seconds = set(model.modules()), 0.0
        chosen = [layer for layer in model.quantizable if layer in here]
        for name in self.run.quantized:
            with quantized.held_as(quantized.fitting_layers(chosen, name), name), torch.inference_mode(), self.context():
                seconds += batches * fastest(lambda: self.data.task.predict(model, self.batch))
        return seconds

    def _step(self, batch: dict[str, Any]) -> float:
        self.technique.train()
        act = partial(self._once, batch)
        act()  # warms up
        seconds = fastest(act)
        self.technique.zero_grad(set_to_none=True)
        return seconds

    def _once(self, batch: dict[str, Any]) -> None:
        with self.context():
            loss = self.technique.training_step(batch, 0)["loss"]
        loss.backward()
