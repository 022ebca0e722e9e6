"""Labelled boxes, from a detector whose class predictors are new."""

from __future__ import annotations

from ftlab.backbones.base import TaskSpec
from ftlab.backbones.model import TaskModel
from ftlab.backbones.pretrained import Checkpoint
from ftlab.errors import Incompatible


def build_boxes(checkpoint: Checkpoint, task: TaskSpec) -> TaskModel:
    """To be built."""
    raise Incompatible(f"{checkpoint.label}: not built yet", "wait")
