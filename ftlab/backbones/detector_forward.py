"""Torchvision's detectors, run so that one pass gives losses and detections.

Torchvision's own `forward` gives the one in training and the other in evaluation; the parts it is
made of are called here in the same order (a test holds losses and detections to it).

Boxes are at least float32 whatever the network computes in: bfloat16 distinguishes pixels up to 256
only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from ftlab.backbones.heads.detection_model import Targets, repeatable

Outputs = dict[str, Any]


class Detector(nn.Module):
    """A detector of torchvision on images that are normalised and of one size.

    Args:
        network: FasterRCNN, RetinaNet, FCOS or SSD; its `transform` is not used.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        network.transform = nn.Identity()
        self.network = network

    def forward(self, images: Tensor, targets: Targets | None = None,
                detect: bool = True) -> Outputs:
        """See `ftlab.backbones.heads.detection_model`; images are (B, 3, H, W)."""
        batch = ImageList(images, [tuple(images.shape[-2:])] * len(images))
        offset = 1 if isinstance(self.network, FasterRCNN | SSD) else 0  # 0 is the background
        if targets is not None:
            targets = [{**target, "labels": target["labels"] + offset} for target in targets]
        with repeatable(detect, images.device):
            outputs = _PASSES[type(self.network)](self.network, batch, targets, detect)
        for detection in outputs["detections"]:
            detection["labels"] = detection["labels"] - offset
        return outputs


def _faster_rcnn(network: Any, images: ImageList, targets: Targets | None,
                 detect: bool) -> Outputs:
    features = network.backbone(images.tensors)
    rpn, sizes = network.rpn, images.image_sizes
    maps = list(features.values())
    objectness, deltas = rpn.head(maps)
    anchors = rpn.anchor_generator(images, _stand_ins(maps))
    counts = [level[0].numel() for level in objectness]
    objectness, deltas = (_wide(x) for x in concat_box_prediction_layers(objectness, deltas))
    proposals = rpn.box_coder.decode(deltas.detach(), anchors).view(len(anchors), -1, 4)
    proposals, _ = rpn.filter_proposals(proposals, objectness, sizes, counts)
    losses: dict[str, Tensor] = {}
    if targets is not None:
        labels, matched = rpn.assign_targets_to_anchors(anchors, targets)
        wanted = rpn.box_coder.encode(matched, anchors)
        parts = rpn.compute_loss(objectness, deltas, labels, wanted)
        losses = dict(zip(("objectness", "rpn_box"), parts, strict=True))
        losses |= _box_losses(network.roi_heads, features, proposals, sizes, targets)
    outputs: Outputs = {"losses": losses, "raw": [objectness, deltas], "detections": []}
    if detect:
        outputs["raw"] += _box_head(network.roi_heads, features, _fixed_boxes(images), sizes)
        outputs["detections"] = _boxes(network.roi_heads, features, proposals, sizes)
    return outputs


def _box_head(heads: Any, features: Any, boxes: list[Tensor],
              sizes: list[tuple[int, int]]) -> list[Tensor]:
    """Class logits and box deltas of proposed boxes, all images' after one another."""
    maps = {name: _wide(x) for name, x in features.items()}  # the boxes' type, or it is refused
    pooled = heads.box_roi_pool(maps, boxes, sizes).to(next(iter(features.values())).dtype)
    return [_wide(x) for x in heads.box_predictor(heads.box_head(pooled))]


def _fixed_boxes(images: ImageList) -> list[Tensor]:
    """The whole image and its middle, for a look at the box head that depends on no proposal."""
    height, width = images.tensors.shape[-2:]
    boxes = _wide(images.tensors.new_zeros(1)).new_tensor(
        [[0, 0, width, height], [width / 4, height / 4, width * 3 / 4, height * 3 / 4]])
    return [boxes] * len(images.tensors)


def _box_losses(heads: Any, features: Any, proposals: list[Tensor], sizes: list[tuple[int, int]],
                targets: Targets) -> dict[str, Tensor]:
    chosen, _, labels, wanted = heads.select_training_samples(list(proposals), targets)
    logits, deltas = _box_head(heads, features, chosen, sizes)
    parts = fastrcnn_loss(logits, deltas, labels, wanted)
    return dict(zip(("classification", "box"), parts, strict=True))


def _boxes(heads: Any, features: Any, proposals: list[Tensor],
           sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
    logits, deltas = _box_head(heads, features, proposals, sizes)
    detections = heads.postprocess_detections(logits, deltas, proposals, sizes)
    return [{"boxes": boxes, "scores": scores, "labels": labels}
            for boxes, scores, labels in zip(*detections, strict=True)]


def _retinanet(network: Any, images: ImageList, targets: Targets | None, detect: bool) -> Outputs:
    maps, heads, anchors = _one_stage(network, images)
    losses = network.compute_loss(targets, heads, anchors) if targets is not None else {}
    per_place = heads["cls_logits"].shape[1] // sum(x.shape[-2:].numel() for x in maps)
    counts = [x.shape[-2:].numel() * per_place for x in maps]
    return {"losses": losses, "raw": heads,
            "detections": _by_level(network, heads, anchors, counts, images) if detect else []}


def _fcos(network: Any, images: ImageList, targets: Targets | None, detect: bool) -> Outputs:
    maps, heads, anchors = _one_stage(network, images)
    counts = [x.shape[-2:].numel() for x in maps]
    losses = network.compute_loss(targets, heads, anchors, counts) if targets is not None else {}
    return {"losses": losses, "raw": heads,
            "detections": _by_level(network, heads, anchors, counts, images) if detect else []}


def _ssd(network: Any, images: ImageList, targets: Targets | None, detect: bool) -> Outputs:
    _, heads, anchors = _one_stage(network, images)
    losses: dict[str, Tensor] = {}
    if targets is not None:
        matched = [network.proposal_matcher(box_iou(target["boxes"], boxes))
                   if len(target["boxes"]) else boxes.new_full((len(boxes),), -1, dtype=torch.long)
                   for target, boxes in zip(targets, anchors, strict=True)]
        losses = network.compute_loss(targets, heads, anchors, matched)
    detections = (network.postprocess_detections(heads, anchors, images.image_sizes) if detect
                  else [])
    return {"losses": losses, "raw": heads, "detections": detections}


def _one_stage(network: Any, images: ImageList) -> tuple[list[Tensor], dict[str, Tensor], Any]:
    maps = list(network.backbone(images.tensors).values())
    heads = {name: _wide(x) for name, x in network.head(maps).items()}
    return maps, heads, network.anchor_generator(images, _stand_ins(maps))


def _stand_ins(maps: Sequence[Tensor]) -> list[Tensor]:
    """Stand-ins of the same shapes, for anchors: they take the maps' type, and no value."""
    return [_wide(x.new_zeros(())).expand(x.shape) for x in maps]


def _wide(x: Tensor) -> Tensor:
    """At least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _by_level(network: Any, heads: dict[str, Tensor], anchors: Sequence[Tensor],
              counts: list[int], images: ImageList) -> Any:
    levels = {name: list(values.split(counts, dim=1)) for name, values in heads.items()}
    boxes = [list(part.split(counts)) for part in anchors]
    return network.postprocess_detections(levels, boxes, images.image_sizes)


_PASSES: dict[type, Callable[[Any, ImageList, Targets | None, bool], Outputs]] = {
    FasterRCNN: _faster_rcnn, RetinaNet: _retinanet, FCOS: _fcos, SSD: _ssd}
