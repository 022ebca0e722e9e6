"""Heads on pooled features, for networks without a head of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ftlab.backbones.passes import last_token
from ftlab.backbones.task_model import initialise_linear
from ftlab.backbones.untrusted_settings import read_json
from ftlab.errors import Incompatible, InputError

Pooling = Literal["mean", "first", "last", "max"]
_SENTENCE_TRANSFORMERS: dict[str, Pooling] = {
    "mean_tokens": "mean", "mean": "mean", "cls_token": "first", "cls": "first",
    "max_tokens": "max", "max": "max", "lasttoken": "last"}


def folder_pooling(folder: Path) -> Pooling | None:
    """The pooling that a sentence-transformers folder says; None where it says none.

    Raises:
        InputError: it is one that is not known here.
    """
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return None
    settings = read_json(path)
    modes = [name.removeprefix("pooling_mode_") for name, value in settings.items()
             if name.startswith("pooling_mode_") and value is True]
    if isinstance(mode := settings.get("pooling_mode"), str):
        modes = [mode]
    if len(modes) != 1 or modes[0] not in _SENTENCE_TRANSFORMERS:
        raise InputError(f"{path}: pooling {' + '.join(modes) or 'nothing'} is not supported",
                         "set pooling to mean, first, last or max")
    return _SENTENCE_TRANSFORMERS[modes[0]]


class PooledHead(nn.Module):
    """Pooled features, dropout, and a linear layer.

    Texts are pooled over their real tokens, whichever side is padded. With virtual tokens in front
    (prompt tuning) the network returns more tokens than it was given; the last T are pooled.
    Images without a mask: `mean` is the network's `pooler_output` where it gives one, else the
    mean over tokens or positions.

    Args:
        width: of the features, D.
        outputs: of the linear layer, C.
        pooling: `mean`, `max`, `first` or `last` token.
        dropout: probability, between features and linear layer.
        normalize: scale each example's features to unit length (L2), as sentence-transformers'
            Normalize does; off, because it caps what a linear head can express.
    """

    def __init__(self, width: int, outputs: int, pooling: Pooling = "mean", dropout: float = 0.1,
                 normalize: bool = False) -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling must be one of {get_args(Pooling)}, got {pooling!r}")
        self.pooling = pooling
        self.normalize = normalize
        self.dropout = nn.Dropout(dropout)
        self.linear = initialise_linear(nn.Linear(width, outputs))

    def features(self, output: Any, inputs: Mapping[str, Any]) -> Tensor:
        """Pooled features (B, D) of what the network returned for `inputs`.

        Raises:
            Incompatible: tokens are asked for where the network gives a map of positions.
        """
        pooled = pool(output, inputs, self.pooling)
        return nn.functional.normalize(pooled, dim=-1) if self.normalize else pooled

    def forward(self, output: Any, inputs: Mapping[str, Any]) -> Tensor:
        """Logits (B, C)."""
        return self.linear(self.dropout(self.features(output, inputs)))


def pool(output: Any, inputs: Mapping[str, Any], pooling: Pooling) -> Tensor:
    """Pooled features (B, D) of what a headless network returned for `inputs`.

    Raises:
        Incompatible: tokens are asked for where the network gives a map of positions.
    """
    mask = inputs.get("attention_mask")
    if mask is not None:
        return _pool_text(output.last_hidden_state, mask, pooling)
    return _pool_image(output, pooling)


def _pool_text(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    hidden = hidden[:, -mask.shape[1]:]  # (B, V + T, D) -> (B, T, D)
    if pooling == "last":
        return last_token(hidden, mask)
    if pooling == "first":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.argmax(dim=1)]
    weight = mask.unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
    if pooling == "max":
        return hidden.masked_fill(weight == 0, torch.finfo(hidden.dtype).min).amax(dim=1)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)


def _pool_image(output: Any, pooling: Pooling) -> Tensor:
    hidden: Tensor = output.last_hidden_state
    pooler = getattr(output, "pooler_output", None)
    if pooling == "mean" and pooler is not None:
        return pooler.flatten(1)
    if hidden.ndim == 4 and pooling in ("first", "last"):
        raise Incompatible(f"pooling {pooling!r} needs tokens, but the network gives a "
                           f"map of positions {tuple(hidden.shape)}", "use pooling: mean")
    if hidden.ndim == 4:
        hidden = hidden.flatten(2).transpose(1, 2)  # (B, D, H, W) -> (B, H W, D)
    if pooling == "max":
        return hidden.amax(dim=1)
    if pooling == "mean":
        return hidden.mean(dim=1)
    return hidden[:, 0 if pooling == "first" else -1]
