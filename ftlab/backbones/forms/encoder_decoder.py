"""Networks that read one sequence and write another (T5, BART, Whisper)."""

from __future__ import annotations

from typing import Any

from ftlab.backbones.model import TaskModel
from ftlab.backbones.pretrained import Checkpoint
from ftlab.errors import Incompatible


def build_encoder_decoder(checkpoint: Checkpoint, auto: Any) -> TaskModel:
    """To be built."""
    raise Incompatible(f"{checkpoint.label}: not built yet", "wait")
