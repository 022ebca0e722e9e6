"""Which metrics a task has, which is its default, and which a split leaves without a value."""

import math
import unicodedata
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from scipy import stats
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCohenKappa,
    MulticlassConfusionMatrix,
)
from torchmetrics.functional.text import rouge_score

from ftlab.errors import InputError
from ftlab.studies.discover import family, members
from ftlab.tasks.boxes import Box
from ftlab.tasks.classification import Classification
from ftlab.tasks.detection import Detection
from ftlab.tasks.generation_metrics import Rouge, words
from ftlab.tasks.language_modelling import LanguageModelling
from ftlab.tasks.metric import Metric
from ftlab.tasks.multi_label import MultiLabel
from ftlab.tasks.regression import Regression
from ftlab.tasks.sequence_to_sequence import SequenceToSequence
from ftlab.tasks.tagging import Tagging
from ftlab.tasks.transcription import Transcription
from ftlab.tracking.metric_range import unit_by_name

TASKS = members(family("tasks"))


@pytest.mark.parametrize("name", TASKS)
def test_default_metric__is_known_before_there_are_data(name: str) -> None:
    task = TASKS[name]()
    assert isinstance(task.higher_is_better(task.default_metric), bool)
    for metric in task.default_metric, "loss":
        task.higher_is_better(metric)


class Kappa(Classification):
    """As the README tells a user to add metrics."""

    def metrics(self) -> list[Metric]:
        return [*super().metrics(),
                Metric("hits/<class>", lambda: MulticlassAccuracy(self.outputs, average="none"),
                       True, "share"),
                Metric("kappa", lambda: MulticlassCohenKappa(self.outputs), True, "correlation"),
                Metric("confusion", lambda: MulticlassConfusionMatrix(self.outputs), True)]


class KappaAlone(Classification):
    """Measures one thing instead of Classification's."""

    def metrics(self) -> list[Metric]:
        return [Metric("kappa", lambda: MulticlassCohenKappa(self.outputs), True, "correlation")]


def test_metric_of_one_s_own__instead_of_the_others() -> None:
    """What is measured no longer is no metric to select by: the run would fail after an epoch."""
    task = KappaAlone()
    assert task.higher_is_better("kappa") and not task.higher_is_better("loss")
    for gone in ("accuracy", "f1/a", "auroc"):
        with pytest.raises(InputError, match=f"unknown metric '{gone}'") as caught:
            task.higher_is_better(gone)
        assert caught.value.mend == "KappaAlone has: loss, kappa"


def test_metric_of_one_s_own__with_neither_one_value_nor_one_per_class() -> None:
    task = Kappa()
    task.fit(["a", "b", "c"])
    metrics = task.collection()
    metrics.update(torch.eye(3), torch.arange(3))
    with pytest.raises(InputError, match="'confusion' gives 9 values, for 3 classes"):
        task.scalars(metrics.compute())


@pytest.mark.parametrize("labels", [None, ["a", "b", "c"]])
def test_metric_of_one_s_own__needs_no_more_than_metrics(labels: list[str] | None) -> None:
    task = Kappa()
    if labels:
        task.fit(labels)
    assert task.higher_is_better("kappa") and task.higher_is_better("hits/b")
    assert not task.higher_is_better("calibration_error")
    with pytest.raises(InputError, match=r"did you mean 'kappa'\? .*, kappa.*hits/<class>"):
        task.higher_is_better("kapa")
    with pytest.raises(InputError, match="unknown metric 'precision'"):
        task.higher_is_better("precision")


def test_metric_of_one_s_own__a_value_per_class_gets_their_names() -> None:
    task = Kappa()
    task.fit(["a", "b", "c"])
    metrics = MetricCollection({"hits": MulticlassAccuracy(3, average="none")})
    metrics.update(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]))
    assert task.scalars(metrics.compute()) == {
        "hits/a": 1.0, "hits/b": 1.0, "hits/c": 0.0}


CLASSES = Classification()
CLASSES.fit(["a", "b", "c"])
LABELS = MultiLabel()
LABELS.fit([["a"], ["b"]])
NUMBERS = Regression()
NUMBERS.fit([1.0, 2.0])
TAGS = Tagging()
TAGS.fit([["B-PER"], ["B-LOC"]])
BOXES = Detection()
BOXES.fit([[Box("a", (0, 0, 1, 1))], [Box("b", (0, 0, 1, 1))]])
CROWD = [Box("a", (0, 0, 1, 1), ignored=True)]
ANSWERS = LanguageModelling(final_number="last")


def targets(task: Any, labels: Sequence[Any]) -> list[Any]:
    return [task.encode(label, "here") for label in labels]


@pytest.mark.parametrize("task, labels, without, with_value", [
    (CLASSES, ["a", "a"], "auroc matthews f1/b recall/c", "accuracy f1_macro f1/a loss"),
    (CLASSES, ["a", "b"], "precision/c", "auroc matthews f1/b"),
    (LABELS, [[], []], "mean_average_precision f1_micro f1/a", "accuracy loss"),
    (LABELS, [["a"], []], "average_precision/b", "mean_average_precision f1/a"),
    (NUMBERS, [3.0], "pearson spearman r2", "mse rmse mae"),
    (NUMBERS, ["1", "1.0"], "pearson spearman r2", "mae"),
    (NUMBERS, [1, 2], "", "pearson spearman r2"),
    (TAGS, [["O", "O"]], "f1 precision recall f1/PER", "accuracy"),
    (TAGS, [["B-PER", "O"]], "f1/LOC", "f1 f1/PER"),
    (Tagging("none"), [], "", "loss"),
    (BOXES, [[], CROWD], "map map_50 mar_100 map/a", "loss"),
    (BOXES, [[Box("a", (0, 0, 1, 1))]], "map/b map_50/b", "map map/a"),
    (SequenceToSequence(), ["电影很好看", "好"], "bleu", "rouge1 rouge2 rougeL exact_match"),
    (SequenceToSequence(bleu_tokenisation="char"), ["电影很好看"], "", "bleu"),
    (SequenceToSequence(), ["!?", "..."], "rouge1 rougeL", "exact_match"),
    (SequenceToSequence(), ["да"], "rouge2 bleu", "rouge1"),
    (Transcription("basic"), ["?", "!"], "wer cer", "exact_match"),
    (Transcription("basic"), ["?", "ja"], "", "wer cer"),
    (ANSWERS, ["none at all"], "number_accuracy", "exact_match perplexity"),
    (ANSWERS, ["it is 3"], "", "number_accuracy"),
])
def test_unmeasurable__where_no_prediction_changes_the_value(
        task: Any, labels: list[Any], without: str, with_value: str) -> None:
    encoded = targets(task, labels)
    for metric in without.split():
        assert task.unmeasurable(metric, encoded), metric
    for metric in with_value.split():
        assert task.unmeasurable(metric, encoded) == "", metric


def test_unmeasurable__is_where_scipy_has_no_value() -> None:
    for numbers in [1.0, 1.0, 1.0], [1.0, 2.0, 4.0]:
        value = stats.spearmanr(numbers, [3.0, 1.0, 2.0]).statistic if len(set(numbers)) > 1 else math.nan
        assert bool(NUMBERS.unmeasurable("spearman", numbers)) == math.isnan(value)


def test_absent_class__is_not_logged_and_not_in_the_mean() -> None:
    metrics = CLASSES.collection()
    logits = torch.eye(3)[[0, 1, 0, 1]]
    metrics.update(logits, torch.tensor([0, 1, 1, 1]))  # c is nowhere; a: F1 2/3, b: 4/5
    numbers = CLASSES.scalars(metrics.compute())
    assert numbers["f1/a"] == pytest.approx(2 / 3) and numbers["f1/b"] == pytest.approx(4 / 5)
    assert numbers["f1_macro"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert not [name for name in numbers if name.endswith("/c")]
    metrics.reset()
    metrics.update(torch.eye(3)[[0, 2]], torch.tensor([0, 1]))  # c is predicted: wrong, so 0
    numbers = CLASSES.scalars(metrics.compute())
    assert numbers["f1/c"] == numbers["precision/c"] == 0 and numbers["f1_macro"] == pytest.approx(1 / 3)


def test_absent_type__is_not_logged() -> None:
    metrics = TAGS.collection()
    labels = torch.tensor([[TAGS.tags.index("B-PER"), 0]])
    logits = torch.nn.functional.one_hot(labels, len(TAGS.tags)).float()
    metrics.update(logits, {"labels": labels, "words": torch.tensor([[0, 1]]),
                            "tags": labels.tolist()})
    numbers = TAGS.scalars(metrics.compute())
    assert numbers["f1/PER"] == numbers["f1"] == 1 and "f1/LOC" not in numbers


def rouge1(ours: str, theirs: str) -> float:
    metric = Rouge()
    metric.update([ours], {"text": [theirs]})
    return float(metric.compute()["rouge1"])


@pytest.mark.parametrize("ours, theirs, score", [
    ("хороший фильм", "Хороший, добрый фильм!", 2 * 2 / 5),
    ("bonne année", "une bonne Année", 2 * 2 / 5),
    ("这部电影好", "电影很好", 2 * 3 / 9),             # a character is a word: 电 影 好 of 5 and 4
    ("फिल्म अच्छी है", "अच्छी फिल्म", 2 * 2 / 5),  # vowel signs are marks of their letters
    ("ภาพดี", "ภาพ", 2 * 3 / 7),
    ("فيلم جيد", "جيد", 2 * 1 / 3),
    (unicodedata.normalize("NFD", "grün"), "grün", 1.0),
])
def test_rouge__counts_words_of_any_script(ours: str, theirs: str, score: float) -> None:
    assert rouge1(ours, theirs) == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize("text", ["The cat's 3.5 mats, sat_on -- 'em?!", "A1b2 c3-d4", ""])
def test_rouge__of_ascii_is_rouge_score_s(text: str) -> None:
    other = "the cat sat on 3 mats em a1b2"
    reference = rouge_score([text], [[other]], rouge_keys="rouge1")["rouge1_fmeasure"]
    assert rouge1(text, other) == pytest.approx(float(reference))
    assert words(text) == [word for word in "".join(
        c if c in "abcdefghijklmnopqrstuvwxyz0123456789" else " " for c in text.lower()).split()]


@pytest.mark.parametrize("task", [CLASSES, LABELS, NUMBERS, TAGS, BOXES, ANSWERS,
                                  SequenceToSequence(), Transcription()],
                         ids=lambda task: type(task).__name__)
def test_facts__are_those_that_names_suggest(task: Any) -> None:
    """Stores of earlier versions have names alone, and tabulate by them as before."""
    for name, facts in task.facts().items():
        assert facts.unit == unit_by_name(name), name


def test_collection__one_object_computes_all_metrics_that_it_makes() -> None:
    for task, values in ((TAGS, 1), (SequenceToSequence(), 3), (BOXES, 1)):
        assert len(task.collection()) == values < len(task.metrics())
    metrics = TAGS.collection()
    labels = torch.tensor([[0]])
    metrics.update(torch.ones(1, 1, len(TAGS.tags)),
                   {"labels": labels, "words": labels, "tags": labels.tolist()})
    assert metrics.compute().keys() == {metric.name for metric in TAGS.metrics()}
