"""Embeddings that compare with those of texts."""

from __future__ import annotations

from ftlab.backbones.model import TaskModel
from ftlab.backbones.pooling import Pooling
from ftlab.backbones.pretrained import Checkpoint
from ftlab.errors import Incompatible


def build_embedding(checkpoint: Checkpoint, pooling: Pooling | None) -> TaskModel:
    """To be built."""
    raise Incompatible(f"{checkpoint.label}: not built yet", "wait")
