"""Blocks in the order in which a network really runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from torch import nn

from ftlab.backbones.block import lies_below


def in_execution_order(network: nn.Module, blocks: Sequence[tuple[str, Sequence[str]]],
                       run: Callable[[], object]) -> list[tuple[str, list[str]]]:
    """Blocks sorted by their first call; those whose calls interleave become one.

    Afterwards every call inside a block comes before every call inside the next, so nothing in
    front of a block can depend on it. The first block stays in front: it holds what is registered
    outside any module (position embeddings), whenever it is read.

    Args:
        network: registers its modules in any order.
        blocks: name and paths of each, every parameter in exactly one or in the head.
        run: calls the network once.
    """
    spans: list[tuple[int, int] | None] = [None] * len(blocks)
    clock = count(1)

    def note(index: int) -> Callable[..., None]:
        def hook(*_: object) -> None:
            now, span = next(clock), spans[index]
            spans[index] = (now, now) if span is None else (span[0], now)
        return hook

    hooks = [module.register_forward_pre_hook(note(index))
             for path, module in network.named_modules()
             for index, (_, paths) in enumerate(blocks)
             if any(True for _ in module.parameters(recurse=False)) and lies_below(path, paths)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    first = spans[0] or (0, 0)
    spans[0] = (0, first[0])  # later calls (shared position biases) read what is in front anyway
    for index in range(1, len(spans)):  # weights that no call shows: beside the block before
        before = spans[index - 1] or (0, 0)
        spans[index] = spans[index] or (before[1], before[1])
    return _merged([(span or (0, 0), name, list(paths))
                    for span, (name, paths) in zip(spans, blocks, strict=True)])


def _merged(blocks: list[tuple[tuple[int, int], str, list[str]]]) -> list[tuple[str, list[str]]]:
    groups: list[tuple[str, list[str]]] = []
    end = -1
    for (begin, last), name, paths in sorted(blocks, key=lambda block: block[0][0]):
        if begin < end:
            groups[-1][1].extend(paths)
        else:
            groups.append((name, paths))
        end = max(end, last)
    return groups
