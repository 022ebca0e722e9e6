"""Word and character error rates of normalised texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torchmetrics
from torch import Tensor
from torchmetrics.text import CharErrorRate, WordErrorRate

from ftlab.tasks.exact_match import ExactMatch, matches
from ftlab.tasks.jackknife import Array, pseudovalues, ratio
from ftlab.tasks.metric import Metric, Records

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


class _OfTexts(torchmetrics.Metric):
    """A torchmetrics metric of normalised texts; the target's are under `text`."""

    full_state_update = False

    def __init__(self, metric: torchmetrics.Metric, normalise: Normalise) -> None:
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


def transcription_metrics(name: Normalisation) -> list[Metric]:
    """Error rates and exact matches of texts that are normalised as `name` says."""

    def rate(kind: type[torchmetrics.Metric]) -> Callable[[], torchmetrics.Metric]:
        return lambda: _OfTexts(kind(), normaliser(name))

    return [
        Metric("wer", rate(WordErrorRate), False, "error rate", _per_text(str.split, name)),
        Metric("cer", rate(CharErrorRate), False, "error rate", _per_text(list, name)),
        Metric("exact_match", lambda: ExactMatch(normaliser(name)), True, "share",
               lambda records: matches(records, normaliser(name)), right_or_wrong=True),
    ]


def _per_text(split: Callable[[str], list[str]],
              name: Normalisation) -> Callable[[Records], Array]:
    """Jackknife of an error rate: prediction records -> what each transcript adds, (N,)."""

    def pseudo(records: Records) -> Array:
        from nltk.metrics.distance import edit_distance  # all of nltk comes with it

        normalise = normaliser(name)
        pairs = [(split(normalise(prediction)), split(normalise(true))) for prediction, true
                 in zip(records["prediction"], records["target"], strict=True)]
        counts = np.array([(edit_distance(ours, true), len(true)) for ours, true in pairs],
                          dtype=np.float64)
        return pseudovalues(counts, lambda sums: ratio(sums[..., 0], sums[..., 1]))

    return pseudo
