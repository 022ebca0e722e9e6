"""Heads on pooled features, for networks without a head of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ftlab.backbones.model import initialise_linear, last_token
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
        mask = inputs.get("attention_mask")
        if mask is not None:
            pooled = self._pool_text(output.last_hidden_state, mask)
        else:
            pooled = self._pool_image(output)
        return nn.functional.normalize(pooled, dim=-1) if self.normalize else pooled

    def forward(self, output: Any, inputs: Mapping[str, Any]) -> Tensor:
        """Logits (B, C)."""
        return self.linear(self.dropout(self.features(output, inputs)))

    def _pool_text(self, hidden: Tensor, mask: Tensor) -> Tensor:
        hidden = hidden[:, -mask.shape[1]:]  # (B, V + T, D) -> (B, T, D)
        if self.pooling == "last":
            return last_token(hidden, mask)
        if self.pooling == "first":
            return hidden[torch.arange(len(hidden), device=hidden.device), mask.argmax(dim=1)]
        weight = mask.unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
        if self.pooling == "max":
            return hidden.masked_fill(weight == 0, torch.finfo(hidden.dtype).min).amax(dim=1)
        return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)

    def _pool_image(self, output: Any) -> Tensor:
        hidden: Tensor = output.last_hidden_state
        pooler = getattr(output, "pooler_output", None)
        if self.pooling == "mean" and pooler is not None:
            return pooler.flatten(1)
        if hidden.ndim == 4 and self.pooling in ("first", "last"):
            raise Incompatible(f"pooling {self.pooling!r} needs tokens, but the network gives a "
                               f"map of positions {tuple(hidden.shape)}", "use pooling: mean")
        if hidden.ndim == 4:
            hidden = hidden.flatten(2).transpose(1, 2)  # (B, D, H, W) -> (B, H W, D)
        if self.pooling == "max":
            return hidden.amax(dim=1)
        if self.pooling == "mean":
            return hidden.mean(dim=1)
        return hidden[:, 0 if self.pooling == "first" else -1]
