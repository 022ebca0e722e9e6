"""Ordered blocks of any network, found by its structure.

A *block* is what repeats: a non-primitive module that sits in a plain `nn.ModuleList` or
`nn.Sequential`, or beside siblings of its own class. Blocks are not entered. Stages (class name
ending in `Stage`) and modules that hold blocks somewhere below are entered. What comes before the
first block is the first block of its own (`embeddings` or `stem`); what comes between or after
blocks (final norms, poolers, downsampling) joins the block before it.

The order is that of registration, with one correction: embedding tables, their norms, loose
parameters and dropouts outside any block are applied to the input in some architectures although
registered last (DeBERTa, MPNet, BART, T5). They join the first block, which is always exact for a
frozen prefix: nothing in front of a block ever depends on a later one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from torch import nn

from ftlab.backbones.block import lies_below

_PLAIN = (nn.ModuleList, nn.Sequential, nn.ModuleDict)
_BETWEEN = re.compile("Merging|Downsampl|Transition")  # leads from one stage to the next


def find_blocks(network: nn.Module, head: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Name and paths of each block, input to output, the embedding or stem first.

    Args:
        network: any network.
        head: paths of the task's head, which belongs to no block.

    Raises:
        ValueError: a parameter outside the head is not in exactly one block.
    """
    walk = _Walk(head)
    walk.enter(network, "")
    blocks = walk.blocks() if walk.elements else _layer_by_layer(network, head)
    _check(network, blocks, head)
    return blocks


def with_dropout(network: nn.Module, head: Sequence[str]) -> list[str]:
    """The head's paths with the dropouts that come right before it, input first.

    These are siblings of the head that are registered after the network's last parameter: were
    they left to the last block, freezing it would switch the head's dropout off.
    """
    paths: list[str] = []
    for path in head:
        parent = path.rpartition(".")[0]
        siblings = list(_children(network.get_submodule(parent), parent))
        last = max((i for i, (at, child) in enumerate(siblings)
                    if not lies_below(at, head) and any(True for _ in child.parameters())),
                   default=-1)
        paths += [at for at, child in siblings[last + 1:]
                  if isinstance(child, nn.Dropout) and at not in paths]
    return [*(path for path in paths if path not in head), *head]


class _Walk:
    """Top down, in registration order."""

    def __init__(self, head: Sequence[str]) -> None:
        self.head = head
        self.first: list[str] = []
        self.loose: list[str] = []
        self.elements: list[list[str]] = []
        self.current = self.first  # what a module between elements joins

    def enter(self, module: nn.Module, path: str) -> None:
        self.loose += [at for name, _ in module.named_parameters(recurse=False)
                       if not lies_below(at := _join(path, name), self.head)]
        children = list(_children(module, path))
        classes = Counter(type(child) for _, child in children if _is_compound(child))
        for at, child in children:
            repeated = _is_container(module) or classes[type(child)] > 1
            self.place(at, child, module, repeated)

    def place(self, path: str, module: nn.Module, parent: nn.Module, repeated: bool) -> None:
        if lies_below(path, self.head) or not _matters(module):
            return
        if self.must_enter(path, module, repeated, _is_container(parent)):
            self.enter(module, path)
            self.current = self.elements[-1] if self.elements else self.first
        elif repeated and _is_compound(module) and not _BETWEEN.search(type(module).__name__):
            self.elements.append([path])
            self.current = self.elements[-1]
        elif _reads_input(path, module):
            self.first.append(path)
            self.current = self.first
        elif _is_dropout(module) and not _is_container(parent):
            self.loose.append(path)  # its place is in the parent's forward, not in the structure
        else:
            self.current.append(path)

    def must_enter(self, path: str, module: nn.Module, repeated: bool, listed: bool) -> bool:
        if type(module) in _PLAIN or any(lies_below(at, [path]) for at in self.head):
            return True
        if not _holds_elements(module, _PLAIN):
            return _is_stage(module) and any(_is_compound(child) for child in module.children())
        # two towers of one class (T5's encoder and decoder) are not blocks, but hold a ModuleList
        return (_is_stage(module) or not repeated
                or (not listed and _holds_elements(module, (nn.ModuleList,))))

    def blocks(self) -> list[tuple[str, list[str]]]:
        blocks = [(paths[0], paths) for paths in self.elements]
        if not self.first:
            blocks[0][1].extend(self.loose)
            return blocks
        first = self.loose + self.first
        name = "embeddings" if any("embed" in path for path in first) else "stem"
        if any("wte" in path or "tok" in path for path in first):
            name = "embeddings"
        return [(name, first), *blocks]


def _layer_by_layer(network: nn.Module, head: Sequence[str]) -> list[tuple[str, list[str]]]:
    """VGG, AlexNet: nothing repeats, so every layer with a weight matrix is a block."""
    loose: list[str] = []
    blocks: list[tuple[str, list[str]]] = []
    for path, module in network.named_modules():
        if lies_below(path, head):
            continue
        names = [_join(path, name) for name, _ in module.named_parameters(recurse=False)]
        weight = getattr(module, "weight", None)
        if names and any(True for _ in module.children()):
            loose += [name for name in names if not lies_below(name, head)]
        elif weight is not None and weight.ndim > 1:
            blocks.append((path, [path]))
        elif path and _matters(module) and not any(True for _ in module.children()):
            (blocks[-1][1] if blocks else loose).append(path)
    if blocks:
        blocks[0][1].extend(loose)
    return blocks


def _check(network: nn.Module, blocks: list[tuple[str, list[str]]], head: Sequence[str]) -> None:
    for name, _ in network.named_parameters():
        holders = [block for block, paths in blocks if lies_below(name, paths)]
        if len(holders) + lies_below(name, head) != 1:
            raise ValueError(f"{type(network).__name__}: the parameter {name} is in "
                             f"{holders or 'no block'}, must be in exactly one of blocks and head")


def _children(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    return ((_join(path, name), child) for name, child in module.named_children())


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is_stage(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Stage")


def _is_container(module: nn.Module) -> bool:
    return type(module) in _PLAIN or (_is_stage(module) and isinstance(module, _PLAIN))


def _is_compound(module: nn.Module) -> bool:
    """Return whether it has parameters in modules of its own: no layer, and no plain container."""
    return type(module) not in _PLAIN and any(
        True for child in module.children() for _ in child.parameters())


def _is_dropout(module: nn.Module) -> bool:
    return "Drop" in type(module).__name__ and not any(True for _ in module.parameters())


def _matters(module: nn.Module) -> bool:
    """Return whether it has tensors, or behaves differently in training."""
    return (any(True for _ in module.parameters()) or any(True for _ in module.buffers())
            or any(_is_dropout(part) for part in module.modules()))


def _reads_input(path: str, module: nn.Module) -> bool:
    """An embedding table, or a norm of embeddings."""
    if any(isinstance(part, nn.Embedding) for part in module.modules()):
        return True
    is_layer = not any(True for _ in module.children())
    return is_layer and "emb" in path.rpartition(".")[2] and "Norm" in type(module).__name__


def _holds_elements(module: nn.Module, containers: tuple[type, ...]) -> bool:
    return any(type(part) in containers and any(_is_compound(child) for child in part.children())
               for part in module.modules())
