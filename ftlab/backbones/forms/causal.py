"""Language models that continue a text."""

from __future__ import annotations

from typing import Any

from ftlab.backbones.model import TaskModel
from ftlab.backbones.pretrained import Checkpoint
from ftlab.errors import Incompatible


def build_causal(checkpoint: Checkpoint, auto: Any) -> TaskModel:
    """To be built."""
    raise Incompatible(f"{checkpoint.label}: not built yet", "wait")
