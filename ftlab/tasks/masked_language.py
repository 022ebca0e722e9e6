"""Tokens that were masked in texts, to be named."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torchmetrics
from torch import Tensor

from ftlab.backbones.base import OutputType
from ftlab.backbones.task_model import IGNORED, Batch, Outputs, TaskModel
from ftlab.tasks.base import Task
from ftlab.tasks.jackknife import Array, pseudovalues, ratio
from ftlab.tasks.label_tokens import (
    label_count,
    mean_log_likelihood,
    stack_labels,
    token_loss,
    token_losses,
)
from ftlab.tasks.metric import Metric, Records


class MaskedLanguage(Task):
    """Name the tokens that were masked in a text.

    The loss is the mean cross-entropy over masked tokens; `perplexity` is its exponential, and
    `accuracy` the share of masked tokens that are named. Both compare only between models with the
    same tokenizer, on the same masks.

    Devlin, Chang, Lee, Toutanova (2019), https://arxiv.org/abs/1810.04805
    """

    output_type: ClassVar[OutputType] = "masked"
    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForMaskedLM",)

    @property
    def default_metric(self) -> str:
        return "perplexity"

    def fit(self, labels: Sequence[Any]) -> None:
        """Nothing: what there is to predict are the tokenizer's tokens."""

    def encode(self, label: Any, where: str) -> None:
        """Nothing: the data module draws what is predicted."""

    def stratum(self, label: Any) -> Hashable | None:
        """The label that a text happens to have, so that its splits are carved as a classifier's."""
        return label if isinstance(label, Hashable) else None

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return token_loss(outputs, batch["target"]["labels"])

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        return token_losses(outputs, batch["target"]["labels"])

    def weight(self, batch: Batch) -> float:
        """Masked tokens."""
        return label_count(batch["target"]["labels"])

    def weights(self, batch: Batch) -> Tensor:
        return (batch["target"]["labels"] != IGNORED).sum(dim=1)

    def predict(self, model: TaskModel, batch: Batch,
                outputs: Outputs | None = None) -> dict[str, Any]:
        """`text`, the most probable tokens of each example, and their `logits`."""
        outputs = model(batch) if outputs is None else outputs
        return {"text": model.texts(batch, outputs.shape[1], outputs), "logits": outputs}

    def metrics(self) -> list[Metric]:
        return [Metric("accuracy", _TokenAccuracy, True, "share", _token_accuracy),
                Metric("perplexity", None, False, "non-negative")]

    def scalars(self, computed: Mapping[str, Tensor]) -> dict[str, float]:
        return super().scalars({**computed, "perplexity": computed["loss"].exp()})

    def records(self, predictions: Mapping[str, Any], target: Any) -> dict[str, list[Any]]:
        """Tokens with spaces between them; the score is their mean log-likelihood."""
        return {"target": list(target["text"]), "prediction": predictions["text"],
                "scores": mean_log_likelihood(predictions["logits"], target["labels"]).tolist()}

    @staticmethod
    def stack(targets: Sequence[Any]) -> dict[str, Any]:
        """`labels` (B, M), padded with -100, and `text`, from each target's token ids and text."""
        return stack_labels(targets)


class _TokenAccuracy(torchmetrics.Metric):
    """Share of the masked tokens that are named."""

    full_state_update = False
    right: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("right", "total"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: Mapping[str, Any], target: Mapping[str, Any]) -> None:
        """Compare the most probable tokens with `target["labels"]` (B, M)."""
        labels = target["labels"]
        self.right += (predictions["logits"].argmax(dim=-1) == labels).sum()  # none is -100
        self.total += (labels != IGNORED).sum()

    def compute(self) -> Tensor:
        return self.right / self.total


def _token_accuracy(records: Records) -> Array:
    """Compute what each text adds to the accuracy of all masked tokens."""
    pairs = [(said.split(" "), meant.split(" ")) for said, meant
             in zip(records["prediction"], records["target"], strict=True)]
    counts = np.array([[sum(a == b for a, b in zip(said, meant, strict=True)), len(meant)]
                       for said, meant in pairs], dtype=np.float64)
    return pseudovalues(counts, lambda sums: ratio(sums[..., 0], sums[..., 1]))
