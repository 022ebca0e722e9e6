"""The contract of a detector: what a model of boxes takes and gives, from whichever library.

A target is a list of one mapping an image: `boxes` (N, 4), float, x1 y1 x2 y2 in pixels of the
input; `labels` (N,), from 0; `ignored` (N,), bool, for objects that neither train nor count.

Outputs are a mapping: `losses`, scalars by name that add up to the network's own loss (where the
batch has a target); `raw`, what the heads say before anything is picked from it; `detections`
(in eval mode), one mapping an image with `boxes` (M, 4), `scores` and `labels` (M,), best first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftlab.backbones.passes import tensors
from ftlab.backbones.task_model import Batch, Outputs, TaskModel

Targets = Sequence[Mapping[str, Tensor]]


@dataclass(frozen=True)
class Keep:
    """Which detections of an image are kept.

    Args:
        score: the smallest score.
        overlap: intersection over union above which the weaker of two boxes of a class is
            dropped; not used by the transformers detectors, which need no such step.
        most: detections an image; the COCO metrics count 100.
    """

    score: float = 0.05
    overlap: float = 0.5
    most: int = 100

    def __post_init__(self) -> None:
        for name in ("score", "overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        if self.most < 1:
            raise ValueError(f"most must be at least 1, got {self.most}")


class DetectionModel(TaskModel):
    """A detector: losses where there is a target, detections in eval mode.

    Its own mode decides, not the network's: frozen parts of a network stay in eval mode.
    """

    batch_loss = "the detector's loss is divided by what it matches in each batch"

    def arguments(self, batch: Batch) -> Mapping[str, Any]:
        return {**self.inputs(batch), "targets": wanted(batch), "detect": not self.training}

    def comparable(self, outputs: Outputs) -> list[Tensor]:
        """The heads' outputs at every place: detections picked from them would jump."""
        return tensors(outputs["raw"])


def wanted(batch: Batch) -> list[dict[str, Tensor]] | None:
    """The batch's targets without ignored objects; None where there is no target."""
    if "target" not in batch:
        return None
    return [{name: target[name][~target["ignored"]] for name in ("boxes", "labels")}
            for target in batch["target"]]


@contextmanager
def repeatable(active: bool, device: torch.device) -> Iterator[None]:
    """Inside, what is drawn at random is the same each time; the generators are put back."""
    if not active:
        yield
        return
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        yield
