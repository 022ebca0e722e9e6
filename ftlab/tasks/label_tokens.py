"""Labels that are tokens: in batches, counted, and their cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.backbones.task_model import IGNORED
from ftlab.tasks.losses.base import at_least_float32


def stack_labels(targets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Targets {labels, text} as `labels` (B, T), padded with -100, and `text`."""
    labels = [torch.tensor(target["labels"], dtype=torch.long) for target in targets]
    padded = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=IGNORED)
    return {"labels": padded, "text": [target["text"] for target in targets]}


def label_count(labels: Tensor) -> int:
    """Number of labels (B, T) that count."""
    return int((labels != IGNORED).sum())


def token_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over the labels that count, in float32 at least; 0 where none does.

    Args:
        logits: (B, T, V).
        labels: (B, T), -100 where there is nothing to predict.
        label_smoothing: s of q = (1 - s) onehot + s / V (Szegedy et al. 2016).
    """
    total = nn.functional.cross_entropy(
        at_least_float32(logits).flatten(0, 1), labels.flatten(), ignore_index=IGNORED,
        label_smoothing=label_smoothing, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)  # no `int`: a GPU would wait for it


def token_losses(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The same of each row (B,)."""
    losses = nn.functional.cross_entropy(
        at_least_float32(logits).transpose(1, 2), labels, ignore_index=IGNORED,
        label_smoothing=label_smoothing, reduction="none")
    return losses.sum(dim=1) / (labels != IGNORED).sum(dim=1).clamp(min=1)


def mean_log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over each row's labels that count, of their log-likelihoods (B,).

    Args:
        logits: (B, T, V).
        labels: (B, T), at least one a row not -100.
    """
    return -token_losses(logits, labels)
