"""Images with boxes -> the size that a network reads, randomly changed in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ftlab.data.batches import ExampleRow, SplitDataset, checked_views
from ftlab.data.image_augment import seeded
from ftlab.data.image_cache import ImageCache, ImageRef
from ftlab.data.image_decode import opened

Policy = Literal["none", "flip", "crop", "ssd"]


@dataclass(frozen=True)
class BoxAugment:
    """Random changes of training images; boxes follow.

    Each change follows from the run's seed, the epoch and the example alone.

    Policies: `none`; `flip` left-right; `crop` adds a window that overlaps enough with an object
    (Liu et al. 2016, https://arxiv.org/abs/1512.02325); `ssd` adds, as that paper does, colour
    changes and a larger canvas with the mean colour, on which objects become small.

    Args:
        policy: `none`, `flip`, `crop` or `ssd`.
        upside_down: flip top-bottom too, where the scene has no upper side (cells, aerial images).
        views: change each image in so many ways and no more, one an epoch in turn, the same in
            every run, so that a frozen prefix can be cached; null for ever new changes.
    """

    policy: Policy = "flip"
    upside_down: bool = False
    views: int | None = None

    def __post_init__(self) -> None:
        checked_views(self.views)
        if self.policy not in get_args(Policy):
            raise ValueError(f"policy must be one of {get_args(Policy)}, got {self.policy!r}")

    def transform(self, fill: Sequence[float]) -> v2.Transform:
        """Image and `boxes`, `labels`, `ignored` -> the same, of another size.

        Args:
            fill: the colour (0 to 255) of what a larger canvas adds.
        """
        steps: list[v2.Transform] = []
        if self.policy == "ssd":
            steps += [v2.RandomPhotometricDistort(p=0.5), v2.RandomZoomOut(fill=list(fill))]
        if self.policy in ("crop", "ssd"):
            steps += [v2.RandomIoUCrop()]
        if self.policy != "none":
            steps += [v2.RandomHorizontalFlip()]
        if self.upside_down:
            steps += [v2.RandomVerticalFlip()]
        clean = v2.SanitizeBoundingBoxes(labels_getter=lambda pair: (pair[1]["labels"],
                                                                     pair[1]["ignored"]))
        return v2.Compose([*steps, clean])


@dataclass(frozen=True)
class Stretch:
    """uint8 (3, H, W) -> (3, h, w), resized to the size directly.

    Attributes:
        size: h and w.
        interpolation: antialiased.
    """

    size: tuple[int, int]
    interpolation: v2.InterpolationMode = v2.InterpolationMode.BILINEAR

    def __call__(self, image: Tensor) -> Tensor:
        return functional.resize(image, list(self.size), self.interpolation, antialias=True)


class BoxDataset(SplitDataset):
    """Images of one size, uint8 (1 or 3, h, w), or the names of such that are kept, with targets.

    A target has `boxes` in pixels of (h, w), and `scale` (2,), which leads back to the image's own.

    Args:
        images: decoded, uint8 (C, H, W), or files.
        sizes: H and W of each.
        targets: as `Detection.encode` makes them, in pixels of (H, W).
        seed: of the run.
        augment: None for evaluation.
        fit: to the size.
        mean: of the channels, for values in 0..1.
        kept: what `fit` makes of the images, if it is kept; not with `augment`.
    """

    def __init__(self, images: Sequence[Tensor | Path | bytes], sizes: Sequence[tuple[int, int]],
                 targets: Sequence[Mapping[str, Tensor]], seed: int, augment: BoxAugment | None,
                 fit: Stretch, mean: Sequence[float], kept: ImageCache | None = None) -> None:
        super().__init__(targets, seed)
        self.images = images
        self.sizes = sizes
        self.augment = augment
        self.fit = fit
        self.mean = list(mean)
        self.kept = kept
        self.names = kept is not None and kept.residence is not None

    def __getitem__(self, index: int) -> ExampleRow:
        target = dict(self.targets[index])
        image: Tensor | ImageRef
        if self.kept is not None:
            image, (height, width) = self.kept.row(index), self.sizes[index]
        else:
            image = opened(self.images[index], str(index))
            if self.augment is not None:
                with seeded(self.seed, self.epoch, index):
                    image, target = self._changed(image, target)
            height, width = image.shape[-2:]
            image = self.fit(image)
        scale = torch.tensor([width / self.fit.size[1], height / self.fit.size[0]])
        target |= {"boxes": target["boxes"] / scale.repeat(2), "scale": scale}
        return ExampleRow(image, target, index, self.epoch)

    def _changed(self, image: Tensor, target: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        assert self.augment is not None
        boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY",
                                         canvas_size=tuple(image.shape[-2:]))
        change = self.augment.transform([255 * value for value in self.mean])
        image, target = change(tv_tensors.Image(image), {**target, "boxes": boxes})
        return image.as_subclass(Tensor), {**target, "boxes": target["boxes"].as_subclass(Tensor)}
