"""Torchvision's detectors, put on a trunk, and the parts that they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import MultiScaleRoIAlign

from ftlab.backbones.feature_maps import ExtraLayers, Pyramid, Tap, Trunk

FAMILIES = ("fasterrcnn", "retinanet", "fcos", "ssdlite")
_SCALES = {"fasterrcnn": (4.0,), "retinanet": (4.0, 4.0 * 2 ** (1 / 3), 4.0 * 2 ** (2 / 3)),
           "ssdlite": (3.0,)}


@dataclass(frozen=True)
class Levels:
    """The feature maps that a detector looks at, and the anchors in them.

    Args:
        strides: pixels of the image a position of each map, each twice the one before; beyond
            the trunk's coarsest map they are made from it.
        width: channels of the pyramid's maps (of the further layers, for `ssdlite`); the box
            head of `fasterrcnn` is eight times as wide.
        anchor_scales: edges of the anchors in strides; null takes the architecture's own (for
            `ssdlite` one; `fcos` has no anchors).
        aspect_ratios: height over width of the anchors (`fcos` has none).
    """

    strides: tuple[int, ...] = (8, 16, 32)
    width: int = 128
    anchor_scales: tuple[float, ...] | None = None
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)

    def __post_init__(self) -> None:
        doubled = all(b == 2 * a for a, b in zip(self.strides, self.strides[1:], strict=False))
        if not self.strides or not doubled or self.strides[0] < 1:
            raise ValueError("strides must be positive, each twice the one before, got "
                             f"{self.strides}")
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")
        for name in ("anchor_scales", "aspect_ratios"):
            values = getattr(self, name)
            if values is not None and (not values or min(values) <= 0):
                raise ValueError(f"{name} must be above 0, got {values}")


@dataclass(frozen=True)
class Parts:
    """Paths within a detector.

    Attributes:
        trunk: the classification network.
        between: trained with a whole detector, and new on a bare trunk.
        predictors: what depends on the classes.
        new: what is new on a bare trunk, each parameter once.
    """

    trunk: str
    between: tuple[str, ...]
    predictors: tuple[str, ...]

    @property
    def new(self) -> tuple[str, ...]:
        return (*self.between, *self.predictors)


def assemble(architecture: str, trunk: nn.Module, taps: Sequence[Tap], classes: int,
             levels: Levels, image_size: int) -> nn.Module:
    """A detector of one of `FAMILIES` on a trunk, everything on top at random.

    Args:
        architecture: which.
        trunk: the classification network without its classifier.
        taps: of the strides that the trunk has.
        classes: of objects, without the background.
        levels: strides, widths and anchors.
        image_size: in pixels, to which SSD's boxes are relative.
    """
    source = Trunk(trunk, taps)
    further = len(levels.strides) - len(taps)
    if architecture == "ssdlite":
        return _ssdlite(ExtraLayers(source, levels.width, further), classes, levels, image_size)
    pyramid = Pyramid(source, levels.width, further)
    if architecture == "fcos":
        plain = AnchorGenerator(tuple((stride,) for stride in levels.strides),
                                ((1.0,),) * len(levels.strides))
        return FCOS(pyramid, classes, anchor_generator=plain)
    scales = levels.anchor_scales or _SCALES[architecture]
    anchors = AnchorGenerator(tuple(tuple(round(s * stride) for s in scales)
                                    for stride in levels.strides),
                              (tuple(levels.aspect_ratios),) * len(levels.strides))
    if architecture == "retinanet":
        return RetinaNet(pyramid, classes, anchor_generator=anchors)
    names = [str(i) for i in range(len(levels.strides))]
    hidden = 8 * levels.width
    return FasterRCNN(pyramid, rpn_anchor_generator=anchors,
                      box_roi_pool=MultiScaleRoIAlign(names, output_size=7, sampling_ratio=2),
                      box_head=TwoMLPHead(levels.width * 49, hidden),
                      box_predictor=FastRCNNPredictor(hidden, classes + 1),
                      box_batch_size_per_image=128)


def _ssdlite(trunk: ExtraLayers, classes: int, levels: Levels, image_size: int) -> nn.Module:
    scale = (levels.anchor_scales or _SCALES["ssdlite"])[0]
    # one more scale than maps: SSD adds boxes between each map's scale and the next one's
    scales = [min(1.0, scale * stride / image_size)
              for stride in (*levels.strides, 2 * levels.strides[-1])]
    others = [ratio for ratio in levels.aspect_ratios if ratio > 1]  # SSD adds their inverses
    boxes = DefaultBoxGenerator([others] * len(levels.strides), scales=scales)
    head = SSDLiteHead(trunk.channels, boxes.num_anchors_per_location(), classes + 1,
                       partial(nn.BatchNorm2d, eps=0.001, momentum=0.03))
    return SSD(trunk, boxes, (image_size, image_size), classes + 1, head=head)


def configure(network: Any, score: float, overlap: float, most: int, proposals: int) -> None:
    """Set which detections are kept, and the same number of proposals in every mode.

    Args:
        network: a detector.
        score: the smallest score.
        overlap: intersection over union above which the weaker of two boxes of a class is dropped.
        most: detections an image.
        proposals: of a Faster R-CNN.
    """
    heads = getattr(network, "roi_heads", network)
    heads.score_thresh, heads.nms_thresh = score, overlap
    heads.detections_per_img = most
    if hasattr(network, "rpn"):
        counts = {"training": proposals, "testing": proposals}
        network.rpn._pre_nms_top_n = network.rpn._post_nms_top_n = counts


def parts_of(network: Any) -> Parts:
    """The parts of a detector that `assemble` or torchvision made."""
    ours = isinstance(network.backbone, Pyramid | ExtraLayers)
    if isinstance(network, SSD):
        between = ["head.regression_head"]
        predictors = ("head.classification_head",)
        if ours:
            return Parts("backbone.trunk.body", ("backbone.extra", *between), predictors)
        extra = ["extra", "scale_weight"]
        body = [name for name, _ in network.backbone.named_children() if name not in extra]
        joined = [f"backbone.{name}" for name in extra if hasattr(network.backbone, name)]
        return Parts(f"backbone.{body[0]}", (*joined, *between), predictors)
    neck = ("backbone.trunk.body", "backbone.fpn") if ours else ("backbone.body", "backbone.fpn")
    if isinstance(network, FasterRCNN):
        return Parts(neck[0], (neck[1], "rpn", "roi_heads.box_head"), ("roi_heads.box_predictor",))
    inner = [f"head.classification_head.{name}"
             for name, _ in network.head.classification_head.named_children()
             if name != "cls_logits"]
    return Parts(neck[0], (neck[1], *inner, "head.regression_head"),
                 ("head.classification_head.cls_logits",))
