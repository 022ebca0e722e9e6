"""The values that pass through a model's modules in a forward pass, and their signatures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ftlab.backbones.passes import tensors
from ftlab.backbones.task_model import Batch, TaskModel

EXAMPLES, TOKENS, LABELS = "examples", "tokens", "labels"
"""Axes whose size changes from batch to batch."""
Sizes = Mapping[str, int]


class NotReplayable(Exception):
    """There is no frozen prefix, or its outputs cannot be identified; says why."""


class TracePoint(NamedTuple):
    """Where a value passes in a forward pass.

    Attributes:
        path: of a module in the model.
        call: number of the module's call, from 0.
        leaf: of what the call returned, from 0; -1 for its first argument.
    """

    path: str
    call: int
    leaf: int


@dataclass(frozen=True)
class TensorSignature:
    """The value of every batch in a place: a tensor of that dtype and those axes, or a constant."""

    dtype: torch.dtype | None = None
    axes: tuple[int | str, ...] = ()
    constant: Any = None

    @classmethod
    def of(cls, place: TracePoint, values: tuple[Any, Any], sizes: tuple[Sizes, Sizes]) -> TensorSignature:
        """From two batches, whose axes differ in size.

        Raises:
            NotReplayable: a shape follows from none of them.
        """
        one, other = values
        if not isinstance(one, Tensor):
            return cls(constant=one if isinstance(one, bool | int | float | str) else None)
        if not isinstance(other, Tensor) or one.ndim != other.ndim or one.dtype != other.dtype:
            raise NotReplayable(f"{place.path} does not give the same for every batch")
        axes: list[int | str] = []
        for number, pair in enumerate(zip(one.shape, other.shape, strict=True)):
            if pair[0] == pair[1]:
                axes.append(pair[0])
                continue
            names = [name for name in sizes[0] if pair == (sizes[0][name], sizes[1][name])
                     and (name == EXAMPLES) == (number == 0)]
            if not names:
                raise NotReplayable(f"{place.path} gives a shape that follows from no axis of the batch")
            axes.append(names[0])
        return cls(one.dtype, tuple(axes))

    def fits(self, value: Any, sizes: Sizes) -> bool:
        """Return whether a value has this signature, in a batch of those sizes."""
        if not isinstance(value, Tensor):
            return self.dtype is None
        return value.dtype == self.dtype and list(value.shape) == self._shape(sizes)

    def absent(self, sizes: Sizes, device: torch.device) -> Any:
        """In place of what nobody reads: NaN, so that whoever reads it after all shows."""
        if self.dtype is None:
            return self.constant
        nothing = torch.nan if self.dtype.is_floating_point else 0
        return torch.full(self._shape(sizes), nothing, dtype=self.dtype, device=device)

    def _shape(self, sizes: Sizes) -> list[int]:
        return [sizes[axis] if isinstance(axis, str) else axis for axis in self.axes]


@dataclass
class ForwardTrace:
    """The record of a forward pass.

    Attributes:
        values: in order.
        trees: structure of each call's output, by path and number of the call.
        outputs: the model's; none of a pass that was cut off.
    """

    values: dict[TracePoint, Any]
    trees: dict[tuple[str, int], pytree.TreeSpec]
    outputs: list[Tensor]


class _Enough(Exception):
    """All that is wanted of a forward pass has passed."""


def watch(
    model: TaskModel, batch: Batch, giving: Sequence[str], reading: Sequence[str],
    until: TracePoint | None = None,
) -> ForwardTrace:
    """A forward pass of a batch.

    Args:
        model: called once.
        batch: for it.
        giving: modules whose outputs are kept.
        reading: modules of which the one that is called first has its first argument kept.
        until: where to cut the pass off.
    """
    seen = ForwardTrace({}, {}, [])
    calls: Counter[str] = Counter()

    def enter(path: str, arguments: tuple[Any, ...]) -> None:
        if not any(place.leaf < 0 for place in seen.values) and arguments:
            seen.values[TracePoint(path, 0, -1)] = kept(arguments[0])
            if until == (path, 0, -1):
                raise _Enough

    def leave(path: str, output: Any) -> None:
        leaves, seen.trees[path, calls[path]] = pytree.tree_flatten(output)
        for number, leaf in enumerate(leaves):
            seen.values[TracePoint(path, calls[path], number)] = kept(leaf)
        calls[path] += 1
        if until is not None and until[:2] == (path, calls[path] - 1):
            raise _Enough

    handles = [model.get_submodule(path).register_forward_hook(
        lambda module, arguments, output, path=path: leave(path, output)) for path in giving]
    handles += [model.get_submodule(path).register_forward_pre_hook(
        lambda module, arguments, path=path: enter(path, arguments)) for path in reading]
    try:
        seen.outputs = tensors(model(batch))
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return seen


def kept(value: Any) -> Any:
    """Out of reach of what follows: many networks go on in place (ReLU after a norm)."""
    return value.clone() if isinstance(value, Tensor) else value


def some_rows(value: Any, chosen: Sequence[int]) -> Any:
    """Those examples of a batch, whatever is nested in it."""
    if isinstance(value, Mapping):
        return {name: some_rows(item, chosen) for name, item in value.items()}
    if isinstance(value, Tensor):
        return value[list(chosen)]
    return [value[i] for i in chosen]


def narrowed(value: Any, width: int, fewer: int) -> Any:
    """A tensor (B, width, ...) with so many columns fewer, or more where it has too few."""
    if not isinstance(value, Tensor) or value.ndim < 2 or value.shape[1] != width:
        return value
    if width < fewer + 2:
        return torch.cat([value, value[:, -1:].expand(-1, fewer, *value.shape[2:])], dim=1)
    # not at the ends, where some networks look for special tokens
    return torch.cat([value[:, :1], value[:, 1 + fewer :]], dim=1)
