"""One vector a token, from a new head: the architecture's own, or a linear layer on features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.backbones.base import TaskSpec
from ftlab.backbones.find_blocks import find_blocks
from ftlab.backbones.heads.pooled import feature_width, headless, with_own_head
from ftlab.backbones.load_pretrained import Checkpoint
from ftlab.backbones.task_model import Batch, Outputs, TaskModel, initialise_linear
from ftlab.errors import Incompatible

_DROPOUT = 0.1  # before the linear head, as in BERT's own


class PerTokenModel(TaskModel):
    """Outputs are logits (B, T, C) for the T tokens that the batch has."""

    def read(self, output: Any, batch: Batch) -> Outputs:
        # virtual tokens (prompt tuning) stand in front
        return output.logits[:, -batch["inputs"]["attention_mask"].shape[1]:]


class TokenHead(nn.Module):
    """Dropout and a linear layer on the features of each token.

    Args:
        width: of the features, D.
        outputs: of the linear layer, C.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(_DROPOUT)
        self.linear = initialise_linear(nn.Linear(width, outputs))

    def forward(self, output: Any, inputs: Mapping[str, Any]) -> Tensor:
        """Logits (B, T, C) from features (B, V + T, D); V virtual tokens may stand in front."""
        hidden = output.last_hidden_state[:, -inputs["attention_mask"].shape[1]:]
        return self.linear(self.dropout(hidden))


def build_tokens(checkpoint: Checkpoint, task: TaskSpec) -> TaskModel:
    """Build the model of a task whose output type is `tokens`.

    Raises:
        Incompatible: an encoder-decoder for which transformers has no such network.
    """
    auto = checkpoint.own_class(task.auto_classes)
    if auto is None:
        if getattr(checkpoint.config, "is_encoder_decoder", False):
            raise Incompatible(f"{checkpoint.label}: transformers has no network of "
                               f"{checkpoint.config.model_type} that tags tokens",
                               "choose an encoder as the backbone")
        return _with_linear_head(checkpoint, task.outputs)
    return with_own_head(checkpoint, auto, task.outputs, PerTokenModel)


def _with_linear_head(checkpoint: Checkpoint, outputs: int) -> TaskModel:
    width = feature_width(checkpoint.config, checkpoint.label)
    network = headless(checkpoint)
    with torch.device("meta" if checkpoint.meta else "cpu"):
        head = TokenHead(width, outputs)
    return TaskModel(network, find_blocks(network, ()), pooled_head=head.to(checkpoint.dtype))
