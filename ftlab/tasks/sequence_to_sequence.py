"""A text from a text: translation, summaries, rewriting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, get_args

from torch import Tensor

from ftlab.backbones.base import OutputType
from ftlab.backbones.task_model import IGNORED, Batch, TaskModel
from ftlab.tasks.base import Task
from ftlab.tasks.exact_match import ExactMatch, matches
from ftlab.tasks.foreign_answers import written_text
from ftlab.tasks.generation_metrics import BLEU_ORDER, ROUGE, Bleu, Rouge, Tokenisation, words
from ftlab.tasks.label_tokens import label_count, stack_labels, token_loss, token_losses
from ftlab.tasks.metric import Metric
from ftlab.tasks.texts import text_of


class SequenceToSequence(Task):
    """Write the target text for a source text.

    Metrics are of generated texts (greedy, batched, bounded) against the whole reference, as it
    is in the table: exact match, ROUGE-1, ROUGE-2 and ROUGE-L (F measure), and BLEU from 0 to 1.
    The loss is the mean cross-entropy over target tokens, given the tokens before.

    Args:
        max_new_tokens: at which generation stops.
        label_smoothing: of the loss (Szegedy et al. 2016), on every split.
        bleu_tokenisation: of sacreBLEU: 13a, intl, zh, char, or none (whitespace).
    """

    output_type: ClassVar[OutputType] = "text"
    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForSeq2SeqLM",)

    def __init__(self, max_new_tokens: int = 64, label_smoothing: float = 0.0,
                 bleu_tokenisation: Tokenisation = "13a") -> None:
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, got "
                             f"{label_smoothing}")
        if bleu_tokenisation not in get_args(Tokenisation):
            raise ValueError(f"bleu_tokenisation must be one of {get_args(Tokenisation)}, got "
                             f"{bleu_tokenisation!r}")
        self.max_new_tokens = max_new_tokens
        self.label_smoothing = label_smoothing
        self.bleu_tokenisation = bleu_tokenisation

    @property
    def default_metric(self) -> str:
        return "rougeL"

    def fit(self, labels: Sequence[Any]) -> None:
        """There is nothing to learn: the vocabulary is the backbone's."""

    def encode(self, label: Any, where: str) -> str:
        return text_of(label, where, "target", "target")

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return token_loss(outputs, batch["target"]["labels"], self.label_smoothing)

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        return token_losses(outputs, batch["target"]["labels"], self.label_smoothing)

    def weight(self, batch: Batch) -> float:
        """Target tokens."""
        return label_count(batch["target"]["labels"])

    def weights(self, batch: Batch) -> Tensor:
        return (batch["target"]["labels"] != IGNORED).sum(dim=1)

    def predict(self, model: TaskModel, batch: Batch, outputs: Any = None) -> list[str]:
        return model.texts(batch, self.max_new_tokens, outputs)

    def answer(self, prediction: Any, scores: Any, where: str) -> str:
        return written_text(prediction, where)

    def answered(self, answers: Sequence[str], target: Any) -> tuple[list[str], Any]:
        return list(answers), target

    def metrics(self) -> list[Metric]:
        return [
            Metric("exact_match", ExactMatch, True, "share", matches, right_or_wrong=True),
            *(Metric(name, Rouge, True, "share") for name in ROUGE),
            Metric("bleu", lambda: Bleu(self.bleu_tokenisation), True, "share"),
        ]

    def unmeasurable(self, metric: str, targets: Sequence[str]) -> str:
        if metric == "bleu":
            longest = max(len(Bleu(self.bleu_tokenisation).tokenizer(text)) for text in targets)
            if longest < BLEU_ORDER:
                return (f"BLEU counts runs of {BLEU_ORDER} tokens, and the longest target has "
                        f"{longest} under bleu_tokenisation: {self.bleu_tokenisation}; of a "
                        "script without spaces take zh or char")
        if metric in ROUGE:
            longest = max(len(words(text)) for text in targets)
            if longest < (needed := 2 if metric == "rouge2" else 1):
                return f"it counts runs of words ({needed}), and the longest target has {longest}"
        return ""

    def records(self, predictions: Sequence[str], target: Any) -> dict[str, list[Any]]:
        """Target and generated text."""
        return {"target": list(target["text"]), "prediction": list(predictions)}

    @staticmethod
    def stack(targets: Sequence[Any]) -> dict[str, Any]:
        """`labels` (B, T), padded with -100, and `text`, from each target's token ids and text."""
        return stack_labels(targets)
