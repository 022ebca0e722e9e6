"""EfficientNet's tensors as efficientnet_pytorch names them, under timm's names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

_STEM = "_conv_stem.weight"


def is_efficientnet_pytorch(state: Mapping[str, Tensor]) -> bool:
    """Tell the names of https://github.com/lukemelas/EfficientNet-PyTorch and its kin."""
    return _STEM in state and "_fc.weight" in state


def as_timm(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The same tensors under timm's names; both list them in the order of computation.

    Args:
        state: as efficientnet_pytorch writes it.
        names: of timm's network of the same architecture, in its order.

    Raises:
        ValueError: another number of tensors.
    """
    return dict(zip(names, state.values(), strict=True))
