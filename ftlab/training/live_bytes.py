"""Bytes of tensors that are alive, counted as they are made and freed.

`torch.distributed._tools.mem_tracker` does the same with the names of modules, ten times as slowly,
and takes no model in which something is frozen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the storages of all tensors that are computed within, real or fake, each once.

    Attributes:
        now: bytes that are alive.
        peak: the highest of them so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def add(self, tensors: Iterable[Tensor]) -> int:
        """Count tensors that were made outside; returns the bytes that were not known before."""
        before = self.now
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if (key := storage._cdata) not in self._known:
                size = storage.nbytes()
                self._known.add(key)
                self.now += size
                weakref.finalize(storage, self._freed, key, size)
        self.peak = max(self.peak, self.now)
        return self.now - before

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.add(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result
