"""Vision transformers that reconstruct the pixels of masked patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ftlab.backbones.base import TaskSpec
from ftlab.backbones.find_blocks import find_blocks
from ftlab.backbones.heads.pooled import head_paths, renew, ships_head
from ftlab.backbones.load_pretrained import Checkpoint
from ftlab.backbones.task_model import Batch, Outputs, TaskModel
from ftlab.errors import Incompatible

IMAGES = "AutoModelForMaskedImageModeling"
_TOKEN = "mask_token"


class MaskedImageModel(TaskModel):
    """Outputs are images (B, 3, H, W), of which those patches count that were masked.

    `batch["inputs"]["bool_masked_pos"]` (B, patches), row by row, says which these are.
    """

    def arguments(self, batch: Batch) -> Mapping[str, Any]:
        inputs = self.inputs(batch)
        network: Any = self.trunk
        edge, stride = inputs["pixel_values"].shape[-1], network.config.encoder_stride
        if edge % stride:
            raise Incompatible(f"{network.config.model_type} reconstructs images whose size is a "
                               f"multiple of {stride}, not {edge}",
                               f"set image_size: {max(stride, round(edge / stride) * stride)}")
        network.config.image_size = edge  # transformers' own loss, which is not read, has this size
        return inputs

    def read(self, output: Any, batch: Batch) -> Outputs:
        return output.reconstruction


def build_masked_image(checkpoint: Checkpoint, task: TaskSpec) -> TaskModel:
    """Build the model of a task that reconstructs masked images.

    The head is the decoder, one linear layer from each feature to the pixels that it stands for,
    and the mask token, which stands for masked patches among the embeddings. Both are the
    checkpoint's own where it has them, and start at random where it has not. The mask token then
    has SimMIM's initialisation: transformers' zeros are a point at which the norm after it (Swin)
    has a slope of hundreds.

    Xie et al. (2022), https://arxiv.org/abs/2111.09886

    Raises:
        Incompatible: the architecture reconstructs no images.
    """
    auto, config = checkpoint.own_class([IMAGES]), checkpoint.config
    if auto is None:
        raise Incompatible(f"{checkpoint.label}: transformers has no {config.model_type} that "
                           "reconstructs masked images", "choose a ViT, DeiT or Swin as the backbone")
    # the published checkpoints of ViT and DeiT have 16 here whatever their patches are
    stages = getattr(config, "depths", None) or [1]
    config.encoder_stride = config.patch_size * 2 ** (len(stages) - 1)
    network = checkpoint.network(auto, new=_head)
    decoder, head = head_paths(network), _head(network)
    trained = ships_head(checkpoint, network, head)
    if not trained and not checkpoint.meta:
        for path in decoder:
            renew(network, path)
        for path in head[len(decoder):]:
            with torch.no_grad():
                nn.init.trunc_normal_(network.get_parameter(path), std=0.02)
    # the blocks of a classifier: the mask token lies in one of them, and is the head's
    model = MaskedImageModel(network, find_blocks(network, decoder), head)
    model.head_trained = trained
    return model


def _head(network: nn.Module) -> list[str]:
    """The decoder, and the mask token."""
    tokens = [name for name, _ in network.named_parameters() if name.split(".")[-1] == _TOKEN]
    return [*head_paths(network), *tokens]
