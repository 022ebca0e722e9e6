"""From a checked study to what will run: data read, combinations refused, costs foreseen."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ftlab.activity import doing
from ftlab.backbones.base import Backbone
from ftlab.backbones.forward_trace import NotReplayable
from ftlab.backbones.prefix_replay import leading
from ftlab.backbones.quantization import quantized_layers
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.sampling import share_of_batch
from ftlab.errors import Incompatible, InputError
from ftlab.studies.components import build
from ftlab.studies.measurable import check_measurable
from ftlab.studies.plan_draws import Draw, draws
from ftlab.studies.plan_quantized import check_quantized
from ftlab.studies.plan_retained import check_retained
from ftlab.studies.plan_stages import StageData, check_stages
from ftlab.studies.seeds import check_margin
from ftlab.studies.study import Cell, Study
from ftlab.studies.yaml_file import Place
from ftlab.techniques.base import Technique
from ftlab.tracking.metric_facts import Record, named
from ftlab.tracking.mlflow_values import flatten
from ftlab.tracking.records import CellKey
from ftlab.training import activation_checkpointing, batches, by_steps, fsdp, precision
from ftlab.training.trainer_settings import TrainerSettings, processes_of
from ftlab.wording import listed

FLOAT = 4  # bytes of a parameter in a checkpoint; half precision takes less


@dataclass(frozen=True)
class PlannedCell:
    """A cell that may run.

    Attributes:
        cell: the checked cell.
        trainable, total: parameters.
        data_fingerprint, backbone_fingerprint: of what it stands on.
        data_profile: examples a split and class.
        frozen_blocks: how many leading blocks have nothing that trains.
        notes: what its data took note of, for instance duplicates between splits.
        facts: about its metrics.
        before_fingerprint: of the data of its stages; empty where they have none of their own.
        retain_fingerprint: of the data on which forgetting is measured; empty where it is not.
        draws: what each seed has drawn; empty where seeds draw no split. All else is of the first.
        pool_fingerprint: of what they draw from; empty likewise.
        training_share: of that the part that trains; 0 likewise.
    """

    cell: Cell
    trainable: int
    total: int
    data_fingerprint: str
    backbone_fingerprint: str
    data_profile: dict[str, Any]
    frozen_blocks: int = 0
    notes: tuple[str, ...] = ()
    facts: Record = field(default_factory=dict)
    before_fingerprint: str = ""
    retain_fingerprint: str = ""
    draws: Mapping[int, Draw] = field(default_factory=dict)
    pool_fingerprint: str = ""
    training_share: float = 0.0

    def of_seed(self, seed: int) -> PlannedCell:
        """The cell as a seed runs it; a seed that the study has no more has no fingerprint of its draw."""
        if not self.draws:
            return self
        return replace(self, **vars(self.draws.get(seed, Draw("", self.data_profile))))

    def shares_prefix(self, other: PlannedCell) -> bool:
        """Return whether the frozen blocks give both cells the same activations."""
        mine, theirs = ((c.cell.key.backbone, c.cell.key.dataset, c.frozen_blocks)
                        for c in (self, other))
        return mine == theirs and self.frozen_blocks > 0

    @property
    def checkpoint_bytes(self) -> int:
        """About what a run's checkpoint takes on disk."""
        return self.trainable * FLOAT


@dataclass
class Plan:
    """The cells of a study as they will run.

    Attributes:
        study: the study.
        cells: in the study's order.
        noted: sentences for its user, how many texts are cut for instance, and the data sets that
            each is about.
    """

    study: Study
    cells: list[PlannedCell] = field(default_factory=list)
    noted: dict[str, list[str]] = field(default_factory=dict)

    def note(self, dataset: str, *texts: str) -> None:
        """Add sentences about a data set."""
        for text in texts:
            about = self.noted.setdefault(text, [])
            about += [dataset] * (dataset not in about)

    @property
    def notes(self) -> list[str]:
        """Each sentence once, behind the data sets that it is about."""
        def names(about: list[str]) -> str:
            return listed(about) if len(about) <= 3 else f"{about[0]} and {len(about) - 1} others"

        return [f"{names(about)}: {text}" for text, about in self.noted.items()]

    @property
    def bytes(self) -> int:
        """Disk that all runs take together, about."""
        return sum(c.checkpoint_bytes for c in self.cells) * len(self.study.seeds)

    def check_space(self, folders: list[Path]) -> None:
        """Refuse a study that the disk cannot hold.

        Args:
            folders: where runs and artifacts are written; the fullest counts.

        Raises:
            InputError: too little space, or a folder that cannot be written to.
        """
        needed = self.bytes + 2 * max(c.checkpoint_bytes for c in self.cells) + 50_000_000
        for folder in folders:
            folder = writable(folder)
            free = shutil.disk_usage(folder).free
            if free < needed:
                raise InputError(
                    f"{folder}: {free / 1e9:.1f} GB free, and the study needs about "
                    f"{needed / 1e9:.1f} GB",
                    "free some space, or redirect with --results and --tracking-uri",
                )


def as_stored(made: Plan, stored: Mapping[CellKey, Collection[str]]) -> Plan:
    """The plan with its cells as `Study.as_stored` gives them."""
    study = made.study.as_stored(stored)
    cells = {cell.key: kept for cell, kept in zip(made.study.cells, study.cells, strict=True)}
    return Plan(study, [replace(planned, cell=cells[planned.cell.key]) for planned in made.cells],
                made.noted)


def writable(folder: Path) -> Path:
    """The folder, or where it does not exist the nearest one above it.

    Raises:
        InputError: nothing can be written there.
    """
    above = folder.absolute()
    while not above.exists():
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        what = "cannot be written to" if above.is_dir() else "is no folder"
        raise InputError(f"{folder}: {above} {what}", "give another --results")
    return above


def plan(study: Study, objectives: Mapping[str, Place] | None = None, weightless: bool = False) -> Plan:
    """Read the data, check every combination and count what trains.

    Args:
        study: the study.
        objectives: further metrics that have to be measurable, and where they are named.
        weightless: weights may be lacking; such a backbone's fingerprint is empty.

    Models are built on the meta device, so this costs no memory and reads no weights but for
    their fingerprint.

    Raises:
        InputError: data, weights or a combination cannot be used; nothing has been written.
    """
    made = Plan(study)
    metrics = {study.select_by: study.place / "select_by", study.report: study.place / "report"}
    metrics |= objectives or {}
    stage_data = StageData()
    for backbone, data, cells in pairs(study, made):
        if study.until is not None:
            check_margin(study.until, named(study.report, data.task.facts()), study.place / "seeds")
        fingerprints = data.fingerprint, "" if weightless and lacking(backbone) else backbone.fingerprint
        drawn = draws(study, backbone, cells, metrics)
        for cell in cells:
            doing(f"checking {cell.key.title}")
            for metric, place in metrics.items():
                check_measurable(metric, data, cell.key.dataset, place, cell.quantized)
            (model, notes, before, retain), *_ = [
                _adapted(one, backbone, data, stage_data, study.seeds[0]) for one in cell.single]
            made.note(cell.key.dataset, *notes)
            sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
            trainable = sum(n for n, trains in sizes if trains)
            made.cells.append(
                PlannedCell(cell, trainable, sum(n for n, _ in sizes), *fingerprints,
                            data.describe(), _frozen_blocks(model), (*data.notes, *notes),
                            data.task.facts(), before, retain,
                            {seed: replace(draw, notes=(*draw.notes, *notes))
                             for seed, draw in drawn[cell.key.config].items()},
                            data.pool_fingerprint if cell.draws_split else "")
            )
    order = {cell.key: position for position, cell in enumerate(study.cells)}
    made.cells.sort(key=lambda planned: order[planned.cell.key])
    return made


def lacking(backbone: Backbone) -> str:
    """The reason why a backbone's weights cannot be read; empty where they can."""
    try:
        return "" if backbone.fingerprint else "no weights"
    except InputError as error:
        return error.what


def pairs(study: Study, made: Plan) -> Iterator[tuple[Backbone, DataModule, list[Cell]]]:
    """Each backbone connected with each data set, data read once, and their cells."""
    datasets: dict[str, DataModule] = {}
    backbones: dict[str, Backbone] = {}
    for cell in study.cells:
        if cell.key.dataset not in datasets:
            data = build(cell.of_seed(study.seeds[0]).data)
            datasets[cell.key.dataset] = data if study.shortcuts else data.without_shortcuts()
            doing(f"reading the data of {cell.key.dataset}")
            datasets[cell.key.dataset].load()
        if cell.key.backbone not in backbones:
            doing(f"reading the backbone {cell.key.backbone}")
            backbones[cell.key.backbone] = build(cell.backbone)
    for d, data in datasets.items():
        for b, backbone in backbones.items():
            try:
                data.connect(backbone, seed=0)
            except Incompatible as error:
                raise Incompatible(f"dataset {d}, backbone {b}: {error.what}",
                                   error.mend) from error
            if cells := [c for c in study.cells if (c.key.dataset, c.key.backbone) == (d, b)]:
                yield backbone, data, cells
        made.note(d, *data.notes)


def _adapted(cell: Cell, backbone: Backbone, data: DataModule, stage_data: StageData, seed: int
             ) -> tuple[TaskModel, list[str], str, str]:
    """The model of a cell's runs, without weights, notes, and fingerprints of stages and `retain`."""
    notes: list[str] = []
    technique: Technique = build(cell.technique)
    try:
        flatten(cell.config)  # as params, of which no two may have one name
        share_of_batch(data.batch_size, processes_of(cell.trainer))
        _enough(data, processes_of(cell.trainer))
        data = batches.with_streams(data, technique, TrainerSettings(**cell.trainer))
        data.check_plan()
        technique.prepare(data)
        model = backbone.build(data.task, technique.output_type, meta=True)
        model.head_trained |= cell.keeps_head
        before = check_stages(cell.of_seed(seed), backbone, data, model, stage_data) if cell.before else ""
        retain = check_retained(cell, backbone, data, stage_data) if cell.retain else ""
        if cell.quantized:
            check_quantized(cell, data, model)
        technique.bind(model, data.task)
        if cell.trainer["precision"] == "64-true" and quantized_layers(model):
            raise Incompatible("bitsandbytes' layers do not multiply in float64",
                               "leave quantize out, or set another precision")
        if technique.trains and cell.trainer["strategy"] == "fsdp":
            precision.convert(model, cell.trainer["precision"])
            fsdp.check(model, technique.train())
        if technique.trains:
            settings = by_steps.settled(TrainerSettings(**cell.trainer), data)
            notes = [f"{cell.key.technique}: {note}" for note in technique.notes]
            notes += batches.foretell(data, backbone, technique, settings,
                                      lambda: build(cell.technique))
            if settings.checkpoint_activations:
                activation_checkpointing.check_shape(model, next(iter(data.val_dataloader())))
    except InputError as error:
        raise type(error)(f"{cell.key.title}: {error.what}", error.mend) from error
    return model, notes, before, retain


def _frozen_blocks(model: TaskModel) -> int:
    try:
        return leading(model)
    except NotReplayable:
        return 0


def _enough(data: DataModule, devices: int) -> None:
    """A device without an example would keep the others waiting for its metrics."""
    for split in ("train", "validation"):
        if (count := len(data.splits[split])) < devices:
            raise InputError(f"{count} {split} examples for {devices} devices",
                             "lower trainer: {devices: ...}")
