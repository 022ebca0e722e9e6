"""YOLOX, from the permissively licensed package libreyolo."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_convert

from ftlab.backbones.base import Backbone, OutputType, TaskSpec
from ftlab.backbones.find_blocks import find_blocks
from ftlab.backbones.heads.detection_model import DetectionModel, Keep, Targets
from ftlab.backbones.preprocessing import ImagePreprocessing
from ftlab.backbones.source import DAMAGED_WEIGHTS, check_sha256, reason, resolve_path
from ftlab.backbones.task_model import Outputs
from ftlab.backbones.weight_files import fingerprint, load_state
from ftlab.errors import Incompatible, InputError

Size = Literal["n", "t", "s", "m", "l", "x"]
_NEW = "network.head.cls_preds"
_CANDIDATES = 1000  # boxes of an image before overlapping ones are dropped


class YOLOX(Backbone):
    """YOLOX, a one-stage detector without anchors, as the package libreyolo (MIT) has it.

    Ge, Liu, Wang, Li, Sun (2021), https://arxiv.org/abs/2107.08430. With weights, those of the
    paper's own repository (Apache 2.0) or libreyolo's, only the layers that say the class are new,
    and the rest of the head is the last block. Images are stretched to the size, where YOLOX pads;
    mosaics and the L1 loss of its last epochs are left out.

    Args:
        size: n (nano), t (tiny), s, m, l or x.
        weights: a file (.pth, .pt) or package:NAME/PATH; null starts at random.
        sha256: what the fingerprint of the weights must be, or begin with.
        image_size: height and width of the images, where the data module names none; a multiple
            of 32.
        keep: which detections are kept.
    """

    def __init__(self, size: Size = "s", weights: str | None = None, sha256: str | None = None,
                 image_size: int = 640, keep: Keep = Keep(score=0.01, overlap=0.65)) -> None:
        if size not in get_args(Size):
            raise ValueError(f"size must be one of {get_args(Size)}, got {size!r}")
        if image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        self.size = size
        self.weights = weights
        self.sha256 = sha256
        self.image_size = image_size
        self.keep = keep

    @property
    def label(self) -> str:
        """The name in messages."""
        return f"YOLOX({self.size}, {self.weights})"

    @property
    def preprocessing(self) -> ImagePreprocessing:
        # it reads values from 0 to 255
        return ImagePreprocessing("images", (self.image_size, self.image_size), (0.0,) * 3,
                                  (1 / 255,) * 3, multiple=32)

    @property
    def fingerprint(self) -> str:
        """Sha256 of the weight file; of the name and the word random where there is none."""
        return fingerprint(self._file(), f"yolox_{self.size}")

    def build(self, task: TaskSpec, output_type: OutputType | None = None,
              meta: bool = False) -> DetectionModel:
        if (output_type or task.output_type) != "boxes":
            raise Incompatible(f"{self.label} finds objects in images; it gives no "
                               f"{output_type or task.output_type}", "choose another backbone")
        file = None if meta else self._file()
        with torch.device("meta" if meta else "cpu"):
            network = _library()(self.size, task.outputs)
            network.init_weights()
        if file is not None:
            load_state(network, _state(file, self.label), ("head.cls_preds",), file, self.label)
        detector = _Detector(network, self.keep)
        blocks = find_blocks(detector, ["network.head"])
        if self.weights is None:
            return DetectionModel(detector, blocks, ["network.head"])
        return DetectionModel(detector, [*blocks, ("head", ["network.head"])], [_NEW])

    def _file(self) -> Path | None:
        if self.weights is None:
            return None
        file = resolve_path(self.weights)
        if not file.is_file():
            raise InputError(f"{self.label}: {file} is not a file", "name the weight file")
        check_sha256([file], self.sha256, self.label)
        return file


class _Detector(nn.Module):
    """The network as `DetectionModel` calls it.

    Args:
        network: YOLOX.
        keep: which detections are kept.
    """

    def __init__(self, network: Any, keep: Keep) -> None:
        super().__init__()
        self.network = network
        self.keep = keep
        network.head.emit_loss_outputs = True  # in eval mode its loss then waits for no other process

    def forward(self, images: Tensor, targets: Targets | None = None, detect: bool = False) -> Outputs:
        """Losses, raw outputs (B, places, 5 + C) and detections; see `heads/detection_model.py`."""
        head: Any = self.network.head
        maps = self.network.backbone(images.flip(1))  # blue first
        places, *grids = head.forward_train_maps(maps)
        places = places.to(torch.promote_types(places.dtype, torch.float32))
        outputs: Outputs = {"losses": {}, "raw": [places], "detections": []}
        if targets is not None:
            parts = head.get_losses(images, grids[0], grids[1], grids[2], _rows(targets, places), places,
                                    grids[3], dtype=places.dtype)
            outputs["losses"] = {name: parts[f"{name}_loss"] for name in ("iou", "obj", "cls")}
        if detect:
            outputs["detections"] = [self._best(image) for image in places]
        return outputs

    def _best(self, places: Tensor) -> dict[str, Tensor]:
        """The detections of an image: a place's likeliest class, times how likely an object is."""
        scores, labels = places[:, 5:].sigmoid().max(dim=1)
        scores = scores * places[:, 4].sigmoid()
        chosen = scores.topk(min(_CANDIDATES, len(scores))).indices
        chosen = chosen[scores[chosen] >= self.keep.score]
        boxes = box_convert(places[chosen, :4], "cxcywh", "xyxy")
        kept = batched_nms(boxes, scores[chosen], labels[chosen], self.keep.overlap)[:self.keep.most]
        return {"boxes": boxes[kept], "scores": scores[chosen][kept], "labels": labels[chosen][kept]}


def _rows(targets: Targets, like: Tensor) -> Tensor:
    """Objects as rows of class, centre, width and height (B, most, 5), zeros behind the last."""
    rows = like.new_zeros(len(targets), max(1, *(len(one["labels"]) for one in targets)), 5)
    for row, target in zip(rows, targets, strict=True):
        count = len(target["labels"])
        row[:count, 0] = target["labels"]
        row[:count, 1:] = box_convert(target["boxes"], "xyxy", "cxcywh").to(like)
    return rows


def _state(file: Path, label: str) -> Mapping[str, Tensor]:
    """A checkpoint's tensors by name: those of the paper's repository lie under `model`.

    Raises:
        InputError: the file is damaged, or holds something else.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except DAMAGED_WEIGHTS as error:
        raise InputError(f"{label}: {file} cannot be read: {reason(error)}",
                         "get the file again") from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{label}: {file} holds no plain state dict",
                         "save it with torch.save(network.state_dict(), file)")
    return state


def _library() -> Any:
    """The network's class, imported when it is first needed.

    Raises:
        InputError: the package is not installed.
    """
    try:
        from libreyolo.models.yolox.nn import LibreYOLOXModel
    except ImportError as error:
        raise InputError(f"YOLOX needs the package libreyolo ({error})",
                         "pip install 'ftlab[yolox]'") from error
    return LibreYOLOXModel
