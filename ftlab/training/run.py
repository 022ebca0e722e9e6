"""One run: a cell of a study with one seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftlab.backbones.base import Backbone
from ftlab.data.base import DataModule
from ftlab.techniques.base import Technique
from ftlab.techniques.head_optimum import Solver
from ftlab.training.trainer_settings import TrainerSettings


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
        solver: computes the optimum of the head in place of epochs, once that is known.
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
    solver: Solver | None = None

    @property
    def epochs(self) -> int:
        """Epochs of training; 0 where nothing trains, or the optimum is computed."""
        return self.settings.max_epochs if self.technique.trains and self.solver is None else 0
