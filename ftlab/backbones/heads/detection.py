"""Labelled boxes, from a detector of transformers whose class predictors are new."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from ftlab.backbones.base import TaskSpec
from ftlab.backbones.export_code import CodeLines
from ftlab.backbones.find_blocks import find_blocks
from ftlab.backbones.heads.detection_model import DetectionModel, Keep, wanted
from ftlab.backbones.heads.pooled import renew
from ftlab.backbones.load_pretrained import Checkpoint, empty_network
from ftlab.backbones.task_model import Batch, Outputs
from ftlab.errors import Incompatible

KEEP = Keep(score=0.0)
"""The detections of an image that count: the best 100, as in COCO's protocol."""


_DETECT = """
def detect(**inputs):  # the boxes of one image, in pixels of the input, best first
    logits, boxes = compute(**inputs)
    height, width = inputs["pixel_values"].shape[-2:]
{choose}
    corners = box_convert(boxes[0].float(), "cxcywh", "xyxy")[queries]
    corners = corners * torch.tensor([width, height] * 2)
    return corners[:{most}], labels[:{most}], scores[:{most}]
"""
_PAIRS = """\
    scores, places = logits[0].float().sigmoid().flatten().sort(descending=True)
    queries, labels = places // {classes}, places % {classes}"""
_QUERIES = """\
    scores, labels = logits[0].float().softmax(dim=-1)[:, :-1].max(dim=-1)
    scores, queries = scores.sort(descending=True)
    labels = labels[queries]"""


class TransformersDetector(DetectionModel):
    """A set-predicting detector (YOLOS, DETR, RT-DETR), whose network computes its own loss.

    Its boxes need no suppression of overlaps: matching to objects teaches each query to be alone.
    """

    def arguments(self, batch: Batch) -> Mapping[str, Any]:
        """The inputs and, where there is a target, `labels` as transformers wants them."""
        inputs = self.inputs(batch)
        targets = wanted(batch)
        if targets is not None:
            inputs["labels"] = [
                {"class_labels": target["labels"],
                 "boxes": box_convert(target["boxes"], "xyxy", "cxcywh") / _size(batch)}
                for target in targets]
        return inputs

    def read(self, output: Any, batch: Batch) -> Outputs:
        losses = {} if output.loss is None else {"loss": output.loss}
        heads: list[dict[str, Tensor]] = []
        if not self.training:
            boxes = box_convert(output.pred_boxes.float(), "cxcywh", "xyxy") * _size(batch)
            config: Any = self.network.config
            heads = detections(output.logits, boxes, config.num_labels)
        return {"losses": losses, "raw": [output.logits, output.pred_boxes], "detections": heads}

    def detect_lines(self, outputs: Outputs) -> CodeLines:
        """Defines `detect`, which picks as `detections` does; `outputs` are those of a batch."""
        config: Any = self.network.config
        classes = config.num_labels
        every = outputs["raw"][0].shape[-1] == classes
        choose = _PAIRS.format(classes=classes) if every else _QUERIES
        return CodeLines(_DETECT.format(choose=choose, most=KEEP.most),
                     ["from torchvision.ops import box_convert"], ["torchvision"])


def _size(batch: Batch) -> Tensor:
    """Width, height, width, height of the images in pixels (4,), float32."""
    images = batch["inputs"]["pixel_values"]
    height, width = images.shape[-2:]
    return torch.tensor([width, height] * 2, dtype=torch.float32, device=images.device)


def _loss_in_float32(loss: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A loss of transformers' in float32: other dtypes lack distances, or its class weights."""
    return loss(*_in_float32(args), **_in_float32(kwargs))


def _in_float32(value: Any) -> Any:
    """Nested dictionaries and sequences with their floating-point tensors in float32."""
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: _in_float32(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_in_float32(item) for item in value)
    return value


def detections(logits: Tensor, boxes: Tensor, classes: int,
               keep: Keep = KEEP) -> list[dict[str, Tensor]]:
    """The best boxes of each image.

    With one logit a class every pair of query and class may be a detection; with one more, for
    "no object", every query is one of its likeliest class.

    Args:
        logits: (B, Q, C) or (B, Q, C + 1).
        boxes: (B, Q, 4).
        classes: C.
        keep: smallest score, and how many.
    """
    if logits.shape[-1] == classes:
        scores, places = logits.float().sigmoid().flatten(1).sort(dim=1, descending=True)
        queries, labels = places // classes, places % classes
    else:
        scores, labels = logits.float().softmax(-1)[..., :-1].max(-1)
        scores, queries = scores.sort(dim=1, descending=True)
        labels = labels.gather(1, queries)
    kept = []
    for score, label, query, box in zip(scores, labels, queries, boxes, strict=True):
        count = min(keep.most, int((score >= keep.score).sum()))
        kept.append({"boxes": box[query[:count]], "scores": score[:count],
                      "labels": label[:count]})
    return kept


def build_boxes(checkpoint: Checkpoint, task: TaskSpec) -> TransformersDetector:
    """Build the model of a task whose output type is `boxes`.

    Queries with noisy objects (RT-DETR's denoising) are left out: they are drawn at random, exist
    in training alone, and would stop wherever a technique freezes the first block.

    Raises:
        Incompatible: the architecture finds no objects.
    """
    auto = checkpoint.own_class(task.auto_classes)
    if auto is None:
        raise Incompatible(f"{checkpoint.label}: {checkpoint.config.model_type} is no detector of "
                           "transformers", "choose YOLOS, DETR, RT-DETR, or a TorchvisionDetector")
    config = checkpoint.config
    for name, value in (("num_denoising", 0), ("anchor_image_size", None), ("eval_size", None)):
        if hasattr(config, name):
            setattr(config, name, value)
    config.num_labels = task.outputs
    head = class_predictors(auto, config, checkpoint.dtype)
    network = checkpoint.network(auto, new=lambda _: head)
    if not checkpoint.meta:
        for path in head:
            _renew(network, path)
    network.loss_function = partial(_loss_in_float32, network.loss_function)
    model = TransformersDetector(network, find_blocks(network, head), head)
    if config.model_type in ("detr", "table-transformer"):
        # its queries enter the decoder as zeros: all values are equal, and attention to them idle
        model.inert = ("model.decoder.layers.0.self_attn",)
    return model


def class_predictors(auto: Any, config: Any, dtype: torch.dtype) -> list[str]:
    """Paths of the layers whose shape depends on the number of classes."""
    shapes = []
    for extra in (0, 1):
        other = copy.deepcopy(config)
        other.num_labels = config.num_labels + extra
        network = empty_network(auto, other, dtype)
        shapes.append({name: p.shape for name, p in network.named_parameters()})
    paths = [name.rpartition(".")[0] for name in shapes[0] if shapes[0][name] != shapes[1][name]]
    return list(dict.fromkeys(paths))


def _renew(network: Any, path: str) -> None:
    """A new predictor; where each class has a sigmoid, none is likely at first.

    Lin, Goyal, Girshick, He, Dollár (2017), https://arxiv.org/abs/1708.02002, section 3.3.
    """
    renew(network, path)
    layer, classes = network.get_submodule(path), network.config.num_labels
    if isinstance(layer, nn.Linear) and layer.out_features == classes:
        prior = getattr(network.config, "initializer_bias_prior_prob", None) or 1 / (classes + 1)
        with torch.no_grad():
            nn.init.xavier_uniform_(layer.weight)
            nn.init.constant_(layer.bias, -math.log((1 - prior) / prior))
