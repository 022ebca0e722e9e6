"""PEFT's methods: the layers that each one is right on, its sizes, and how it starts.

Found by measuring each method on each kind of layer (tests/techniques/test_peft_methods.py): PEFT
itself takes layers on which a method is wrong (OFT on convolutions of more than a pixel), or adapts
nothing and says nothing (OSF).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn
from transformers.pytorch_utils import Conv1D

from ftlab.wording import did_you_mean

LINEAR, TRANSPOSED = "linear layers", "transposed linear layers (Conv1D)"
PIXEL, CONVOLUTION = "1x1 convolutions", "larger convolutions"
GROUPED = "grouped convolutions"
LINEARS = frozenset({LINEAR, TRANSPOSED})
ALL_BUT_GROUPED = frozenset({LINEAR, TRANSPOSED, PIXEL, CONVOLUTION})


def kind_of(layer: nn.Module) -> str:
    """Name what a layer is to PEFT's methods."""
    if isinstance(layer, nn.Conv2d):
        if layer.groups > 1:
            return GROUPED
        return PIXEL if layer.kernel_size == (1, 1) else CONVOLUTION
    return TRANSPOSED if isinstance(layer, Conv1D) else LINEAR


def widths(layer: nn.Module) -> tuple[int, int]:
    """Inputs, of all the kernel's pixels together, and outputs of a layer."""
    if isinstance(layer, nn.Linear):  # whose weight may be packed
        return layer.in_features, layer.out_features
    weight: Any = layer.weight
    if isinstance(layer, Conv1D):
        return int(weight.shape[0]), int(weight.shape[1])
    return weight[0].numel(), int(weight.shape[0])


@dataclass(frozen=True)
class Size:
    """A setting that layers allow some values of.

    Args:
        key: in the method's config.
        fits: whether a layer of so many inputs and outputs allows a value.
        least: values below it adapt nothing.
    """

    key: str
    fits: Callable[[int, int, int], bool]
    least: int = 1

    def choose(self, wanted: int, layers: Collection[nn.Module]) -> int | None:
        """Find the largest value up to a wanted one that all layers allow; None where there is none."""
        shapes = {widths(layer) for layer in layers}
        return next((value for value in range(wanted, self.least - 1, -1)
                     if all(self.fits(value, *shape) for shape in shapes)), None)


@dataclass(frozen=True)
class PeftMethod:
    """What ftlab holds one of PEFT's methods to.

    Args:
        kinds: the layers that it is right on.
        size: the setting that must fit the layers.
        apart: values of its `init_weights` with which it does not start as the identity.
        narrower: values of `init_weights` that are right on fewer kinds.
        merges: whether weights of the layers can hold it.
        half: whether float32 adapters go with weights in half precision.
        quantized: whether it computes on quantised weights what it does on those they stand for;
            PEFT says nothing of some that do not (HRA and DEFT read 8-bit integers as weights).
        hidden: settings that ftlab makes itself, or does not hold to anything.
        alone: False where it takes more than layers, and so a class of its own.
    """

    kinds: Collection[str] = frozenset({LINEAR})
    size: Size | None = None
    apart: tuple[Any, ...] = (False,)
    narrower: Mapping[str, Collection[str]] = field(default_factory=dict)
    merges: bool = True
    half: bool = True
    quantized: bool = False
    hidden: tuple[str, ...] = ()
    alone: bool = True


def _divides_input(value: int, inputs: int, outputs: int) -> bool:
    return inputs % value == 0


def divides_both(value: int, inputs: int, outputs: int) -> bool:
    """Return whether blocks of a width fill a layer on both sides."""
    return inputs % value == 0 and outputs % value == 0


def _entries(value: int, inputs: int, outputs: int) -> bool:
    return value <= inputs * outputs


def below_both(value: int, inputs: int, outputs: int) -> bool:
    """Return whether a matrix of a layer's shape has so many singular values."""
    return value <= min(inputs, outputs)


METHODS: dict[str, PeftMethod] = {
    "lora": PeftMethod(
        ALL_BUT_GROUPED,
        narrower={"pissa": LINEARS, "olora": {LINEAR}, "orthogonal": LINEARS}, quantized=True),
    "adalora": PeftMethod(ALL_BUT_GROUPED, alone=False, quantized=True),
    "ia3": PeftMethod(ALL_BUT_GROUPED | {GROUPED}, quantized=True),
    "hira": PeftMethod(ALL_BUT_GROUPED, quantized=True),
    # with Gram-Schmidt its pairs of reflections no longer start as the identity
    "hra": PeftMethod({LINEAR, PIXEL, CONVOLUTION}, hidden=("apply_GS",)),
    "loha": PeftMethod({LINEAR, PIXEL, CONVOLUTION, GROUPED}),
    "lokr": PeftMethod({LINEAR, PIXEL, CONVOLUTION, GROUPED}),
    "boft": PeftMethod(
        # without its compiled CUDA code PEFT makes one factor of any number, in silence
        {LINEAR, PIXEL, CONVOLUTION}, hidden=("boft_block_num", "boft_n_butterfly_factor"),
        size=Size("boft_block_size", lambda v, i, o: v % 2 == 0 and i % v == 0, 2), quantized=True),
    "oft": PeftMethod({LINEAR, PIXEL}, Size("oft_block_size", _divides_input, 2), hidden=("r",),
                      quantized=True),
    "vera": PeftMethod(LINEARS, quantized=True),
    "pvera": PeftMethod(LINEARS, quantized=True),
    "vblora": PeftMethod(LINEARS, Size("vector_length", divides_both, 2), apart=(None,), quantized=True),
    "randlora": PeftMethod(LINEARS, Size("r", below_both), quantized=True),
    "fourierft": PeftMethod(LINEARS, Size("n_frequency", _entries), quantized=True),
    "waveft": PeftMethod(LINEARS, Size("n_frequency", _entries), quantized=True),
    "gralora": PeftMethod(LINEARS, hidden=("hybrid_r",), quantized=True),
    "tinylora": PeftMethod(LINEARS),
    "unilora": PeftMethod(LINEARS, apart=(True, False)),
    "deft": PeftMethod(LINEARS),
    "c3a": PeftMethod(
        size=Size("block_size", divides_both, 2),
        apart=(False, "xavier_uniform", "kaiming_uniform", "gaussian"), quantized=True),
    "miss": PeftMethod(size=Size("r", lambda v, i, o: v <= i), quantized=True),
    "shira": PeftMethod(size=Size("r", lambda v, i, o: v * (i + o) <= i * o), quantized=True),
    "road": PeftMethod(size=Size("group_size", lambda v, i, o: v % 2 == 0 and o % v == 0, 2), quantized=True),
    "delora": PeftMethod(half=False),
    "psoft": PeftMethod(size=Size("r", below_both)),
    "peanut": PeftMethod(),
    "glora": PeftMethod(),
    "beft": PeftMethod(quantized=True),
    "lily": PeftMethod(merges=False, quantized=True),
}


def find(method: str) -> PeftMethod:
    """Look a method up.

    Raises:
        ValueError: PEFT has none of this name, or ftlab does not hold it.
    """
    if method in METHODS:
        return METHODS[method]
    ours = [name for name, known in METHODS.items() if known.alone]
    if method in {kind.value.lower() for kind in PEFT_TYPE_TO_CONFIG_MAPPING}:
        raise ValueError(f"PEFT's {method} is not a method of layers that ftlab can hold to its "
                         f"paper; method is {did_you_mean(method, ours)}")
    raise ValueError(f"PEFT has no method {method!r} ({did_you_mean(method, ours)})")
