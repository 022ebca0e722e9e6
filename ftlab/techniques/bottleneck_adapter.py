from __future__ import annotations

import re
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ftlab.backbones.block import Block
from ftlab.backbones.quantization import READS_WEIGHTS
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.techniques.base import (
    Choice,
    LogUniform,
    Optimization,
    Technique,
    freeze_all_but_head,
    is_norm,
)
from ftlab.techniques.peft_injection import LAYERS
from ftlab.techniques.single_precision import added_dtype


class Bottleneck(nn.Module):
    """x + scale * up(gelu(down(x))) over the channels of x, (..., D) or (B, D, H, W).

    `up` starts at zero, so the module starts as the identity.

    Args:
        width: D.
        bottleneck: inner width.
        maps: whether inputs are feature maps (channels second).
        like: a tensor with the device and, but for half precision, the dtype to take.
        scale: factor of what is added.
    """

    def __init__(
        self, width: int, bottleneck: int, maps: bool, like: Tensor, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.maps, self.scale = maps, scale
        made: Any = {"device": like.device, "dtype": added_dtype(like)}
        self.down = nn.Linear(width, bottleneck, **made)
        self.up = nn.Linear(bottleneck, width, **made)
        with torch.no_grad():
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        last = x.movedim(1, -1) if self.maps else x
        added = self.scale * self.up(nn.functional.gelu(self.down(last.to(self.down.weight.dtype))))
        return x + (added.movedim(-1, 1) if self.maps else added).to(x.dtype)


class ParallelBottleneck(Bottleneck):
    """y + scale * up(relu(down(x))), of a feed-forward network's input x and output y.

    Args:
        width: D.
        bottleneck: inner width.
        like: a tensor with the device and, but for half precision, the dtype to take.
        scale: factor of what is added.
    """

    def __init__(self, width: int, bottleneck: int, like: Tensor, scale: float) -> None:
        super().__init__(width, bottleneck, False, like, scale)
        with torch.no_grad():
            nn.init.zeros_(self.down.bias)
        self.read: Tensor | None = None

    def forward(self, y: Tensor) -> Tensor:
        assert self.read is not None, "the feed-forward network's first layer is called before"
        x, self.read = self.read, None
        added = self.scale * self.up(nn.functional.relu(self.down(x.to(self.down.weight.dtype))))
        return y + added.to(y.dtype)


class BottleneckAdapter(Technique):
    """Train small bottleneck layers inside the frozen blocks, all norms, and the head.

    In a transformer block one adapter follows the attention's and one the feed-forward's output
    projection, before the residual sum; in a CNN one follows each block's last convolution, as
    a 1x1 convolution in the manner of Rebuffi, Bilen, Vedaldi (2018),
    https://arxiv.org/abs/1803.10082. With `place: beside` there is one adapter in each transformer
    block, which reads what the feed-forward network reads and adds to its output: the parallel
    adapter of He, Zhou, Ma, Berg-Kirkpatrick, Neubig (2022), https://arxiv.org/abs/2110.04366
    (`scale: 4`, or 2), and AdaptFormer of Chen, Ge, Tong, Wang, Song, Wang, Luo (2022),
    https://arxiv.org/abs/2205.13535 (`scale: 0.1`, `bottleneck: 64`, `train_norms: false`).

    Houlsby, Giurgiu, Jastrzebski, Morrone, de Laroussilhe, Gesmundo, Attariyan, Gelly (2019),
    https://arxiv.org/abs/1902.00751

    Args:
        bottleneck: inner width of each adapter.
        train_norms: train the normalisation layers too, as the paper does.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
        place: `after` attention and feed-forward network, or `beside` the latter; None for after.
        scale: factor of what an adapter adds; None for 1 after and 0.1 beside.
    """

    search_space = {"lr": LogUniform(1e-4, 5e-3), "bottleneck": Choice((8, 16, 32, 64))}

    def __init__(
        self,
        bottleneck: int = 32,
        train_norms: bool = True,
        lr: float = 1e-3,
        optim: Optimization = Optimization(),
        place: Literal["after", "beside"] | None = None,
        scale: float | None = None,
    ) -> None:
        super().__init__(lr, optim)
        if bottleneck < 1:
            raise ValueError(f"bottleneck must be at least 1, got {bottleneck}")
        if place not in (None, "after", "beside"):
            raise ValueError(f"place must be after or beside, got {place!r}")
        if scale is not None and scale <= 0:
            raise ValueError(f"scale must be above 0, got {scale}")
        self.bottleneck, self.train_norms, self.place = bottleneck, train_norms, place
        self.scale = (0.1 if place == "beside" else 1.0) if scale is None else scale

    def adapt(self, model: TaskModel) -> None:
        freeze_all_but_head(model)
        for block in model.blocks if self.train_norms else ():
            for _, module in block.named_modules():
                if is_norm(module):
                    module.requires_grad_(True)
        if self.place == "beside":
            self._put_beside(model)
            return
        places = insertion_points(model.blocks)
        if not places:
            raise Incompatible(
                "BottleneckAdapter finds no attention, feed-forward or convolution block",
                "take LoRA for this backbone",
            )
        for module, width in places:
            maps = isinstance(module, nn.Conv2d)
            like = next(module.parameters())
            module.add_module("adapter", Bottleneck(width, self.bottleneck, maps, like,
                                                    self.scale))
            module.register_forward_hook(_adapt_output)

    def _put_beside(self, model: TaskModel) -> None:
        networks = [pair for block in model.blocks for pair in feed_forward(block)]
        if not networks:
            raise Incompatible("BottleneckAdapter(place=beside): no block has a feed-forward network "
                               "behind attention", "leave `place` out, or take LoRA")
        for first, last in networks:
            beside = ParallelBottleneck(_width(last), self.bottleneck, last.weight, self.scale)
            last.add_module("adapter", beside)
            first.register_forward_pre_hook(partial(_read, beside))
            last.register_forward_hook(_adapt_output)


def _adapt_output(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    adapter = module.get_submodule("adapter")
    if isinstance(output, tuple):  # attention modules return their weights beside the output
        return (adapter(output[0]), *output[1:])
    return adapter(output)


def _read(beside: ParallelBottleneck, module: nn.Module, args: tuple[Any, ...]) -> None:
    beside.read = args[0]


def feed_forward(block: Block) -> list[tuple[Any, Any]]:
    """First and last linear layer of what follows a block's attention; none without attention."""
    linear = [(name, m) for name, m in _main(block)
              if isinstance(m, LAYERS) and not isinstance(m, nn.Conv2d)]
    attention = [i for i, (name, _) in enumerate(linear) if "att" in name.lower()]
    behind = [m for _, m in linear[attention[-1] + 1 :]] if attention else []
    return [(behind[0], behind[-1])] if len(behind) > 1 else []


def insertion_points(blocks: list[Block]) -> list[tuple[nn.Module, int]]:
    """Modules whose output gets an adapter, and the width of that output.

    In a network with attention: of each attention block, the last linear layer of its attention
    (the attention itself where that layer is never called) and the last linear layer of all,
    which project back to the residual stream. In others: of each block the last convolution,
    shortcuts apart.
    """
    return [p for block in blocks for p in _of_transformer(block)] or [
        p for block in blocks for p in _of_convolutions(block)
    ]


def _of_transformer(block: Block) -> list[tuple[nn.Module, int]]:
    modules = _main(block)
    attention = [m for name, m in modules if "att" in name.lower()]
    linear = [m for _, m in modules if isinstance(m, LAYERS) and not isinstance(m, nn.Conv2d)]
    within = [m for m in attention if m in linear]
    if not within:
        return []
    whole = [m for m in attention if type(m).__name__ in READS_WEIGHTS]
    first = whole[0] if whole else within[-1]
    return [(first, _width(within[-1])), (linear[-1], _width(linear[-1]))]


def _of_convolutions(block: Block) -> list[tuple[nn.Module, int]]:
    convolutions = [(name, m) for name, m in _main(block) if isinstance(m, nn.Conv2d)]
    trunk = [m for name, m in convolutions if not re.search("downsample|shortcut", name)]
    return [(m, m.out_channels) for m in trunk[-1:]]


def _main(block: Block) -> list[tuple[str, nn.Module]]:
    """Modules of a block's first path, by name from there; what joined the block is left out."""
    start = block.paths[0]
    return [
        (name.removeprefix(start), module)
        for name, module in block.named_modules()
        if name == start or name.startswith(start + ".")
    ]


def _width(layer: nn.Module) -> int:
    width: Any = layer.nf if hasattr(layer, "nf") else layer.out_features  # nf: GPT-2's Conv1D
    return int(width)
