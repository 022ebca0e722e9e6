"""A tag for each word of a sentence: named entities, chunks, parts of speech."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from ftlab.backbones.base import OutputType
from ftlab.backbones.export_code import CodeLines, PlainOutputs
from ftlab.backbones.task_model import IGNORED, Batch
from ftlab.errors import InputError
from ftlab.tasks.base import Task
from ftlab.tasks.class_names import absent_class, class_name, unseen
from ftlab.tasks.foreign_answers import CERTAIN, tags_of
from ftlab.tasks.label_tokens import label_count, token_loss, token_losses
from ftlab.tasks.metric import Metric
from ftlab.tasks.span_metrics import SpanScores, names, span_metrics, word_tags
from ftlab.tasks.spans import OUTSIDE, PREFIXES, Scheme, is_tag, spans, split_tag
from ftlab.tasks.spelling import Classes, key

_TELL = """
tags = {tags}

def tell(outputs):  # a tag for each word
    return [tags[i] for i in outputs.argmax(dim=-1)]
"""


class Tagging(Task):
    """Tag every word of a sentence, read from the word's first token.

    Metrics are over whole sentences, words that were cut included (they count as `O`): strict
    precision, recall and F1 of entities (micro, and F1 a type), and accuracy of words. An entity
    counts when its first word, last word and type are all right.

    Every type that train names brings all tags of the scheme, so that a test set may have an
    `I-PER` where train happens to have `B-PER` alone.

    Args:
        scheme: IOB2, IOBES, or none where every word's tag stands alone (parts of speech).
    """

    output_type: ClassVar[OutputType] = "tokens"
    auto_classes: ClassVar[tuple[str, ...]] = ("AutoModelForTokenClassification",)

    def __init__(self, scheme: Scheme = "IOB2") -> None:
        if scheme not in get_args(Scheme):
            raise ValueError(f"scheme must be one of {get_args(Scheme)}, got {scheme!r}")
        self.scheme = scheme
        self._types: list[str] = []
        self._tags: list[str] = []
        self._places: dict[str, int] = {}
        self._counts: Counter[str] = Counter()

    @property
    def convex(self) -> bool:
        return True

    @property
    def default_metric(self) -> str:
        return "accuracy" if self.scheme == "none" else "f1"

    def fit(self, labels: Sequence[Any]) -> None:
        """Learn the types of entities from the tags of each training sentence.

        Raises:
            InputError: a tag that the scheme lacks, or nothing but `O`.
        """
        self._counts = Counter(tag for tags in labels for tag in tags)
        for tag in self._counts:
            self._check(tag, "train")
        if self.scheme == "none":
            self._types = self._tags = sorted(Classes(self._counts).names)
        else:
            self._types = sorted(Classes(split_tag(tag)[1] for tag in self._counts
                                         if tag != OUTSIDE).names)
            self._tags = [OUTSIDE, *(f"{prefix}-{kind}" for kind in self._types
                                     for prefix in PREFIXES[self.scheme])]
        self._places = {self._key(tag): place for place, tag in enumerate(self._tags)}
        if len(self._tags) < 2:
            raise InputError("train has fewer than two tags, so there is nothing to tell apart",
                             "name another tag column, or train on more sentences")

    @property
    def tags(self) -> list[str]:
        """In the order of the logits; `O` first."""
        if not self._tags:
            raise RuntimeError("Tagging needs `fit` with the training tags first")
        return self._tags

    @property
    def names(self) -> Sequence[str]:
        return self.tags

    @property
    def outputs(self) -> int:
        return len(self.tags)

    def encode(self, label: Any, where: str) -> list[int]:
        """Positions in `tags`, one a word."""
        for tag in label:
            self._check(tag, where)
            if self._key(tag) not in self._places and self.scheme == "none":
                raise unseen(f"{where}: tag", tag, self.tags)
            if self._key(tag) not in self._places:
                raise InputError(f"{where}: tag {tag!r} is of a type that train does not have",
                                 f"mend the tag or add training sentences; train has: "
                                 f"{', '.join(self._types[:20])}")
        return [self._places[self._key(tag)] for tag in label]

    def named(self, label: Any, where: str) -> list[str]:
        names = [class_name(tag, where) for tag in label]
        return names if self.scheme == "none" else [
            kind for _, kind in map(split_tag, names) if kind]

    def _key(self, tag: str) -> str:
        """The same for all spellings of a tag."""
        if self.scheme == "none" or tag == OUTSIDE:
            return key(tag)
        prefix, kind = split_tag(tag)
        return f"{prefix}-{key(kind)}"

    def _check(self, tag: Any, where: str) -> None:
        if not isinstance(tag, str) or not is_tag(tag, self.scheme):
            raise InputError(f"{where}: {tag!r} is no tag of the scheme {self.scheme}",
                             "mend the tag, or set the task's scheme: IOB2, IOBES or none")

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy over the first tokens of words."""
        return token_loss(outputs, batch["target"]["labels"])

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        return token_losses(outputs, batch["target"]["labels"])

    def weight(self, batch: Batch) -> float:
        """First tokens of words."""
        return label_count(batch["target"]["labels"])

    def weights(self, batch: Batch) -> Tensor:
        return (batch["target"]["labels"] != IGNORED).sum(dim=1)

    def answer(self, prediction: Any, scores: Any, where: str) -> list[int]:
        """Tags of the words: a list, or a text with spaces between them."""
        tags = tags_of(prediction, where)
        return self.encode(tags, where)

    def answered(self, answers: Sequence[Any], target: Any) -> tuple[Tensor, Any]:
        """As of a network that reads every word as one token."""
        short = [len(gold) for gold in target["tags"]]
        if (given := [len(row) for row in answers]) != short:
            wrong = next(i for i, pair in enumerate(zip(given, short, strict=True))
                         if pair[0] != pair[1])
            raise InputError(f"a sentence of {short[wrong]} words has {given[wrong]} predicted tags",
                             "give each word of each sentence one tag")
        rows = [torch.tensor(row) for row in answers]
        chosen = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        words = nn.utils.rnn.pad_sequence([torch.arange(len(row)) for row in rows],
                                          batch_first=True, padding_value=IGNORED)
        logits = nn.functional.one_hot(chosen, self.outputs).float() * CERTAIN
        return logits, {**target, "words": words}

    def metrics(self) -> list[Metric]:
        return span_metrics(self._scores, self.scheme)

    def _scores(self) -> SpanScores:
        return SpanScores(self.tags, self._types, self.scheme)

    @property
    def metric_classes(self) -> Sequence[str]:
        return self._types

    def unmeasurable(self, metric: str, targets: Sequence[Sequence[int]]) -> str:
        present = {kind for row in targets
                   for _, _, kind in spans([self.tags[tag] for tag in row], self.scheme)}
        if metric in ("f1", "precision", "recall") and not present:
            return f"none of the {len(targets)} sentences has an entity"
        return absent_class(metric, self._types, present)

    def records(self, predictions: Tensor, target: Any) -> dict[str, list[Any]]:
        """Tags a word; scores are the probabilities of the predicted tags, 0 for words cut."""
        chosen, certain = word_tags(predictions, target)
        return {
            "target": [names(row, self.tags) for row in target["tags"]],
            "prediction": [names(row, self.tags) for row in chosen],
            "scores": certain,
        }

    def summary(self) -> dict[str, Any]:
        return {"types": self._types, "train_counts": dict(sorted(self._counts.items()))}

    @staticmethod
    def stack(targets: Sequence[Any]) -> dict[str, Any]:
        """A batch's target.

        Args:
            targets: each with `labels` and `words` (T,): at the first token of a word its tag
                and its position in the sentence, elsewhere -100; and `tags`, one a word of the
                whole sentence.
        """
        return {"labels": torch.stack([target["labels"] for target in targets]),
                "words": torch.stack([target["words"] for target in targets]),
                "tags": [target["tags"] for target in targets]}

    def export_code(self) -> PlainOutputs:
        return PlainOutputs(CodeLines(_TELL.format(tags=self.tags)))
