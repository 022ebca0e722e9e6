"""What comes next in a text: answers to prompts, or plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MetricCollection

from ftlab.backbones.base import Form
from ftlab.backbones.model import Batch, Outputs, TaskModel
from ftlab.errors import InputError
from ftlab.tasks.base import Task, direction
from ftlab.tasks.exact_match import ExactMatch, matches
from ftlab.tasks.label_tokens import label_count, mean_log_likelihood, stack_labels, token_loss


class LanguageModelling(Task):
    """Continue a text, token by token.

    The loss is the mean cross-entropy over target tokens, given the tokens before; `perplexity`
    is its exponential. Where there are prompts, `exact_match` is the share of generated answers
    (greedy, batched, bounded) that equal the whole answer, white space at both ends aside.
    Perplexities compare only between models with the same tokenizer.

    Args:
        max_new_tokens: of a generated answer.
    """

    form: ClassVar[Form] = "text"
    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForCausalLM",)

    def __init__(self, max_new_tokens: int = 16) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        self.max_new_tokens = max_new_tokens
        self._answers = True

    def fit(self, labels: Sequence[Any]) -> None:
        """Labels are answers, or all None where plain text is modelled."""
        self._answers = any(label is not None for label in labels)

    def encode(self, label: Any, where: str) -> str | None:
        """The answer, checked; its token ids are the backbone's to say."""
        if label is None and not self._answers:
            return None
        if not isinstance(label, str) or not label.strip():
            raise InputError(f"{where}: {label!r} instead of an answer",
                             "fill it in or remove the example")
        return label

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return token_loss(outputs, batch["target"]["labels"])

    def weight(self, batch: Batch) -> float:
        """Target tokens."""
        return label_count(batch["target"]["labels"])

    def predict(self, model: TaskModel, batch: Batch,
                outputs: Outputs | None = None) -> dict[str, Any]:
        """`text`, the generated answers, where there are prompts, and `logits` where known."""
        if self._answers:
            texts = model.texts(batch, self.max_new_tokens, outputs)
            return {"text": texts, "logits": outputs}
        return {"logits": model(batch) if outputs is None else outputs}

    def metrics(self) -> MetricCollection:
        return MetricCollection({"exact_match": _Answers()} if self._answers else {})

    def higher_is_better(self, metric: str) -> bool:
        if metric == "exact_match" and not self._answers:
            raise InputError("exact_match compares answers, and these data have none",
                             "set prompt: of the data set, or take perplexity")
        return direction(metric, {"exact_match": True, "perplexity": False}, "LanguageModelling")

    def scalars(self, computed: Mapping[str, Tensor]) -> dict[str, float]:
        return super().scalars({**computed, "perplexity": computed["loss"].exp()})

    def records(self, predictions: Mapping[str, Any], target: Any) -> dict[str, list[Any]]:
        """Texts; the score is the mean log-likelihood of the target's tokens."""
        texts = list(target["text"])
        return {"target": texts, "prediction": predictions.get("text", [None] * len(texts)),
                "scores": mean_log_likelihood(predictions["logits"], target["labels"]).tolist()}

    def contributions(self, metric: str,
                      records: Mapping[str, Sequence[Any]]) -> NDArray[np.float64] | None:
        known = metric == "exact_match" and None not in records["prediction"]
        return matches(records) if known else None

    @staticmethod
    def stack(targets: Sequence[Any]) -> dict[str, Any]:
        """`labels` (B, T), padded with -100, and `text`, from each target's token ids and text."""
        return stack_labels(targets)


class _Answers(ExactMatch):
    """Exact match of what `LanguageModelling.predict` gives."""

    def update(self, predictions: Any, target: Mapping[str, Any]) -> None:
        super().update(predictions["text"], target)
