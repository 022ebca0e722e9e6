"""Torchvision's classification networks."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models.vision_transformer import interpolate_embeddings

from ftlab.backbones.base import Backbone, OutputType, TaskSpec
from ftlab.backbones.export_code import CodeLines, PlainNetwork
from ftlab.backbones.find_blocks import find_blocks, with_dropout
from ftlab.backbones.preprocessing import ImagePreprocessing
from ftlab.backbones.source_layer import SourceLayer, lacking, source_layer
from ftlab.backbones.task_model import TaskModel
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
from ftlab.errors import Incompatible, InputError

_CALL = """
def compute(x):
    return model(x)
"""


class Torchvision(Backbone):
    """A classification network of torchvision; its last layer is replaced by a new head.

    Args:
        name: as in torchvision.models, for instance mobilenet_v2.
        weights: a published set (IMAGENET1K_V1, or DEFAULT for the best; downloaded), a file
            (.pth or .safetensors) or package:NAME/PATH; null starts at random. A file name that
            carries a hash, as torchvision's do, is held to it.
        sha256: what the fingerprint of the weights must be, or begin with.
        dropout: replaces the probability of every dropout layer (not stochastic depth); null
            leaves them.
        image_size: height and width of the images; null takes what the weights were trained with.
            A vision transformer's position embeddings are interpolated to it.
    """

    def __init__(self, name: str, weights: str | None = "DEFAULT", sha256: str | None = None,
                 dropout: float | None = None, image_size: int | None = None) -> None:
        if dropout is not None and not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        self.name = name
        self.weights = weights
        self.sha256 = sha256
        self.dropout = dropout
        self.image_size = image_size

    @property
    def label(self) -> str:
        """The name in messages."""
        return f"Torchvision({self.name}, {self.weights})"

    @cached_property
    def preprocessing(self) -> ImagePreprocessing:
        transforms = published(self._known_name, self.weights, self.label).transforms()
        edge = self.image_size or transforms.crop_size[0]
        return ImagePreprocessing("x", (edge, edge), tuple(transforms.mean), tuple(transforms.std),
                                  transforms.interpolation.value, self._fixed)

    @property
    def fingerprint(self) -> str:
        """Sha256 of the weight file; of the name and the word random where there is none."""
        return fingerprint(self._weights(), self.name)

    def build(self, task: TaskSpec, output_type: OutputType | None = None,
              meta: bool = False) -> TaskModel:
        if (output_type or task.output_type) != "vector":
            raise Incompatible(f"{self.label} classifies images; it gives no "
                               f"{output_type or task.output_type}", "choose another backbone")
        file = None if meta else self._weights()
        network = self._network(empty=meta or file is not None)
        path, layer = last_layer(network)
        if file is not None:
            self._load(network, file, path)
        with torch.device("meta" if meta else "cpu"):
            network.set_submodule(path, _like(layer, task.outputs))
        for module in network.modules():
            if self.dropout is not None and isinstance(module, nn.Dropout):
                module.p = self.dropout
        head = with_dropout(network, [path])
        return TaskModel(network, find_blocks(network, head), head)

    def export_code(self, model: TaskModel, task: TaskSpec,
                    image_size: tuple[int, int] | None) -> PlainNetwork:
        options: dict[str, Any] = {"num_classes": task.outputs, "weights": None, **self._size}
        if self.name in ("googlenet", "inception_v3"):
            options |= {"aux_logits": False, "init_weights": False,
                        "transform_input": self.weights is not None}
        arguments = "".join(f", {name}={value!r}" for name, value in options.items())
        build = CodeLines(f"model = torchvision.models.get_model({self.name!r}{arguments})",
                      ["import torchvision"], ["torchvision"])
        return PlainNetwork("torchvision", self.name, build, model.network.state_dict(), _CALL,
                            {"options": options})

    def source_layer(self, path: str) -> SourceLayer:
        file = self._weights()
        if file is None:
            raise lacking(f"{self.label}: its weights are random, and so would a classifier be")
        return source_layer(read_state(file, self.label), path, self.label)

    @cached_property
    def _known_name(self) -> str:
        return check_name(self.name, self.label)

    @property
    def _fixed(self) -> bool:
        return self._known_name.startswith(("vit_", "maxvit_"))

    @property
    def _size(self) -> dict[str, Any]:
        """The argument that makes a transformer for images of another size."""
        if self.image_size is None or not self._fixed:
            return {}
        if self._known_name.startswith("vit_"):
            return {"image_size": self.image_size}
        return {"input_size": (self.image_size, self.image_size)}

    def _network(self, empty: bool) -> nn.Module:
        try:
            return make_network(self._known_name, self.weights is not None, empty, **self._size)
        except (ValueError, AssertionError) as error:  # torchvision asserts the patch size
            raise InputError(f"{self.label}: image_size {self.image_size} does not fit: {error}",
                             "leave image_size out, or take a multiple of the patch size") from None

    def _weights(self) -> Path | None:
        return weight_file(self._known_name, self.weights, self.sha256, self.label)

    def _load(self, network: nn.Module, file: Path, head: str) -> None:
        state = read_state(file, self.label)
        if self.image_size is not None and self._known_name.startswith("vit_"):
            patch = network.get_parameter("conv_proj.weight").shape[-1]
            state = interpolate_embeddings(self.image_size, patch, state)
        load_state(network, state, (head,), file, self.label)


def _like(layer: Any, outputs: int) -> nn.Module:
    """A new layer of another width, with torch's own initialisation."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, outputs, bias=bias)
    return nn.Conv2d(layer.in_channels, outputs, layer.kernel_size, bias=bias)
