"""Strict scores of entities, and accuracy of words, summable over batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torchmetrics
from torch import Tensor

from ftlab.tasks.jackknife import Array, pseudovalues, ratio
from ftlab.tasks.metric import Metric, Records
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


class SpanScores(torchmetrics.Metric):
    """Micro precision, recall and F1 of entities, F1 a type, and accuracy of words.

    An undefined ratio (no entity at all, say) is 0, as in seqeval and scikit-learn; a type in
    neither truth nor prediction has none.

    Args:
        tags: in the order of the logits.
        types: of entities, for F1 a type.
        scheme: of the tags.
    """

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
        for tags, gold in zip(chosen, target["tags"], strict=True):
            read, meant = names(tags, self.tags), names(gold, self.tags)
            ours, true = spans(read, self.scheme), spans(meant, self.scheme)
            for counts, entities in ((self.hits, ours & true), (self.predicted, ours),
                                     (self.actual, true)):
                for _, _, kind in entities:
                    if kind in self.types:  # with the scheme none, a cut word's O may be none
                        counts[self.types.index(kind)] += 1
            self.right += sum(a == b for a, b in zip(read, meant, strict=True))
            self.words += len(gold)

    def compute(self) -> dict[str, Tensor]:
        """`precision`, `recall`, `f1` and `accuracy`, and the vector `f1/<class>`."""
        hits, predicted, actual = self.hits.sum(), self.predicted.sum(), self.actual.sum()
        return {
            "precision": _ratio(hits, predicted),
            "recall": _ratio(hits, actual),
            "f1": _ratio(2 * hits, predicted + actual),
            "accuracy": _ratio(self.right, self.words),
            "f1/<class>": 2 * self.hits / (self.predicted + self.actual),  # nan where 0 / 0
        }


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part.float() / whole.float().clamp(min=1)


def span_metrics(make: Callable[[], SpanScores], scheme: Scheme) -> list[Metric]:
    """Micro metrics of entities, of which each sentence adds counts, and F1 per type.

    Args:
        make: one object for all.
        scheme: of the tags.
    """
    hits, predicted, actual, right, words = range(5)
    parts = {"accuracy": ([right], [words]), "f1": ([hits, hits], [predicted, actual]),
             "precision": ([hits], [predicted]), "recall": ([hits], [actual])}
    return [*(Metric(name, make, True, "share", _per_sentence(part, whole, scheme))
              for name, (part, whole) in parts.items()),
            Metric("f1/<class>", make, True, "share")]


def _per_sentence(part: list[int], whole: list[int],
                  scheme: Scheme) -> Callable[[Records], Array]:
    def pseudo(records: Records) -> Array:
        pairs = zip(records["target"], records["prediction"], strict=True)
        counts = np.array([_counted(true, predicted, scheme) for true, predicted in pairs],
                          dtype=np.float64)
        return pseudovalues(counts, lambda sums: ratio(sums[..., part].sum(axis=-1),
                                                       sums[..., whole].sum(axis=-1)))

    return pseudo


def _counted(true: Sequence[str], predicted: Sequence[str], scheme: Scheme) -> tuple[int, ...]:
    ours, meant = spans(predicted, scheme), spans(true, scheme)
    right = sum(a == b for a, b in zip(true, predicted, strict=True))
    return len(ours & meant), len(ours), len(meant), right, len(true)
