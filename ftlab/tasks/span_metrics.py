"""Strict scores of entities, and accuracy of words, summable over batches and processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from ftlab.tasks.jackknife import Array, pseudovalues, ratio
from ftlab.tasks.spans import OUTSIDE, Scheme, spans


def word_tags(logits: Tensor,
              target: Mapping[str, Any]) -> tuple[list[list[int]], list[list[float]]]:
    """The predicted tag and its probability for each word of whole sentences.

    Words without a token (cut, or of characters that the tokenizer drops) have tag -1, which
    counts as `O`, with probability 0.

    Args:
        logits: (B, T, C).
        target: as `Tagging.stack` makes it.
    """
    certain, chosen = logits.float().softmax(dim=-1).max(dim=-1)
    tags: list[list[int]] = []
    scores: list[list[float]] = []
    for row, gold in enumerate(target["tags"]):
        words = target["words"][row]
        first = words >= 0
        places = words[first].tolist()
        tags.append([-1] * len(gold))
        scores.append([0.0] * len(gold))
        for place, tag, score in zip(places, chosen[row][first].tolist(),
                                     certain[row][first].tolist(), strict=True):
            tags[-1][place], scores[-1][place] = tag, score
    return tags, scores


def names(indices: Sequence[int], tags: Sequence[str]) -> list[str]:
    """Tags by name; -1 is `O`."""
    return [tags[i] if i >= 0 else OUTSIDE for i in indices]


class SpanScores(Metric):
    """Micro precision, recall and F1 of entities, F1 a type, and accuracy of words.

    An undefined ratio (no entity at all, say) is 0, as in seqeval and scikit-learn; a type in
    neither truth nor prediction has none.

    Args:
        tags: in the order of the logits.
        types: of entities, for F1 a type.
        scheme: of the tags.
    """

    higher_is_better = True
    parts = ("precision", "recall", "f1", "accuracy")
    full_state_update = False
    hits: Tensor
    predicted: Tensor
    actual: Tensor
    right: Tensor
    words: Tensor

    def __init__(self, tags: Sequence[str], types: Sequence[str], scheme: Scheme) -> None:
        super().__init__()
        self.tags = list(tags)
        self.types = list(types)
        self.scheme = scheme
        for name in ("hits", "predicted", "actual"):
            zeros = torch.zeros(len(self.types), dtype=torch.long)
            self.add_state(name, zeros, dist_reduce_fx="sum")
        for name in ("right", "words"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Mapping[str, Any]) -> None:
        """Count the entities and words of a batch."""
        chosen, _ = word_tags(logits, target)
        for ours, gold in zip(chosen, target["tags"], strict=True):
            read, meant = names(ours, self.tags), names(gold, self.tags)
            found, true = spans(read, self.scheme), spans(meant, self.scheme)
            for counts, entities in ((self.hits, found & true), (self.predicted, found),
                                     (self.actual, true)):
                for _, _, kind in entities:
                    if kind in self.types:  # with the scheme none, a cut word's O may be none
                        counts[self.types.index(kind)] += 1
            self.right += sum(a == b for a, b in zip(read, meant, strict=True))
            self.words += len(gold)

    def compute(self) -> dict[str, Tensor]:
        """`precision`, `recall`, `f1` and `accuracy`, and the vector `f1_by_type`."""
        hits, predicted, actual = self.hits.sum(), self.predicted.sum(), self.actual.sum()
        return {
            "precision": _ratio(hits, predicted),
            "recall": _ratio(hits, actual),
            "f1": _ratio(2 * hits, predicted + actual),
            "accuracy": _ratio(self.right, self.words),
            "f1_by_type": 2 * self.hits / (self.predicted + self.actual),  # nan where 0 / 0
        }


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part.float() / whole.float().clamp(min=1)


def contributions(metric: str, target: Sequence[Sequence[str]], prediction: Sequence[Sequence[str]],
                  scheme: Scheme) -> Array | None:
    """What each sentence adds to a micro metric, (N,), from tags a word; None for another."""
    counts = np.array([_counted(true, said, scheme)
                       for true, said in zip(target, prediction, strict=True)], dtype=np.float64)
    hits, predicted, actual, right, words = range(5)
    parts = {"precision": ([hits], [predicted]), "recall": ([hits], [actual]),
             "f1": ([hits, hits], [predicted, actual]), "accuracy": ([right], [words])}
    if metric not in parts:
        return None
    part, whole = parts[metric]
    return pseudovalues(counts, lambda sums: ratio(sums[..., part].sum(axis=-1),
                                                   sums[..., whole].sum(axis=-1)))


def _counted(true: Sequence[str], said: Sequence[str], scheme: Scheme) -> tuple[int, ...]:
    found, meant = spans(said, scheme), spans(true, scheme)
    right = sum(a == b for a, b in zip(true, said, strict=True))
    return len(found & meant), len(found), len(meant), right, len(true)
