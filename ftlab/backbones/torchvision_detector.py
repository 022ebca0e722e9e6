"""Torchvision's detectors: over any of its classification networks, or pre-trained as a whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models
from torchvision.models import detection
from torchvision.models.detection.retinanet import RetinaNet

from ftlab.backbones.base import Backbone, OutputType, TaskSpec
from ftlab.backbones.detector_builders import (
    FAMILIES,
    Levels,
    assemble,
    configure,
    parts_of,
)
from ftlab.backbones.detector_export import (
    assembled_lines,
    configure_lines,
    detect_lines,
    transform_lines,
    whole_lines,
)
from ftlab.backbones.detector_forward import Detector
from ftlab.backbones.export_code import CodeLines, PlainNetwork
from ftlab.backbones.feature_maps import Tap, choose_taps, cut, find_taps
from ftlab.backbones.find_blocks import find_blocks
from ftlab.backbones.heads.detection_model import DetectionModel, Keep
from ftlab.backbones.preprocessing import ImagePreprocessing
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


class TorchvisionDetector(Backbone):
    """A detector of torchvision: over any classification network, or pre-trained as a whole.

    `architecture` is one of `fasterrcnn` (Ren et al. 2015, https://arxiv.org/abs/1506.01497),
    `retinanet` (Lin et al. 2017, https://arxiv.org/abs/1708.02002), `fcos` (Tian et al. 2019,
    https://arxiv.org/abs/1904.01355) and `ssdlite` (Sandler et al. 2018,
    https://arxiv.org/abs/1801.04381), which are put on a trunk; then the trunk's blocks are the
    model's, and everything on top is new. Or it is the name of one of torchvision's whole
    detectors (`fasterrcnn_resnet50_fpn`, for instance), whose trunk and levels are fixed. With
    `detector_weights` only the class predictors are new, and everything else is in blocks.

    Args:
        architecture: what is put on the trunk, or the name of a whole detector.
        trunk: a classification network, as in torchvision.models; not read for a whole detector.
        weights: of the trunk: a published set (IMAGENET1K_V1, or DEFAULT for the best;
            downloaded), a file (.pth or .safetensors) or package:NAME/PATH; null starts at
            random. Not read where `detector_weights` are given.
        detector_weights: of the whole detector: a published set (COCO_V1, DEFAULT) for a whole
            detector's name, or a file of a detector with the same architecture, trunk and levels.
        sha256: what the fingerprint of the weights must be, or begin with.
        image_size: height and width of the images, where the data module names none; a multiple
            of the coarsest stride. The anchors of `ssdlite` are made for it, so that a data
            module that names another is refused.
        levels: feature maps and anchors.
        keep: which detections are kept.
        proposals: regions an image that `fasterrcnn` looks at.
    """

    def __init__(self, architecture: str, trunk: str = "mobilenet_v2",
                 weights: str | None = "DEFAULT", detector_weights: str | None = None,
                 sha256: str | None = None, image_size: int = 320, levels: Levels = Levels(),
                 keep: Keep = Keep(), proposals: int = 300) -> None:
        for name, value in (("image_size", image_size), ("proposals", proposals)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.architecture = architecture
        self.trunk = trunk
        self.weights = weights
        self.detector_weights = detector_weights
        self.sha256 = sha256
        self.image_size = image_size
        self.levels = levels
        self.keep = keep
        self.proposals = proposals

    @property
    def label(self) -> str:
        """The name in messages."""
        return f"TorchvisionDetector({self._name})"

    @property
    def _name(self) -> str:
        return self.architecture if self._whole else f"{self.architecture}, {self.trunk}"

    @property
    def _whole(self) -> bool:
        return self.architecture not in FAMILIES

    @cached_property
    def preprocessing(self) -> ImagePreprocessing:
        self._check()
        # what torchvision published its detectors with, but for SSD
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        if self._whole:
            if self.architecture.startswith("ssd"):
                transform = self._whole_network(1).transform
                mean, std = tuple(transform.image_mean), tuple(transform.image_std)
        else:
            transforms = published(self.trunk, self._trunk_weights, self.label).transforms()
            mean, std = tuple(transforms.mean), tuple(transforms.std)
        return ImagePreprocessing("images", (self.image_size, self.image_size), mean, std,
                                  fixed_size=self.architecture == "ssdlite",
                                  multiple=self._multiple)

    @property
    def _multiple(self) -> int:
        """The divisor of image sizes, without which anchors would not lie where the maps see.

        Anchors divide the image by a map's size, rounded. Whole detectors take torchvision's own
        rule: 32 for pyramids, anything for SSD.
        """
        if not self._whole:
            return self.levels.strides[-1]
        return 1 if self.architecture.startswith("ssd") else 32

    @property
    def fingerprint(self) -> str:
        """Sha256 of the weight file; of the names and the word random where there is none."""
        return fingerprint(self._file(), self._name)

    def build(self, task: TaskSpec, output_type: OutputType | None = None,
              meta: bool = False) -> DetectionModel:
        if (output_type or task.output_type) != "boxes":
            raise Incompatible(f"{self.label} finds objects in images; it gives no "
                               f"{output_type or task.output_type}", "choose another backbone")
        self._check()
        file = None if meta else self._file()
        if self._whole:
            with torch.device("meta" if meta else "cpu"):
                network = self._whole_network(task.outputs)
        else:
            trunk, taps = self._trunk(None if self.detector_weights else file, meta)
            with torch.device("meta" if meta else "cpu"):
                network = assemble(self.architecture, trunk, taps, task.outputs, self.levels,
                                   self.image_size)
        parts = parts_of(network)
        if file is not None and self.detector_weights:
            load_state(network, read_state(file, self.label), parts.predictors, file, self.label)
        configure(network, self.keep.score, self.keep.overlap, self.keep.most, self.proposals)
        inner = [(name, [f"{parts.trunk}.{path}" for path in paths]) for name, paths
                 in find_blocks(network.get_submodule(parts.trunk), ())]
        pretrained = bool(self.detector_weights)
        blocks = inner + ([(path, [path]) for path in parts.between] if pretrained else [])
        head = parts.predictors if pretrained else parts.new
        model = DetectionModel(Detector(network),
                               [(name, [f"network.{path}" for path in paths])
                                for name, paths in blocks], [f"network.{path}" for path in head])
        if isinstance(network, RetinaNet):  # the mean of its images' losses
            model.batch_loss = ""
        return model

    def export_code(self, model: TaskModel, task: TaskSpec,
                    image_size: tuple[int, int] | None) -> PlainNetwork:
        """The detector as torchvision runs it, which normalises images by itself."""
        network: Any = model.get_submodule("network.network")
        wanted, size = self.preprocessing, image_size or self.preprocessing.size
        built = whole_lines(self.architecture, network, task.outputs) if self._whole else \
            assembled_lines(self.architecture, self.trunk, network, task.outputs, self.levels,
                            self.image_size)
        parts = (built, configure_lines(self.keep, self.proposals),
                 transform_lines(size, wanted.mean, wanted.std, wanted.multiple))
        lines = CodeLines("\n\n".join(part.code.strip() for part in parts),
                          [line for part in parts for line in part.imports], built.packages)
        plain = dataclasses.replace(wanted, mean=(0.0,) * 3, std=(1.0,) * 3)
        return PlainNetwork("torchvision", self._name, lines, network.state_dict(),
                            detect_lines(network, size), {"image_size": size}, plain)

    def _check(self) -> None:
        if not self._whole:
            check_name(self.trunk, self.label)
            if self.architecture == "fcos" and self.levels.width % 32:
                raise InputError(f"{self.label}: levels.width is {self.levels.width}, and FCOS "
                                 "normalises its channels in 32 groups", "take a multiple of 32")
            return
        if "_" not in self.architecture:
            raise InputError(f"{self.label}: no such architecture",
                             f"choose {', '.join(FAMILIES)}, or a whole detector of torchvision")
        check_name(self.architecture, self.label, detection)
        if self.architecture.startswith(("maskrcnn", "keypointrcnn")):
            raise Incompatible(f"{self.label} learns from masks or keypoints, not from boxes alone",
                               "choose a fasterrcnn, retinanet, fcos or ssd")

    @property
    def _trunk_weights(self) -> str | None:
        return None if self.detector_weights else self.weights

    def _file(self) -> Path | None:
        self._check()
        if self.detector_weights is None:
            if self._whole:
                return None
            return weight_file(self.trunk, self.weights, self.sha256, self.label)
        name = self.architecture if self._whole else self.trunk
        if not self._whole and not any(mark in self.detector_weights for mark in "/\\:."):
            raise InputError(f"{self.label}: torchvision publishes no such detector, so "
                             f"detector_weights {self.detector_weights!r} must be a file",
                             "name a file, or a whole detector as the architecture")
        return weight_file(name, self.detector_weights, self.sha256, self.label)

    def _trunk(self, file: Path | None, meta: bool) -> tuple[nn.Module, Sequence[Tap]]:
        pretrained = file is not None
        try:
            taps, order = _taps(self.trunk)
        except (RuntimeError, AssertionError) as error:  # one size alone: ViT, MaxViT
            raise Incompatible(f"{self.label}: the trunk reads images of one size only",
                               "choose a convolutional network or Swin as the trunk") from error
        chosen = choose_taps(taps, self.levels.strides, self.label)
        network = make_network(self.trunk, pretrained, empty=meta or pretrained)
        head = _remove_classifier(network)
        if file is not None:
            load_state(network, read_state(file, self.label), (head,), file, self.label)
        cut(network, order, chosen[-1])
        return network, chosen

    def _whole_network(self, classes: int) -> Any:
        background = 0 if self.architecture.startswith(("retinanet", "fcos")) else 1
        return models.get_model(self.architecture, weights=None, weights_backbone=None,
                                num_classes=classes + background)


@cache
def _taps(trunk: str) -> tuple[dict[int, Tap], list[str]]:
    network = make_network(trunk, pretrained=False, empty=True)
    _remove_classifier(network)
    return find_taps(network.eval())


def _remove_classifier(network: nn.Module) -> str:
    """Take the classifier out of a network; says where it was."""
    path = last_layer(network)[0].split(".")[0]
    network.set_submodule(path, nn.Identity())
    return path
