"""Word and character error rates of normalised texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.text import CharErrorRate, WordErrorRate

from ftlab.tasks.exact_match import ExactMatch, matches
from ftlab.tasks.jackknife import Array, pseudovalues, ratio

Normalisation = Literal["none", "basic", "english"]
Normalise = Callable[[str], str]


def normaliser(name: Normalisation) -> Normalise:
    """A text -> text; whatever the choice, white space at the ends and in rows does not count.

    `basic` removes case and punctuation, `english` also writes numbers as digits ("two" as "2"),
    expands contractions and drops fillers ("um").
    Source: Radford et al. (2022), https://arxiv.org/abs/2212.04356, appendix C
    """
    if name == "none":
        return _squeezed
    from transformers.models.whisper.english_normalizer import (
        BasicTextNormalizer,
        EnglishTextNormalizer,
    )

    change = BasicTextNormalizer() if name == "basic" else EnglishTextNormalizer({})
    return lambda text: _squeezed(change(text))


def _squeezed(text: str) -> str:
    return " ".join(text.split())


class _OfTexts(Metric):
    """A torchmetrics metric of normalised texts; the target's are under `text`."""

    full_state_update = False

    def __init__(self, metric: Metric, normalise: Normalise) -> None:
        super().__init__()
        self.metric = metric
        self.normalise = normalise

    def update(self, texts: Sequence[str], target: Mapping[str, Any]) -> None:
        self.metric.update([self.normalise(text) for text in texts],
                           [self.normalise(text) for text in target["text"]])

    def compute(self) -> Tensor:
        value: Tensor = self.metric.compute()
        return value

    def reset(self) -> None:
        super().reset()
        self.metric.reset()


def transcription_metrics(name: Normalisation) -> MetricCollection:
    """Fresh `wer`, `cer` and `exact_match`."""
    normalise = normaliser(name)
    metrics: dict[str, Metric | MetricCollection] = {
        "wer": _OfTexts(WordErrorRate(), normalise),
        "cer": _OfTexts(CharErrorRate(), normalise),
        "exact_match": ExactMatch(normalise),
    }
    return MetricCollection(metrics, compute_groups=False)


def contributions(metric: str, records: Mapping[str, Sequence[Any]],
                  normalise: Normalise) -> Array | None:
    """What each transcript adds to a metric, (N,); None for an unknown one."""
    if metric == "exact_match":
        return matches(records, normalise)
    if metric not in ("wer", "cer"):
        return None
    from nltk.metrics.distance import edit_distance  # all of nltk comes with it

    split = str.split if metric == "wer" else list
    pairs = [(split(normalise(said)), split(normalise(true)))
             for said, true in zip(records["prediction"], records["target"], strict=True)]
    counts = np.array([(edit_distance(said, true), len(true)) for said, true in pairs],
                      dtype=np.float64)
    return pseudovalues(counts, lambda sums: ratio(sums[..., 0], sums[..., 1]))
