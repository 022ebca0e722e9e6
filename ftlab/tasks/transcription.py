"""Spoken words as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss
from torchmetrics import MetricCollection

from ftlab.backbones.base import OutputType
from ftlab.backbones.task_model import IGNORED, Batch, Outputs, TaskModel
from ftlab.tasks.base import Task
from ftlab.tasks.foreign_answers import written_text
from ftlab.tasks.label_tokens import label_count, stack_labels, token_loss, token_losses
from ftlab.tasks.losses.base import log_probabilities
from ftlab.tasks.metric import Metric, fresh
from ftlab.tasks.texts import text_of
from ftlab.tasks.transcription_metrics import normaliser, transcription_metrics


class Transcription(Task):
    """Write down what is said in a recording.

    The loss is the mean over label tokens: of the cross-entropy for networks that write the text
    token by token (Whisper), of the CTC loss (Graves, Fernández, Gomez, Schmidhuber 2006,
    https://doi.org/10.1145/1143844.1143891) for encoders with an output layer of characters
    (wav2vec2, HuBERT). Texts are decoded greedily.

    Metrics: `wer` and `cer`, word and character errors over the words and characters of the
    references (above 1 where much is written that nobody said), and `exact_match`, the share of
    transcripts without error.

    Args:
        normalise: of both texts before they are compared: `none`, `basic` (no case, no
            punctuation) or `english` (also numbers as digits: "two" and "2." are the same).
        max_new_tokens: at which Whisper stops writing, its special tokens in front not counted;
            the labels of a transcript must fit into it with theirs.
    """

    output_type: ClassVar[OutputType] = "text"
    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForSpeechSeq2Seq", "AutoModelForCTC")

    def __init__(self, normalise: Literal["none", "basic", "english"] = "none",
                 max_new_tokens: int = 128) -> None:
        if normalise not in ("none", "basic", "english"):
            raise ValueError(f"normalise must be none, basic or english, got {normalise!r}")
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        self.normalise = normalise
        self.max_new_tokens = max_new_tokens
        self._examples = 0

    @property
    def default_metric(self) -> str:
        return "wer"

    def fit(self, labels: Sequence[Any]) -> None:
        self._examples = len(labels)

    def encode(self, label: Any, where: str) -> str:
        """The transcript, checked; its label ids are the backbone's to say."""
        return text_of(label, where, "transcript", "transcript")

    def loss(self, outputs: Outputs, batch: Batch) -> Tensor:
        labels: Tensor = batch["target"]["labels"]
        if not isinstance(outputs, Mapping):
            return token_loss(outputs, labels)
        return _ctc(outputs, labels, "sum") / (labels != IGNORED).sum()

    def losses(self, outputs: Outputs, batch: Batch) -> Tensor:
        labels: Tensor = batch["target"]["labels"]
        if not isinstance(outputs, Mapping):
            return token_losses(outputs, labels)
        return _ctc(outputs, labels, "none") / (labels != IGNORED).sum(dim=1).clamp(min=1)

    def weight(self, batch: Batch) -> float:
        """Label tokens."""
        return label_count(batch["target"]["labels"])

    def weights(self, batch: Batch) -> Tensor:
        return (batch["target"]["labels"] != IGNORED).sum(dim=1)

    def predict(self, model: TaskModel, batch: Batch, outputs: Outputs | None = None) -> list[str]:
        return model.texts(batch, self.max_new_tokens, outputs)

    def answer(self, prediction: Any, scores: Any, where: str) -> str:
        return written_text(prediction, where)

    def answered(self, answers: Sequence[str], target: Any) -> tuple[list[str], Any]:
        return list(answers), target

    def metrics(self) -> list[Metric]:
        return transcription_metrics(self.normalise)

    def collection(self) -> MetricCollection:
        # torchmetrics takes two for one whose counts agree after the first batch
        return MetricCollection(fresh(self.metrics()), compute_groups=False)

    def unmeasurable(self, metric: str, targets: Sequence[str]) -> str:
        change = normaliser(self.normalise)
        if metric in ("wer", "cer") and not any(map(change, targets)):
            return f"no transcript has a word left after normalise: {self.normalise}"
        return ""

    def records(self, predictions: Sequence[str],
                target: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Texts as they are; the score is 1 where they agree once normalised, else 0."""
        change = normaliser(self.normalise)
        agree = [change(a) == change(b) for a, b in zip(predictions, target["text"], strict=True)]
        return {"target": list(target["text"]), "prediction": list(predictions),
                "scores": [float(same) for same in agree]}

    def summary(self) -> dict[str, Any]:
        return {"train_transcripts": self._examples}

    @staticmethod
    def stack(targets: Sequence[Any]) -> dict[str, Any]:
        """Targets {labels, text} as `labels` (B, T), padded with -100, and `text`."""
        return stack_labels(targets)


def _ctc(outputs: Mapping[str, Any], labels: Tensor, reduction: str) -> Tensor:
    real = labels != IGNORED
    # (T, B, V), which cuDNN's version does not read; transformers switches it off as well
    log_p = log_probabilities(outputs["logits"]).transpose(0, 1)
    with torch.backends.cudnn.flags(enabled=False):
        return ctc_loss(log_p, labels[real], outputs["lengths"], real.sum(dim=-1),
                        blank=outputs["blank"], reduction=reduction)
