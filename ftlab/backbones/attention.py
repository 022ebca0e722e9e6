"""How a transformer of Hugging Face computes its attention: by which of the library's functions."""

from __future__ import annotations

from typing import Any, Literal

import torch
from transformers.utils.import_utils import is_flash_attn_2_available

from ftlab.errors import Incompatible, InputError

Attention = Literal["sdpa", "eager", "flash_attention_2"]

_SUPPORTS = {"sdpa": "_supports_sdpa", "flash_attention_2": "_supports_flash_attn"}


def check_attention(attention: Attention | None, dtype: str, label: str) -> None:
    """Refuse a function that is not here; transformers would take another, or download one.

    Raises:
        InputError: with what is lacking.
    """
    if attention != "flash_attention_2":
        return
    if not is_flash_attn_2_available():
        lacks = "a GPU" if not torch.cuda.is_available() else "the package flash-attn"
        raise InputError(f"{label}: attention flash_attention_2 needs {lacks}, which is not here",
                         "set attention: sdpa, or pip install flash-attn on a machine with a GPU")
    if dtype == "float32":
        raise InputError(f"{label}: attention flash_attention_2 computes in bfloat16 or float16, and the "
                         "weights are float32", "set dtype: bfloat16, or attention: sdpa")


def check_supported(network_class: Any, config: Any, label: str) -> None:
    """Refuse a function that an architecture's code does not take.

    Args:
        network_class: of transformers.
        config: with `_attn_implementation`; null is the library's choice.
        label: whose, for messages.

    Raises:
        Incompatible: with the one that it takes.
    """
    wanted = config._attn_implementation
    if wanted in _SUPPORTS and not getattr(network_class, _SUPPORTS[wanted], False):
        raise Incompatible(f"{label}: transformers has no attention {wanted} for {config.model_type}",
                           "set attention: eager, or leave it out")
