from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.backbones.block import Block
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
from ftlab.techniques.peft_injection import LAYERS, READS_WEIGHTS


class Bottleneck(nn.Module):
    """x + up(act(down(x))) over the channels of x: (..., D), or (B, D, H, W) for feature maps.

    `up` starts at zero, so the module starts as the identity.

    Args:
        width: D.
        bottleneck: inner width.
        maps: whether inputs are feature maps (channels second).
        like: a tensor with the device and dtype to take.
    """

    def __init__(self, width: int, bottleneck: int, maps: bool, like: Tensor) -> None:
        super().__init__()
        self.maps = maps
        self.down = nn.Linear(width, bottleneck, device=like.device, dtype=like.dtype)
        self.up = nn.Linear(bottleneck, width, device=like.device, dtype=like.dtype)
        with torch.no_grad():
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        last = x.movedim(1, -1) if self.maps else x
        added = self.up(nn.functional.gelu(self.down(last)))
        return x + (added.movedim(-1, 1) if self.maps else added)


class BottleneckAdapter(Technique):
    """Train small bottleneck layers inside the frozen blocks, all norms, and the head.

    In a transformer block one adapter follows the attention's and one the feed-forward's output
    projection, before the residual sum; in a CNN one follows each block's last convolution, as
    a 1x1 convolution in the manner of Rebuffi, Bilen, Vedaldi (2018),
    https://arxiv.org/abs/1803.10082.

    Houlsby, Giurgiu, Jastrzebski, Morrone, de Laroussilhe, Gesmundo, Attariyan, Gelly (2019),
    https://arxiv.org/abs/1902.00751

    Args:
        bottleneck: inner width of each adapter.
        train_norms: train the normalisation layers too, as the paper does.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-4, 5e-3), "bottleneck": Choice((8, 16, 32, 64))}

    def __init__(
        self,
        bottleneck: int = 32,
        train_norms: bool = True,
        lr: float = 1e-3,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__(lr, optim)
        if bottleneck < 1:
            raise ValueError(f"bottleneck must be at least 1, got {bottleneck}")
        self.bottleneck, self.train_norms = bottleneck, train_norms

    def adapt(self, model: TaskModel) -> None:
        freeze_all_but_head(model)
        for block in model.blocks if self.train_norms else ():
            for _, module in block.named_modules():
                if is_norm(module):
                    module.requires_grad_(True)
        places = insertion_points(model.blocks)
        if not places:
            raise Incompatible(
                "BottleneckAdapter finds no attention, feed-forward or convolution block",
                "take LoRA for this backbone",
            )
        for module, width in places:
            maps = isinstance(module, nn.Conv2d)
            like = next(module.parameters())
            module.add_module("adapter", Bottleneck(width, self.bottleneck, maps, like))
            module.register_forward_hook(_adapt_output)


def _adapt_output(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    adapter = module.get_submodule("adapter")
    if isinstance(output, tuple):  # attention modules return their weights beside the output
        return (adapter(output[0]), *output[1:])
    return adapter(output)


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
