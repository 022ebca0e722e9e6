"""Masks over the tokens of texts, and the texts cut into pieces that a network reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ftlab.data.token_cache import Tokenised


@dataclass(frozen=True)
class Masking:
    """Hide some tokens of each text, to be named.

    Of a text's tokens, special ones and unknown words aside, the rounded share is drawn, and one at
    least. Most of them become the mask token; some a random token, and some stay, so that the
    network must look at every place. Training draws anew in each epoch, from the run's seed, the
    epoch and the example alone; validation and test have the same masks in every run.

    Devlin, Chang, Lee, Toutanova (2019), https://arxiv.org/abs/1810.04805; anew in each epoch: Liu
    et al. (2019), https://arxiv.org/abs/1907.11692

    Args:
        share: of the tokens that are to be named, above 0 and below 1.
        random: of these, the part that becomes a random token, from 0 to 1.
        kept: of these, the part that stays as it is; the rest is masked.
    """

    share: float = 0.15
    random: float = 0.1
    kept: float = 0.1
    views: ClassVar[None] = None  # ever new masks

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share must be above 0 and below 1, got {self.share}")
        if min(self.random, self.kept) < 0 or self.random + self.kept > 1:
            raise ValueError("random and kept must be 0 or more and at most 1 together, got "
                             f"{self.random} and {self.kept}")

    def __call__(self, ids: Sequence[int], special: np.ndarray[Any, Any], mask: int,
                 *key: int) -> tuple[list[int], list[int]]:
        """Token ids with masks in them, and the places to be named, in ascending order.

        Args:
            ids: of a text, one at least not special.
            special: whether each id of the vocabulary is never to be named (V,).
            mask: id of the mask token.
            key: fixes the draw.
        """
        generator = np.random.default_rng(key)
        tokens = np.asarray(ids)
        ordinary = np.flatnonzero(~special[tokens])
        count = max(1, int(self.share * len(ordinary) + 0.5))
        places = np.sort(generator.choice(ordinary, count, replace=False))
        chance = generator.random(count)
        others = generator.choice(np.flatnonzero(~special), count)
        becomes = np.where(chance < self.random, others, mask)
        stays = chance >= 1 - self.kept
        masked = tokens.copy()
        masked[places] = np.where(stays, tokens[places], becomes)
        return masked.tolist(), places.tolist()


def pieces(tokenizer: Any, texts: Sequence[str], longest: int) -> Tokenised:
    """Texts as token `ids` with special ones around them, and the text's number as `owners`.

    One that is too long becomes several pieces, none of which overlap. `around` has one row, the
    ids around an empty text: not all tokenizers name them as special.
    """
    made = tokenizer(list(texts), truncation=True, max_length=longest, padding=False,
                     return_overflowing_tokens=True)
    owners = [[owner] for owner in made["overflow_to_sample_mapping"]]
    return Tokenised({"ids": made["input_ids"], "owners": owners, "around": [tokenizer("")["input_ids"]]})
