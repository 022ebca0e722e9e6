"""Predictions that another system made, as the tasks of this room would have made them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ftlab.errors import InputError
from ftlab.interchange import parse_json

LEAST = 1e-6
"""Probability that an answer without scores leaves to what it does not say."""
CERTAIN = -math.log(LEAST)


def log_shares(shares: Tensor) -> Tensor:
    """Logits (C,) of probabilities (C,), finite where one is 0."""
    return shares.float().clamp(min=LEAST).log()


def log_odds(shares: Tensor) -> Tensor:
    """Logits (L,) of probabilities (L,), finite where one is 0 or 1."""
    return shares.float().clamp(LEAST, 1 - LEAST).logit()


def numbers_of(scores: Any, names: Sequence[str], where: str) -> Tensor:
    """Scores as probabilities, one a name.

    Args:
        scores: a list in the order of the names, a mapping by name, or either as JSON.
        names: of classes or labels.
        where: the place, for messages.

    Raises:
        InputError: too few, too many, or no probabilities.
    """
    mend = "give a probability from 0 to 1 for each, or no scores at all"
    if isinstance(scores, str):
        scores = parse_json(scores, f"{where}: scores", mend)
    if isinstance(scores, Mapping):
        if set(scores) != set(names):
            odd = sorted(set(scores) ^ set(names))
            raise InputError(f"{where}: scores are of other names than the task's: {odd[0]!r}",
                             f"the task has: {', '.join(names[:20])}")
        scores = [scores[name] for name in names]
    try:
        values = [float(value) for value in scores]
    except (TypeError, ValueError):
        raise InputError(f"{where}: scores {str(scores)[:40]!r} are no list of numbers",
                         mend) from None
    if len(values) != len(names):
        raise InputError(f"{where}: {len(values)} scores for {len(names)} names", mend)
    if not all(0 <= value <= 1 for value in values):
        raise InputError(f"{where}: a score is not from 0 to 1", mend)
    return torch.tensor(values, dtype=torch.float64)


def tags_of(prediction: Any, where: str) -> list[str]:
    """Tags of a sentence's words: a list, the same as JSON, or a text with spaces between them.

    Raises:
        InputError: neither.
    """
    if isinstance(prediction, str) and prediction.lstrip().startswith("["):
        prediction = parse_json(prediction, where, "write tags as a list of texts")
    tags = prediction.split() if isinstance(prediction, str) else prediction
    if not isinstance(tags, list | tuple) or not all(isinstance(tag, str) for tag in tags):
        raise InputError(f"{where}: {str(prediction)[:40]!r} instead of a tag for each word",
                         "write tags as a list of texts, or in one text with spaces between them")
    return list(tags)


def written_text(prediction: Any, where: str) -> str:
    """A text that was written, which may be empty.

    Raises:
        InputError: none is there.
    """
    if not isinstance(prediction, str):
        raise InputError(f"{where}: {str(prediction)[:40]!r} instead of a text",
                         "write every prediction as a text; an empty one is empty, not missing")
    return prediction
