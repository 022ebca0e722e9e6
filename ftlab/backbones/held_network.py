"""Networks that this process holds, for those that are forked from it to take."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_held: dict[Hashable, Any] = {}
_new: list[Hashable] | None = None


@contextmanager
def holding() -> Iterator[list[Hashable]]:
    """Within it networks that are loaded are held, and their users get copies; gives their keys."""
    global _new
    _new = []
    try:
        yield _new
    finally:
        _new = None


def taken(key: Hashable, load: Callable[[], tuple[Any, set[str]]]) -> tuple[Any, set[str]]:
    """The held network if it is there, which is then held no more; otherwise what `load` gives.

    One that lacks tensors is not held: those are drawn anew each time.

    Args:
        key: of the network.
        load: reads the network; also returns the names of the tensors that it lacks.
    """
    if _new is None and key in _held:
        return _held.pop(key), set()
    network, lacking = load()
    if _new is not None and not lacking:
        _held[key] = network
        _new.append(key)
        return copy.deepcopy(network), lacking
    return network, lacking


def forget(keys: Iterable[Hashable]) -> None:
    """Hold these no more."""
    for key in keys:
        _held.pop(key, None)
