"""Random changes of training images, and mixtures of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from ftlab.data.batches import Collate, ExampleRow, checked_views
from ftlab.errors import InputError


class ImageAugment:
    """A torchvision policy for each image, and a mixture of the images of a batch.

    Each change follows from the run's seed, the epoch and the example (mixtures: the batch) alone,
    however many processes load.

    Policies: `standard` crops 8-100% of the area, resizes and flips left-right (Szegedy et al.
    2015, https://arxiv.org/abs/1409.4842); `trivial` adds TrivialAugment (Müller, Hutter 2021,
    https://arxiv.org/abs/2103.10158) and `randaugment` RandAugment (Cubuk et al. 2020,
    https://arxiv.org/abs/1909.13719) to it; `none` leaves images as in evaluation.
    Mixtures: MixUp (Zhang et al. 2018, https://arxiv.org/abs/1710.09412), CutMix (Yun et al. 2019,
    https://arxiv.org/abs/1905.04899); targets become class probabilities (B, C).

    Args:
        policy: `none`, `standard`, `trivial` or `randaugment`.
        mix: `none`, `mixup` or `cutmix`.
        alpha: both parameters of the mixture's Beta distribution; as in the papers when absent:
            0.2 for MixUp, 1 for CutMix.
        min_area: smallest part of the area that a crop keeps.
        views: change each image in so many ways and no more, one an epoch in turn, the same in
            every run, so that a frozen prefix can be cached; null for ever new changes.
    """

    def __init__(
        self,
        policy: Literal["none", "standard", "trivial", "randaugment"] = "standard",
        mix: Literal["none", "mixup", "cutmix"] = "none",
        alpha: float | None = None,
        min_area: float = 0.08,
        views: int | None = None,
    ) -> None:
        if policy not in ("none", "standard", "trivial", "randaugment"):
            raise ValueError("policy must be none, standard, trivial or randaugment, "
                             f"got {policy!r}")
        if mix not in ("none", "mixup", "cutmix"):
            raise ValueError(f"mix must be none, mixup or cutmix, got {mix!r}")
        if alpha is not None and not alpha > 0:
            raise ValueError(f"alpha must be above 0, got {alpha}")
        if not 0 < min_area <= 1:
            raise ValueError(f"min_area must be above 0 and at most 1, got {min_area}")
        self.policy = policy
        self.views = checked_views(views)
        self.mix = mix
        self.alpha = alpha if alpha is not None else (1.0 if mix == "cutmix" else 0.2)
        self.min_area = min_area

    def transform(self, size: tuple[int, int],
                  interpolation: v2.InterpolationMode) -> Callable[[Tensor], Tensor] | None:
        """uint8 (3, H, W) -> uint8 of `size`, drawing from torch's generator; None for `none`."""
        if self.policy == "none":
            return None
        steps = [v2.RandomResizedCrop(size, scale=(self.min_area, 1.0),
                                      interpolation=interpolation, antialias=True),
                 v2.RandomHorizontalFlip()]
        if self.policy == "trivial":
            steps.append(v2.TrivialAugmentWide())
        elif self.policy == "randaugment":
            steps.append(v2.RandAugment())
        return v2.Compose(steps)

    def mixture(self, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
        """Images (B, 3, h, w) and targets (B,) -> images and class probabilities (B, classes)."""
        if self.mix == "none":
            return None
        mixture = v2.MixUp if self.mix == "mixup" else v2.CutMix
        return mixture(alpha=self.alpha, num_classes=classes)


@dataclass(frozen=True)
class MixCollate:
    """Rows -> batch of mixed images with soft targets.

    Attributes:
        collate: rows -> plain batch.
        mixture: as `ImageAugment.mixture` makes it.
        input_name: the images among the batch's inputs.
        seed: of the run.
    """

    collate: Collate
    mixture: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    input_name: str
    seed: int

    def __call__(self, rows: Sequence[ExampleRow]) -> dict[str, Any]:
        batch = self.collate(rows)
        target = batch["target"]
        if target.ndim != 1 or target.is_floating_point():
            raise InputError("MixUp and CutMix need a task with one class an example",
                             "leave out mix")
        with seeded(self.seed, rows[0].epoch, rows[0].position):
            images, batch["target"] = self.mixture(batch["inputs"][self.input_name], target)
        batch["inputs"] = {**batch["inputs"], self.input_name: images}
        return batch


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Inside, torch's CPU generator is seeded by `key`; afterwards it is as it was before."""
    state = torch.get_rng_state()
    # not torch.manual_seed: that would reset the accelerator's generator, and with it dropout
    torch.default_generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
    try:
        yield
    finally:
        torch.set_rng_state(state)
