"""Continuations of texts: answers to prompts, or plain text."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, get_args

from torch import Tensor
from torchmetrics import MetricCollection

from ftlab.backbones.base import OutputType
from ftlab.backbones.task_model import IGNORED, Batch, Outputs, TaskModel
from ftlab.errors import InputError
from ftlab.tasks.base import Task
from ftlab.tasks.exact_match import ExactMatch, matches
from ftlab.tasks.foreign_answers import written_text
from ftlab.tasks.jackknife import Array
from ftlab.tasks.label_tokens import (
    label_count,
    mean_log_likelihood,
    stack_labels,
    token_loss,
    token_losses,
)
from ftlab.tasks.metric import Metric, Records, fresh
from ftlab.tasks.numeric_answer import NONE, Rule, answer
from ftlab.tasks.texts import text_of


class LanguageModelling(Task):
    """Continue a text, token by token.

    The loss is the mean cross-entropy over target tokens, given the tokens before; `perplexity`
    is its exponential. Where there are prompts, `exact_match` is the share of generated answers
    (greedy, batched, bounded) that equal the whole answer, white space at both ends aside; and
    `number_accuracy`, where it is asked for, of those that come to the same number, whatever the
    reasoning before it. Perplexities compare only between models with the same tokenizer.

    Args:
        max_new_tokens: of a generated answer.
        final_number: how the number at an answer's end is found: `marked`, `last` or `peft`, as
            `ftlab.tasks.numeric_answer` says; null for no such metric.
    """

    output_type: ClassVar[OutputType] = "text"
    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForCausalLM",)

    def __init__(self, max_new_tokens: int = 16, final_number: Rule | None = None) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        if final_number not in (None, *get_args(Rule)):
            raise ValueError(f"final_number must be one of {get_args(Rule)} or null, got "
                             f"{final_number!r}")
        self.max_new_tokens = max_new_tokens
        self.final_number = final_number
        self._answers = True

    @property
    def default_metric(self) -> str:
        return "perplexity"

    def fit(self, labels: Sequence[Any]) -> None:
        """Labels are answers, or all None where plain text is modelled."""
        self._answers = any(label is not None for label in labels)

    def encode(self, label: Any, where: str) -> str | None:
        """The answer, checked; its token ids are the backbone's to say."""
        if label is None and not self._answers:
            return None
        return text_of(label, where, "answer")

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return token_loss(outputs, batch["target"]["labels"])

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        return token_losses(outputs, batch["target"]["labels"])

    def weight(self, batch: Batch) -> float:
        """Target tokens."""
        return label_count(batch["target"]["labels"])

    def weights(self, batch: Batch) -> Tensor:
        return (batch["target"]["labels"] != IGNORED).sum(dim=1)

    def predict(self, model: TaskModel, batch: Batch,
                outputs: Outputs | None = None) -> dict[str, Any]:
        """`text`, the generated answers, where there are prompts, and `logits` where known."""
        if self._answers:
            texts = model.texts(batch, self.max_new_tokens, outputs)
            return {"text": texts, "logits": outputs}
        return {"logits": model(batch) if outputs is None else outputs}

    def answer(self, prediction: Any, scores: Any, where: str) -> str:
        return written_text(prediction, where)

    def answered(self, answers: Sequence[str], target: Any) -> tuple[dict[str, Any], Any]:
        return {"text": list(answers), "logits": None}, target

    def metrics(self) -> list[Metric]:
        perplexity = Metric("perplexity", None, False, "non-negative")
        return [*(_compared(name, change) for name, change in self._answered().items()), perplexity]

    def _answered(self) -> dict[str, Callable[[str], Hashable]]:
        """Metrics of generated answers, and the part of an answer that each compares."""
        changes: dict[str, Callable[[str], Hashable]] = {}
        if self._answers and self.final_number is not None:
            changes["number_accuracy"] = answer(self.final_number)
        if self._answers:
            changes["exact_match"] = str.strip
        return changes

    def collection(self) -> MetricCollection:
        # torchmetrics takes two for one whose counts agree after the first batch
        return MetricCollection(fresh(self.metrics()), compute_groups=False)

    def unanswerable(self, responses: Sequence[str]) -> int:
        """Number of responses in which `final_number` finds nothing, so that no answer can equal it."""
        if self.final_number is None:
            return 0
        find = answer(self.final_number)
        return sum(find(response) is NONE for response in responses)

    def higher_is_better(self, metric: str) -> bool:
        if metric in ("exact_match", "number_accuracy") and not self._answers:
            raise InputError(f"{metric} compares answers, and these data have none",
                             "set prompt: of the data set, or take perplexity")
        if metric == "number_accuracy" and self.final_number is None:
            raise InputError("number_accuracy is not measured", "say how it is found, with "
                             "task: {class_path: LanguageModelling, init_args: "
                             "{final_number: last}}")
        return super().higher_is_better(metric)

    def unmeasurable(self, metric: str, targets: Sequence[str | None]) -> str:
        answers = [target for target in targets if target is not None]
        if metric == "number_accuracy" and self.unanswerable(answers) == len(answers):
            return f"no answer has a number that {self.final_number!r} finds"
        return ""

    def scalars(self, computed: Mapping[str, Tensor]) -> dict[str, float]:
        if "loss" in computed:
            computed = {**computed, "perplexity": computed["loss"].exp()}
        else:  # of texts that another system wrote
            computed = {name: value for name, value in computed.items() if name != "perplexity"}
        return super().scalars(computed)

    def records(self, predictions: Mapping[str, Any], target: Any) -> dict[str, list[Any]]:
        """Texts; the score is the mean log-likelihood of the target's tokens."""
        texts = list(target["text"])
        if predictions["logits"] is None:  # another system's
            return {"target": texts, "prediction": predictions["text"]}
        return {"target": texts, "prediction": predictions.get("text", [None] * len(texts)),
                "scores": mean_log_likelihood(predictions["logits"], target["labels"]).tolist()}

    @staticmethod
    def stack(targets: Sequence[Any]) -> dict[str, Any]:
        """`labels` (B, T), padded with -100, and `text`, from each target's token ids and text."""
        return stack_labels(targets)


def _compared(name: str, change: Callable[[str], Hashable]) -> Metric:
    def per_example(records: Records) -> Array | None:
        return None if None in records["prediction"] else matches(records, change)

    return Metric(name, lambda: _Answers(change), True, "share", per_example, right_or_wrong=True)


class _Answers(ExactMatch):
    """Matches of what `LanguageModelling.predict` gives."""

    def update(self, predictions: Any, target: Mapping[str, Any]) -> None:
        super().update(predictions["text"], target)
