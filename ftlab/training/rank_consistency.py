"""All ranks of a run start alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from ftlab.errors import GuardFailed


class RankConsistency(Callback):
    """Holds all ranks to the same start, before the first step.

    DDP itself copies the first rank's parameters to the others and never looks at what they had,
    nor at their data, learning rates or settings.

    Args:
        parts: what must be the same, by name; plain data.
    """

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self.parts = parts

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.world_size == 1:
            return
        rates = [{name: value for name, value in group.items() if name != "params"}
                 for optimizer in trainer.optimizers for group in optimizer.param_groups]
        hashes = {name: _hash(part) for name, part in {**self.parts, "optimizer": rates}.items()}
        everyone: list[dict[str, str]] = [{}] * trainer.world_size
        torch.distributed.all_gather_object(everyone, hashes)
        for rank, theirs in enumerate(everyone):
            for name, value in theirs.items():
                if value != everyone[0][name]:
                    raise GuardFailed(f"rank {rank} starts from another {name} than rank 0")


def _hash(part: Any) -> str:
    plain = json.dumps(part, sort_keys=True, default=repr)
    return hashlib.sha256(plain.encode()).hexdigest()
