"""Feature maps of a classification network at several strides, and the pyramid on top of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork

from ftlab.errors import Incompatible

_PROBE = (256, 192)
"""Height and width of an image to find the maps with: not square, so that layouts differ."""


@dataclass(frozen=True)
class Tap:
    """Where a network's feature map of one stride is taken.

    Attributes:
        path: of the module whose output it is.
        channels: of the map.
        channels_last: whether the output is (B, H, W, C) instead of (B, C, H, W).
    """

    path: str
    channels: int
    channels_last: bool


def find_taps(trunk: nn.Module) -> tuple[dict[int, Tap], list[str]]:
    """The last module that gives a map of each stride, and all modules in the order of their calls.

    Strides are 1, 2, 4, ... Modules inside blocks are not looked at, so that a map is what a
    block gives.

    Args:
        trunk: a network on the meta device, without its classification layer; in eval mode.
    """
    taps: dict[int, Tap] = {}
    order: list[str] = []
    height, width = _PROBE

    def note(path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        order.append(path)
        if not isinstance(output, Tensor) or output.ndim != 4:
            return
        _, first, second, third = output.shape
        for stride in (1, 2, 4, 8, 16, 32):
            size = (-(-height // stride), -(-width // stride))
            if _near((second, third), size):
                taps[stride] = Tap(path, first, False)
            elif _near((first, second), size):
                taps[stride] = Tap(path, third, True)

    hooks = [module.register_forward_hook(partial(note, path))
             for path, module in _elements(trunk, "")]
    try:
        with torch.no_grad():
            trunk(torch.zeros(1, 3, height, width, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    return taps, order


def cut(trunk: nn.Module, order: Sequence[str], last: Tap) -> None:
    """Take out what runs after the last tap: it would be trainable and never used."""
    end = len(order) - list(reversed(order)).index(last.path)
    for path in set(order[end:]) - set(order[:end]):
        trunk.set_submodule(path, nn.Identity())


def _near(size: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Equal, but for the border that a network without padding loses (Inception)."""
    return all(w - max(1, w // 4) <= s <= w + 1 for s, w in zip(size, wanted, strict=True))


def _elements(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        at = f"{path}.{name}" if path else name
        if type(child) is nn.Sequential:  # a subclass is a block
            yield from _elements(child, at)
        elif not isinstance(child, nn.AdaptiveAvgPool2d | nn.Identity):
            yield at, child


class Trunk(nn.Module):
    """A classification network that gives feature maps.

    The maps are read where the taps say at each call, so that a technique may replace modules.

    Args:
        body: the network without its classification layer.
        taps: of the maps, finest first.
    """

    def __init__(self, body: nn.Module, taps: Sequence[Tap]) -> None:
        super().__init__()
        self.body = body
        self.taps = tuple(taps)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps (B, C, h, w), finest first, of images (B, 3, H, W)."""
        maps: dict[int, Tensor] = {}

        def keep(number: int, module: nn.Module, inputs: Any, output: Tensor) -> None:
            maps[number] = output.movedim(-1, 1) if self.taps[number].channels_last else output

        hooks = [self.body.get_submodule(tap.path).register_forward_hook(partial(keep, i))
                 for i, tap in enumerate(self.taps)]
        try:
            self.body(images)
        finally:
            for hook in hooks:
                hook.remove()
        return [maps[i] for i in range(len(self.taps))]


class Pyramid(nn.Module):
    """A trunk with a feature pyramid: maps of equal width at every stride.

    Lin, Dollár, Girshick, He, Hariharan, Belongie (2017), https://arxiv.org/abs/1612.03144.
    Strides beyond the trunk's are taken from the coarsest map, every second position.

    Args:
        trunk: gives the maps of the first strides.
        width: channels of every map.
        further: how many more strides.
    """

    def __init__(self, trunk: Trunk, width: int, further: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.fpn = FeaturePyramidNetwork([tap.channels for tap in trunk.taps], width)
        self.further = further
        self.out_channels = width

    def forward(self, images: Tensor) -> Mapping[str, Tensor]:
        maps = OrderedDict((str(i), x) for i, x in enumerate(self.trunk(images)))
        levels = self.fpn(maps)
        for _ in range(self.further):
            last = levels[str(len(levels) - 1)]
            levels[str(len(levels))] = max_pool2d(last, 1, 2)
        return levels


class ExtraLayers(nn.Module):
    """A trunk with further layers of stride 2, as SSDLite has.

    Sandler, Howard, Zhu, Zhmoginov, Chen (2018), https://arxiv.org/abs/1801.04381, section 6.2.

    Args:
        trunk: gives the maps of the first strides.
        width: channels of the maps of each further stride.
        further: how many more strides.
    """

    def __init__(self, trunk: Trunk, width: int, further: int) -> None:
        super().__init__()
        self.trunk = trunk
        before = [trunk.taps[-1].channels, *[width] * (further - 1)]
        self.extra = nn.ModuleList(_extra_layer(channels, width) for channels in before[:further])
        self.channels = [tap.channels for tap in trunk.taps] + [width] * further

    def forward(self, images: Tensor) -> Mapping[str, Tensor]:
        maps = self.trunk(images)
        for layer in self.extra:
            maps.append(layer(maps[-1]))
        return OrderedDict((str(i), x) for i, x in enumerate(maps))


def _extra_layer(channels: int, width: int) -> nn.Sequential:
    layer = partial(Conv2dNormActivation, activation_layer=nn.ReLU6)
    half = max(1, width // 2)
    return nn.Sequential(layer(channels, half, 1), layer(half, half, 3, 2, groups=half),
                         layer(half, width, 1))


def choose_taps(taps: Mapping[int, Tap], strides: Sequence[int], label: str) -> list[Tap]:
    """The taps of the strides that the trunk has; those beyond its last are made by the neck.

    Raises:
        Incompatible: the trunk has no such maps.
    """
    if not taps:
        raise Incompatible(f"{label}: the trunk gives no feature maps of several strides",
                           "choose a convolutional network or Swin as the trunk")
    chosen = [stride for stride in strides if stride <= max(taps)]
    lacking = [stride for stride in chosen if stride not in taps]
    if lacking or not chosen:
        raise Incompatible(f"{label}: the trunk gives no feature map of stride "
                           f"{', '.join(map(str, lacking or strides))}",
                           f"choose strides from {', '.join(map(str, sorted(taps)))}, then doubled")
    return [taps[stride] for stride in chosen]
