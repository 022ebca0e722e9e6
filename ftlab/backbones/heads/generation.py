"""The parts that networks which generate text share."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def written(tokenizer: Any, tokens: Tensor) -> list[str]:
    """The texts of generated tokens (B, T), special ones left out.

    As they were written: many checkpoints ask for spaces to be "cleaned up" after English rules,
    which makes "Bonjour !" wrong where it is right.
    """
    texts: list[str] = tokenizer.batch_decode(tokens, skip_special_tokens=True,
                                              clean_up_tokenization_spaces=False)
    return texts
