"""Copies of a data module that differ in one respect: what a run changes, it changes in a copy."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

from ftlab.backbones.task_model import CachedRows
from ftlab.data.examples import SPLITS, STREAM, Examples, SplitName, kind_of
from ftlab.data.sampling import Sampling
from ftlab.data.train_batches import Update
from ftlab.data.withheld import Withheld


class Variants:
    """A mixin of `DataModule`. A copy shares with its original whatever it does not change."""

    plain: bool = False
    """Without any shortcut."""
    pinned: bool = False
    """Whether batches lie in memory that a GPU copies from while it computes."""
    update: Update = Update()
    """How training batches become one."""
    cached: Mapping[str, CachedRows] = MappingProxyType({})
    """Cached rows of a split's examples, or of a view of them; batches bring them as `prefix`."""
    blank_inputs: bool = False
    """Whether cached rows replace the inputs too, whose values are not read."""

    splits: dict[SplitName, Examples]
    streams: Sequence[str] = ()
    """Names of the streams that training batches bring along."""

    def with_streams(self, names: Iterable[str]) -> Self:
        """A copy whose training batches bring these streams along, and no others."""
        return self._copy(streams=tuple(sorted(names)))

    def sampled_by(self, sampling: Sampling) -> Self:
        """A copy that draws its training examples in another way."""
        return self._copy(sampling=sampling)

    def without_training(self, reason: str, streams: bool = False) -> Self:
        """A copy whose training examples are refused to whoever reads them; see `Withheld`."""
        return self._copy(splits=Withheld(self.splits, reason, streams))

    def needed(self, whole: bool) -> tuple[SplitName, ...]:
        """The splits that a run reads.

        Args:
            whole: False for a trial of a sweep, which is not tested.
        """
        others = [name for name in self.splits if not name.startswith(STREAM)] if whole else SPLITS[:2]
        return (*others, *(f"{STREAM}{name}" for name in self.streams))

    def without_shortcuts(self) -> Self:
        """A copy that reads and prepares everything anew."""
        return self._copy(plain=True)

    def in_pinned_memory(self) -> Self:
        """A copy whose batches a GPU copies while it computes."""
        return self._copy(pinned=True)

    def updated_by(self, update: Update) -> Self:
        """A copy whose training batches become one in another way."""
        return self._copy(update=update)

    def with_cached(self, cached: Mapping[str, CachedRows], blank_inputs: bool = False) -> Self:
        """A copy whose batches bring cached rows.

        Args:
            cached: by the names of `cached_names`; empty for batches of inputs alone.
            blank_inputs: whether the values of inputs are not read.
        """
        return self._copy(cached=dict(cached), blank_inputs=blank_inputs)

    @property
    def views(self) -> int | None:
        """In how many ways augmentation changes each example; None for ever new ones."""
        return getattr(getattr(self, "augment", None), "views", None)

    def cached_names(self, splits: Sequence[SplitName], epochs: int) -> dict[str, SplitName]:
        """The names of cached rows, and the split of each: every view of what trains has a name.

        Args:
            splits: that will be read.
            epochs: of training; each sees one view.
        """
        views = [f"/{view}" for view in range(min(self.views or 0, epochs))] or [""]
        return {f"{split}{view}": split for split in splits
                for view in (views if kind_of(split) == "train" else [""])}

    def _copy(self, **attributes: Any) -> Self:
        changed = copy.copy(self)
        vars(changed).update(attributes)
        return changed
