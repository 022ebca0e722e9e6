"""Forward passes of a model that are looked into, and the tensors of what they give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.errors import Incompatible


@dataclass(frozen=True)
class Watched:
    """A forward pass that was looked into.

    Attributes:
        outputs: of the model.
        blocks: the first tensor that each watched block gave, (B, ...), by its name.
        read: what the head's last linear layer read; None where there is no new head.
        batch: of the pass.
    """

    outputs: Any
    blocks: Mapping[str, Tensor]
    read: Tensor | None
    batch: Mapping[str, Any]

    @property
    def features(self) -> Tensor:
        """The inputs (B, D) of the head's last linear layer.

        Raises:
            Incompatible: there is no new head with a linear layer.
        """
        if self.read is None:
            raise Incompatible("this task keeps the pre-trained output layer, so there are no "
                               "features that a head reads", "leave this technique out")
        if self.read.ndim == 3:  # (B, T, D)
            return last_token(self.read, self.batch["inputs"]["attention_mask"])
        return self.read.mean(dim=(2, 3)) if self.read.ndim == 4 else self.read


@contextmanager
def watching(model: nn.Module, head: nn.Module | None,
             blocks: Mapping[str, nn.Module]) -> Iterator[list[Watched]]:
    """List every pass that a model makes within.

    Args:
        model: called with a batch.
        head: its last linear layer, if it has a new one.
        blocks: what to look at, by name.

    Raises:
        Incompatible: a block is not computed.
    """
    passes: list[Watched] = []
    read: list[Tensor] = []
    given: dict[str, Tensor] = {}

    def collect(_: Any, arguments: tuple[Any, ...], outputs: Any) -> None:
        if missing := blocks.keys() - given.keys():
            raise Incompatible(f"nothing is computed in the blocks {', '.join(sorted(missing))}",
                               "let it watch others")
        passes.append(Watched(outputs, dict(given), read[-1] if read else None, arguments[0]))
        read.clear()
        given.clear()

    hooks = [block.register_forward_hook(partial(_keep, given, name))
             for name, block in blocks.items()]
    hooks.append(model.register_forward_hook(collect))
    if head is not None:
        hooks.append(head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0])))
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


def _keep(given: dict[str, Tensor], name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    given[name] = tensors(output)[0]


def tensors(outputs: Any) -> list[Tensor]:
    """The tensors of nested mappings and sequences, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, Mapping):
        return [tensor for value in outputs.values() for tensor in tensors(value)]
    if isinstance(outputs, list | tuple):
        return [tensor for value in outputs for tensor in tensors(value)]
    return []


def last_token(hidden: Tensor, mask: Tensor) -> Tensor:
    """The last real token of each text (B, D), whichever side is padded.

    Args:
        hidden: a vector a token (B, V + T, D); V virtual tokens may stand in front.
        mask: 1 for real tokens, 0 for padding (B, T).
    """
    width = mask.shape[1]
    positions = torch.arange(width, device=mask.device)
    last = (mask * positions).argmax(dim=1)  # (B,)
    return hidden[torch.arange(len(hidden), device=hidden.device), last - width]
