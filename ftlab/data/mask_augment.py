"""Images with masks -> the size that a network reads, both changed alike in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ftlab.data.batches import ExampleRow, SplitDataset, checked_views
from ftlab.data.box_augment import Stretch
from ftlab.data.image_augment import seeded
from ftlab.data.image_cache import ImageCache, ImageRef
from ftlab.data.image_decode import opened
from ftlab.tasks.class_mask import ClassMask

Policy = Literal["none", "flip", "crop", "colour"]


@dataclass(frozen=True)
class MaskAugment:
    """Random changes of training images; masks follow, and keep their classes.

    Each change follows from the run's seed, the epoch and the example alone.

    Policies: `none`; `flip` left-right; `crop` adds a window of at least `min_area`, so that objects
    vary in size; `colour` adds changes of brightness, contrast, hue and saturation (Liu et al.
    2016, https://arxiv.org/abs/1512.02325).

    Args:
        policy: `none`, `flip`, `crop` or `colour`.
        upside_down: flip top-bottom too, where the scene has no upper side (cells, aerial images).
        min_area: smallest part of the area that a window keeps.
        views: change each image in so many ways and no more, one an epoch in turn, the same in
            every run, so that a frozen prefix can be cached; null for ever new changes.
    """

    policy: Policy = "flip"
    upside_down: bool = False
    min_area: float = 0.25
    views: int | None = None

    def __post_init__(self) -> None:
        checked_views(self.views)
        if self.policy not in get_args(Policy):
            raise ValueError(f"policy must be one of {get_args(Policy)}, got {self.policy!r}")
        if not 0 < self.min_area <= 1:
            raise ValueError(f"min_area must be above 0 and at most 1, got {self.min_area}")

    @property
    def changes(self) -> bool:
        """False where images stay as they are."""
        return self.policy != "none" or self.upside_down

    def transform(self) -> v2.Transform:
        """Image and mask (`tv_tensors`) -> the same, perhaps smaller."""
        steps: list[v2.Transform] = [v2.Identity()]
        if self.policy == "colour":
            steps += [v2.RandomPhotometricDistort(p=0.5)]
        if self.policy in ("crop", "colour"):
            steps += [_Window(self.min_area)]
        if self.policy != "none":
            steps += [v2.RandomHorizontalFlip()]
        if self.upside_down:
            steps += [v2.RandomVerticalFlip()]
        return v2.Compose(steps)


class _Window(v2.RandomResizedCrop):
    """The window of a `RandomResizedCrop`, not resized: that is done once, behind it."""

    def __init__(self, least: float) -> None:
        super().__init__(1, scale=(least, 1.0))

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return functional.crop(inpt, **params)


class MaskDataset(SplitDataset):
    """Images of one size, uint8 (1 or 3, h, w), or the names of such that are kept, with masks.

    A target is a mask of places, uint8: in training (h, w), else of its image's own size, so that
    what is measured does not depend on the size that a network reads.

    Args:
        images: decoded, uint8 (C, H, W), or files.
        targets: as `Segmentation.encode` makes them.
        seed: of the run.
        training: whether masks get the size of the network's images.
        augment: None for none.
        fit: to the size.
        kept: what `fit` makes of the images, if it is kept; not with `augment`.
    """

    def __init__(self, images: Sequence[Tensor | Path | bytes], targets: Sequence[ClassMask],
                 seed: int, training: bool, augment: MaskAugment | None, fit: Stretch,
                 kept: ImageCache | None = None) -> None:
        super().__init__(targets, seed)
        self.images = images
        self.training = training
        self.augment = augment
        self.fit = fit
        self.kept = kept
        self.names = kept is not None and kept.residence is not None

    def __getitem__(self, index: int) -> ExampleRow:
        mask = torch.from_numpy(self.targets[index].places)
        image: Tensor | ImageRef
        if self.kept is not None:
            image = self.kept.row(index)
        else:
            pixels = opened(self.images[index], str(index))
            if self.augment is not None:
                with seeded(self.seed, self.epoch, index):
                    changed = self.augment.transform()(tv_tensors.Image(pixels), tv_tensors.Mask(mask))
                pixels, mask = (part.as_subclass(Tensor) for part in changed)
            image = self.fit(pixels)
        if self.training:
            # exact: of each place the nearest, which the older way takes above and to the left of it
            mask = functional.resize(mask[None], list(self.fit.size),
                                     v2.InterpolationMode.NEAREST_EXACT)[0]
        return ExampleRow(image, mask, index, self.epoch)
