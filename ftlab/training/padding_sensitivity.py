"""Networks that read padding, so that an example's score depends on what it is batched with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule

_LOOKED_AT = 256  # validation examples of which the shortest and the longest are taken
_TOLERANCE = 1e-4  # of the loss; rounding is a hundredth of it


def reads_padding(model: TaskModel, data: DataModule,
                  place: Callable[[Mapping[str, Any]], dict[str, Any]]) -> bool:
    """Compare the losses of a short and a long example apart and in one batch: do they differ?

    Some networks mix neighbouring places, or know no mask: FNet, ConvBERT, Funnel, YOSO,
    Nystromformer, CANINE, MobileBERT, and wav2vec2 where it normalises over the whole recording.

    Args:
        model: in eval mode, in single precision; others round too much to tell.
        data: connected.
        place: makes a batch of it one that the model reads.
    """
    lengths = data.lengths("validation")
    if lengths is None or next(model.parameters()).dtype != torch.float32:
        return False
    places = range(min(len(lengths), _LOOKED_AT))
    short, long = min(places, key=lengths.__getitem__), max(places, key=lengths.__getitem__)
    if lengths[short] == lengths[long]:
        return False
    loader: Any = data.val_dataloader()
    rows = loader.dataset[short], loader.dataset[long]

    def weighed(*chosen: Any) -> float:
        batch = place(loader.collate_fn(list(chosen)))
        with torch.no_grad():
            return float(data.task.loss(model(batch), batch)) * float(data.task.weight(batch))

    apart, together = weighed(rows[0]) + weighed(rows[1]), weighed(*rows)
    return math.isfinite(apart) and abs(apart - together) > _TOLERANCE * abs(apart)
