"""A detector of torchvision as lines that need torchvision alone.

A detector on a trunk is put together by the source of the functions that built it here: one text,
so that the two cannot differ.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.ssd import SSD

from ftlab.backbones import detector_builders as builders
from ftlab.backbones import feature_maps as maps
from ftlab.backbones.export_code import CodeLines
from ftlab.backbones.heads.detection_model import Keep
from ftlab.backbones.weight_files import make_network

_WHOLE = """
model = torchvision.models.get_model(
    {name!r}, weights=None, weights_backbone=None, num_classes={labels})
"""
_ASSEMBLED = """
_SCALES = {scales}

{sources}

body = torchvision.models.get_model({trunk!r}, weights=None{options})
for unused in {unused}:  # what follows the last map
    body.set_submodule(unused, nn.Identity())
taps = {taps}
model = assemble({architecture!r}, body, taps, {classes}, {levels}, {image_size})
"""
_CONFIGURE = """
{source}

configure(model, {keep.score}, {keep.overlap}, {keep.most}, {proposals})
"""
_TRANSFORM = """
# as every detector of torchvision, `model` takes a list of images with values from 0 to 1, of any
# size; `prepare` below resizes them as in training, antialiased
model.transform = GeneralizedRCNNTransform(
    {low}, {high}, {mean}, {std},
    size_divisible={multiple}, fixed_size=({width}, {height}))
"""
_DETECT = """
def detect(images):  # one, with values from 0 to 1: (1, 3, {height}, {width})
    found = model(list(images))[0]
    return found["boxes"], found["labels"]{offset}, found["scores"]
"""
_DETECTION = "from torchvision.models.detection."
_IMPORTS = (
    "import torchvision", "from collections import OrderedDict",
    "from collections.abc import Mapping", "from collections.abc import Sequence",
    "from dataclasses import dataclass", "from functools import partial",
    "from torch import Tensor", "from torch import nn",
    "from torch.nn.functional import max_pool2d", "from typing import Any",
    *(f"from torchvision.ops import {name}" for name in (
        "Conv2dNormActivation", "FeaturePyramidNetwork", "MultiScaleRoIAlign")),
    *(f"{_DETECTION}anchor_utils import {name}"
      for name in ("AnchorGenerator", "DefaultBoxGenerator")),
    *(f"{_DETECTION}faster_rcnn import {name}"
      for name in ("FasterRCNN", "FastRCNNPredictor", "TwoMLPHead")),
    f"{_DETECTION}fcos import FCOS", f"{_DETECTION}retinanet import RetinaNet",
    f"{_DETECTION}ssd import SSD", f"{_DETECTION}ssdlite import SSDLiteHead",
)
"""Names that the sources of `feature_maps` and `detector_builders` use."""


def whole_lines(name: str, network: nn.Module, classes: int) -> CodeLines:
    """Write the lines for one of torchvision's whole detectors.

    Args:
        name: in torchvision.models.
        network: as it was built.
        classes: of objects.
    """
    code = _WHOLE.format(name=name, labels=classes + background(network))
    return CodeLines(code, ["import torchvision"], ["torchvision"])


def assembled_lines(architecture: str, trunk: str, network: Any, classes: int,
                    levels: builders.Levels, image_size: int) -> CodeLines:
    """Write the lines for a detector that was put on a trunk.

    Args:
        architecture: one of `detector_builders.FAMILIES`.
        trunk: its name in torchvision.models.
        network: as it was built; its trunk is read off it.
        classes: of objects.
        levels: strides, widths and anchors.
        image_size: in pixels.
    """
    source = network.backbone.trunk
    neck: tuple[Any, ...] = (maps.Pyramid,)
    if not isinstance(network.backbone, maps.Pyramid):
        neck = (maps._extra_layer, maps.ExtraLayers, builders._ssdlite)
    parts = (maps.Tap, maps.Trunk, builders.Levels, *neck, builders.assemble)
    code = _ASSEMBLED.format(
        scales=builders._SCALES, sources="\n\n".join(map(inspect.getsource, parts)), trunk=trunk,
        options=_options(source.body), unused=_unused(trunk, source.body), taps=list(source.taps),
        architecture=architecture, classes=classes, levels=levels, image_size=image_size)
    return CodeLines(code, _IMPORTS, ["torchvision"])


def configure_lines(keep: Keep, proposals: int) -> CodeLines:
    """Write the lines that set which detections are kept.

    Args:
        keep: of the detections.
        proposals: of a Faster R-CNN.
    """
    source = inspect.getsource(builders.configure)
    return CodeLines(_CONFIGURE.format(source=source, keep=keep, proposals=proposals),
                     ["from typing import Any"])


def transform_lines(image_size: tuple[int, int], mean: Any, std: Any, multiple: int) -> CodeLines:
    """Write the lines of the transform that makes a batch of images with values from 0 to 1."""
    height, width = image_size
    code = _TRANSFORM.format(low=min(image_size), high=max(image_size), mean=list(mean),
                             std=list(std), multiple=multiple, width=width, height=height)
    return CodeLines(code, [f"{_DETECTION}transform import GeneralizedRCNNTransform"])


def detect_lines(network: nn.Module, image_size: tuple[int, int]) -> str:
    """Write the definition of `detect`."""
    height, width = image_size
    return _DETECT.format(height=height, width=width, offset=" - 1" * background(network))


def background(network: nn.Module) -> int:
    """Count the labels in front of those of the classes."""
    return 1 if isinstance(network, FasterRCNN | SSD) else 0


def _options(body: Any) -> str:
    if not hasattr(body, "transform_input"):  # GoogLeNet, Inception
        return ""
    return f", aux_logits=False, init_weights=False, transform_input={body.transform_input}"


def _unused(name: str, body: nn.Module) -> Sequence[str]:
    """Paths in a classification network, by its name, of what `body` lacks of it."""
    kept = {path for path, module in body.named_modules() if not isinstance(module, nn.Identity)}
    unused: list[str] = []
    for path, module in make_network(name, pretrained=False, empty=True).named_modules():
        if path not in kept and not isinstance(module, nn.Identity) \
                and not any(path.startswith(f"{above}.") for above in unused):
            unused.append(path)
    return unused
