"""How integers stand for a layer's weights: so many bits each, and a scale of each group."""

from __future__ import annotations

import math
from collections.abc import Sequence

BITS = {"int8": 8, "int4": 4}
"""Bits of a weight, by the name of what a model is quantised to."""
GROUP = 32
"""Weights of a 4-bit group at most, as in GGUF's Q4_0; a scale of float32 makes them 5 bits each."""
LEAST = 8
"""Weights of a group at least, or its scale would take as much as what it saves."""


def block_of(shape: Sequence[int], name: str) -> tuple[int, ...] | None:
    """The part of a weight that has one scale; None where the weight has none that is large enough.

    8 bits have a scale for each output, 4 bits for each group of its inputs that lie side by side:
    the largest number of inputs that divides them all with at most GROUP weights.

    Args:
        shape: outputs, inputs, and of a convolution its kernel.
        name: of BITS.
    """
    _, inputs, *kernel = shape
    area = math.prod(kernel)
    group = inputs
    if BITS[name] < 8:
        most = max(1, GROUP // area)
        group = next(size for size in range(min(most, inputs), 0, -1) if inputs % size == 0)
    return None if group * area < LEAST else (1, group, *kernel)
