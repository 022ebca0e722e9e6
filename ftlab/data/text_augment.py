"""Random changes of training texts."""

from __future__ import annotations

import numpy as np

from ftlab.data.batches import checked_views


class TextAugment:
    """Drop and swap words: "easy data augmentation" without its synonyms.

    Each change follows from the run's seed, the epoch and the example alone, however many
    processes load. Words are what white space separates; at least one always stays.
    Source: Wei, Zou (2019), https://arxiv.org/abs/1901.11196

    Args:
        dropout: chance of each word to be dropped, at least 0 and below 1.
        swap: random pairs swapped, as a fraction of the words that are left, from 0 to 1.
        views: change each text in so many ways and no more, one an epoch in turn, the same in
            every run, so that a frozen prefix can be cached; null for ever new changes.
    """

    def __init__(self, dropout: float = 0.1, swap: float = 0.1,
                 views: int | None = None) -> None:
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        if not 0 <= swap <= 1:
            raise ValueError(f"swap must be between 0 and 1, got {swap}")
        self.views = checked_views(views)
        self.dropout = dropout
        self.swap = swap

    def __call__(self, text: str, *key: int) -> str:
        """The changed text; `key` (seed, epoch, example) fixes the change."""
        words = text.split()
        if not words:
            return text
        generator = np.random.default_rng(key)
        keep = generator.random(len(words)) >= self.dropout
        keep[generator.integers(len(words))] |= not keep.any()
        words = [word for word, kept in zip(words, keep, strict=True) if kept]
        # the random addend makes the expected number exact for short texts as well
        for _ in range(int(self.swap * len(words) + generator.random())):
            i, j = generator.integers(len(words), size=2)
            words[i], words[j] = words[j], words[i]
        return " ".join(words)
