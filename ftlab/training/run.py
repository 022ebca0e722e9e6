"""One run: a cell of a study with one seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ftlab.backbones.base import Backbone
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.techniques.base import Technique
from ftlab.techniques.head_optimum import Solver
from ftlab.training.carried import Learned, Slot
from ftlab.training.trainer_settings import TrainerSettings


@dataclass
class Stage:
    """A fit before the measured one.

    Attributes:
        technique: adapts the network; what it adds is merged afterwards.
        settings: of the trainer.
        data: of the fit; None for the run's own.
        select_by: chooses the epoch; None for the run's own, or its task's default on other data.
        carry: what goes on to the next fit: the backbone's weights, or the head's too.
        record: the specification.
    """

    technique: Technique
    settings: TrainerSettings
    data: DataModule | None = None
    select_by: str | None = None
    carry: Literal["backbone", "all"] = "backbone"
    record: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """One cell with one seed.

    Attributes:
        backbone, data, technique: fresh objects; the run changes them.
        settings: of the trainer.
        seed: of the head's initialisation, dropout, sampling and augmentation.
        select_by: the validation metric that chooses the epoch.
        directory: an existing, empty folder for everything the run writes.
        record: the specification, which the checkpoint's manifest holds beside the measured.
        plain: without any shortcut.
        before: stages, in order.
        retain: what the pre-trained network knew, which is measured again at the end, by name.
        quantized: names of what the finished model is quantised to and measured as.
        learned: what they have learned.
        begun: is shown the model before it is adapted.
        carried: the model's tensors that the stages have changed.
        head_trained: whether a stage has trained the head.
        solver: computes the optimum of the head in place of epochs, once that is known.
        places: of the model's tensors before it is adapted, where `retain` asks for them.
        begun_at: when it began in this process, of the clock `time.monotonic`.
        seconds_before: that it took in another process, from whose state it continues.
    """

    backbone: Backbone
    data: DataModule
    technique: Technique
    settings: TrainerSettings
    seed: int
    select_by: str
    directory: Path
    record: dict[str, Any] = field(default_factory=dict)
    plain: bool = False
    before: Sequence[Stage] = ()
    learned: Learned | None = None
    begun: Callable[[TaskModel], None] | None = None
    carried: set[Slot] = field(default_factory=set)
    head_trained: bool = False
    solver: Solver | None = None
    retain: Mapping[str, DataModule] = field(default_factory=dict)
    quantized: Sequence[str] = ()
    places: dict[Slot, str] = field(default_factory=dict)
    begun_at: float = field(default_factory=time.monotonic)
    seconds_before: float = 0.0

    @property
    def epochs(self) -> int:
        """Epochs of training; 0 where nothing trains, or the optimum is computed."""
        return self.settings.max_epochs if self.technique.trains and self.solver is None else 0

    def directory_before(self, number: int) -> Path:
        """The folder of a stage, which the run leaves nothing of; stages are numbered from 0."""
        return self.directory / f"before{number + 1}"
