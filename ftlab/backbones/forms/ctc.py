"""Speech encoders with connectionist temporal classification (Graves et al. 2006)."""

from __future__ import annotations

from typing import Any

from ftlab.backbones.model import TaskModel
from ftlab.backbones.pretrained import Checkpoint
from ftlab.errors import Incompatible


def build_ctc(checkpoint: Checkpoint, auto: Any) -> TaskModel:
    """To be built."""
    raise Incompatible(f"{checkpoint.label}: not built yet", "wait")
