"""Dropout over rows of several runs at once, with the masks that each run draws alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ftlab.training.declined import NotApplicable


def generator_of(device: torch.device) -> torch.Generator:
    """The one that dropout on a device draws from."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator


class SlotDropout(TorchFunctionMode):
    """Within it, each slot's rows drop out with random numbers of that slot alone.

    Rows of the slots lie one after another along the first axis, equally many of each. What
    draws otherwise than by `dropout` and `scaled_dot_product_attention` draws from PyTorch's own
    generator as ever, and `strayed` says so.

    Args:
        states: of the generator, one a slot; each goes on with what its slot draws.
        device: of the tensors.
    """

    def __init__(self, states: Sequence[Tensor], device: torch.device) -> None:
        super().__init__()
        self.states = list(states)
        self.generator = generator_of(device)
        self.draws = 0
        self.strayed = False

    def __enter__(self) -> Self:
        self._before = self.generator.get_state()
        super().__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        self.strayed |= not torch.equal(self.generator.get_state(), self._before)

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if function is functional.dropout:
            return self._dropout(*args, **named)
        if function is functional.scaled_dot_product_attention:
            return self._attention(*args, **named)
        return function(*args, **named)

    def _dropout(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return functional.dropout(input, p, training, inplace)
        return self.dropout(input, [p] * len(self.states), inplace)

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
        dropout_p: float = 0.0, **named: Any,
    ) -> Tensor:
        attend = functional.scaled_dot_product_attention
        if dropout_p == 0:
            return attend(query, key, value, attn_mask, **named)
        size = self._size(query)

        def of(slot: int) -> Tensor:
            own = slice(slot * size, (slot + 1) * size)
            mask = attn_mask
            if mask is not None and mask.ndim == query.ndim and len(mask) == len(query):
                mask = mask[own]
            return attend(query[own], key[own], value[own], mask, dropout_p, **named)

        return torch.cat([self._drawing(slot, of) for slot in range(len(self.states))])

    def dropout(self, input: Tensor, rates: Sequence[float], inplace: bool = False) -> Tensor:
        """Dropout with another probability a slot; a slot with none draws nothing."""
        size = self._size(input)

        def of(slot: int) -> Tensor:
            rows = input[slot * size : (slot + 1) * size]
            # not `functional.dropout`, which would come back here
            return torch.dropout(rows, rates[slot], True) if rates[slot] else rows

        whole = torch.cat([self._drawing(slot, of) for slot in range(len(rates))])
        return input.copy_(whole) if inplace else whole

    def _size(self, tensor: Tensor) -> int:
        if len(tensor) % len(self.states):
            raise NotApplicable("something drops out that has no rows of the examples")
        return len(tensor) // len(self.states)

    def _drawing(self, slot: int, act: Callable[[int], Tensor]) -> Tensor:
        self.draws += 1
        with drawing_from(self.generator, self.states, slot):
            return act(slot)


@contextmanager
def drawing_from(generator: torch.Generator, states: list[Tensor], slot: int) -> Iterator[None]:
    """Within it the generator goes on from a slot's state, which then goes on from there."""
    before = generator.get_state()
    generator.set_state(states[slot])
    try:
        yield
        states[slot] = generator.get_state()
    finally:
        generator.set_state(before)
