"""Torchvision's segmentation networks: on a trunk with weights, or pre-trained as a whole."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import segmentation

from ftlab.backbones.base import Backbone, OutputType, TaskSpec
from ftlab.backbones.find_blocks import find_blocks, with_dropout
from ftlab.backbones.preprocessing import ImagePreprocessing
from ftlab.backbones.task_model import Batch, Outputs, TaskModel
from ftlab.backbones.weight_files import (
    check_name,
    fingerprint,
    last_layer,
    load_state,
    make_network,
    published,
    read_state,
    weight_file,
)
from ftlab.errors import Incompatible

_TOP = "classifier"


class TorchvisionSegmenter(Backbone):
    """A segmentation network of torchvision.

    FCN: Long, Shelhamer, Darrell (2015), https://arxiv.org/abs/1411.4038. DeepLabv3: Chen,
    Papandreou, Schroff, Adam (2017), https://arxiv.org/abs/1706.05587. LR-ASPP: Howard et al.
    (2019), https://arxiv.org/abs/1905.02244. With `weights` of its trunk alone everything on top is
    the new head; with `segmenter_weights` only the layers that say the class are, and the rest of
    the top is the last block. The auxiliary classifier, which only training from the start needs,
    is left out.

    Args:
        name: as in torchvision.models.segmentation, for instance lraspp_mobilenet_v3_large.
        weights: of the trunk: a published set (IMAGENET1K_V1, or DEFAULT for the best; downloaded),
            a file (.pth or .safetensors) or package:NAME/PATH; null starts at random. Not read
            where `segmenter_weights` are given.
        segmenter_weights: of the whole network: a published set (COCO_WITH_VOC_LABELS_V1, DEFAULT)
            or a file.
        sha256: what the fingerprint of the weights must be, or begin with.
        dropout: replaces the probability of every dropout layer; null leaves them.
        image_size: height and width of the images, where the data module names none.
    """

    def __init__(self, name: str, weights: str | None = "DEFAULT", segmenter_weights: str | None = None,
                 sha256: str | None = None, dropout: float | None = None, image_size: int = 512) -> None:
        if dropout is not None and not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        if image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        self.name = name
        self.weights = weights
        self.segmenter_weights = segmenter_weights
        self.sha256 = sha256
        self.dropout = dropout
        self.image_size = image_size

    @property
    def label(self) -> str:
        """The name in messages."""
        return f"TorchvisionSegmenter({self.name}, {self.segmenter_weights or self.weights})"

    @cached_property
    def _trunk(self) -> str:
        """The classification network that it stands on."""
        return check_name(self.name, self.label, segmentation).partition("_")[2]

    @cached_property
    def preprocessing(self) -> ImagePreprocessing:
        transforms = published(*self._source, self.label).transforms()
        return ImagePreprocessing("input" if self.name.startswith("lraspp") else "x",
                                  (self.image_size, self.image_size), tuple(transforms.mean),
                                  tuple(transforms.std), transforms.interpolation.value)

    @property
    def fingerprint(self) -> str:
        """Sha256 of the weight file; of the name and the word random where there is none."""
        return fingerprint(self._file(), self.name)

    def build(self, task: TaskSpec, output_type: OutputType | None = None,
              meta: bool = False) -> TaskModel:
        if (output_type or task.output_type) != "pixels":
            raise Incompatible(f"{self.label} segments images; it gives no "
                               f"{output_type or task.output_type}", "choose another backbone")
        file = self._file() if not meta else None
        with torch.device("meta" if meta else "cpu"):
            network: Any = models.get_model(self.name, weights=None, weights_backbone=None,
                                            num_classes=task.outputs)
        predictors = _predictors(network, task.outputs)
        if file is not None:
            state = read_state(file, self.label)
            state, new = ((state, predictors) if self.segmenter_weights
                          else (_of_trunk(self._trunk, state), [_TOP]))
            load_state(network, state, tuple(new), file, self.label)
        for module in network.modules():
            if self.dropout is not None and isinstance(module, nn.Dropout):
                module.p = self.dropout
        blocks = find_blocks(network, [_TOP])
        if self.segmenter_weights:
            return _Segmenter(network, [*blocks, (_TOP, [_TOP])], with_dropout(network, predictors))
        return _Segmenter(network, blocks, [_TOP])

    @property
    def _source(self) -> tuple[str, str | None]:
        """The network that the weights are of, and the weights."""
        trunk = self._trunk
        return (self.name, self.segmenter_weights) if self.segmenter_weights else (trunk, self.weights)

    def _file(self) -> Path | None:
        name, weights = self._source
        return weight_file(name, weights, self.sha256, self.label)


class _Segmenter(TaskModel):
    """Outputs are logits (B, C, h, w) of the images' size."""

    def read(self, output: Any, batch: Batch) -> Outputs:
        return output["out"]


def _predictors(network: nn.Module, classes: int) -> list[str]:
    """Paths of the layers that give a number a class: the last one, or LR-ASPP's two."""
    top = network.get_submodule(_TOP)
    pair = [name for name, _ in top.named_children() if name.endswith("_classifier")]
    return [f"{_TOP}.{name}" for name in pair or [last_layer(top)[0]]]


def _of_trunk(trunk: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A classification network's tensors under the names of a segmentation network's trunk."""
    head = last_layer(make_network(trunk, pretrained=True, empty=True))[0].split(".")[0]
    return {f"backbone.{name.removeprefix('features.')}": tensor
            for name, tensor in state.items() if not name.startswith(f"{head}.")}
