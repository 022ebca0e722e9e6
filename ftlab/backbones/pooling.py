"""Heads on pooled features, for networks without a head of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ftlab.backbones.passes import last_token
from ftlab.backbones.task_model import initialise_linear
from ftlab.errors import Incompatible

Pooling = Literal["mean", "first", "last", "max"]


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
