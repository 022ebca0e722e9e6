"""What each example adds to a metric, against the metric itself with every example left out."""

import numpy as np
import pytest
from sklearn import metrics as sk

from ftlab.tasks.classification import Classification
from ftlab.tasks.language_modelling import LanguageModelling
from ftlab.tasks.multi_label import MultiLabel
from ftlab.tasks.regression import Regression
from ftlab.tasks.sequence_to_sequence import SequenceToSequence
from ftlab.tasks.tagging import Tagging
from ftlab.tasks.transcription import Transcription

RANDOM = np.random.default_rng(3)
CLASSES = ["a", "b", "c", "d"]


def jackknife(function, target, prediction):
    """By the definition: the function on all, and on all but each."""
    n, whole = len(target), function(target, prediction)
    rest = [function(target[:i] + target[i + 1 :], prediction[:i] + prediction[i + 1 :])
            for i in range(n)]
    return [n * whole - (n - 1) * each for each in rest]


def macro(function):
    return lambda a, b: function(a, b, average="macro", zero_division=0)


CLASSIFIED = {
    "accuracy": sk.accuracy_score,
    "balanced_accuracy": sk.balanced_accuracy_score,
    "matthews": sk.matthews_corrcoef,
    "precision_macro": macro(sk.precision_score),
    "recall_macro": macro(sk.recall_score),
    "f1_macro": macro(sk.f1_score),
}


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")
@pytest.mark.parametrize("metric", CLASSIFIED)
def test_classification(metric):
    target = [*RANDOM.choice(CLASSES[:3], 30), "d"]  # leaving d out leaves a class without support
    prediction = [*RANDOM.choice(CLASSES, 30), "a"]
    found = Classification().contributions(metric, {"target": target, "prediction": prediction})
    np.testing.assert_allclose(found, jackknife(CLASSIFIED[metric], target, prediction), atol=1e-9)


MEASURED = {
    "mse": sk.mean_squared_error,
    "mae": sk.mean_absolute_error,
    "rmse": sk.root_mean_squared_error,
    "pearson": lambda a, b: np.corrcoef(a, b)[0, 1],
    "r2": sk.r2_score,
}


@pytest.mark.parametrize("metric", MEASURED)
def test_regression_far_from_the_origin(metric):
    target = list(1e4 + RANDOM.normal(size=40))
    prediction = [value + RANDOM.normal() for value in target]
    found = Regression().contributions(metric, {"target": target, "prediction": prediction})
    np.testing.assert_allclose(found, jackknife(MEASURED[metric], target, prediction), rtol=1e-6)


@pytest.mark.parametrize("metric", ["accuracy", "f1_micro", "f1_macro"])
def test_multi_label(metric):
    rows = RANDOM.random((2, 25, 4)) < 0.4
    target, prediction = ([[c for c, is_one in zip(CLASSES, row, strict=True) if is_one]
                           for row in part] for part in rows)

    def reference(a, b):
        y, p = (np.array([[c in row for c in CLASSES] for row in part]) for part in (a, b))
        if metric == "accuracy":
            return sk.accuracy_score(y, p)
        return sk.f1_score(y, p, average=metric.removeprefix("f1_"), zero_division=0)

    records = {"target": target, "prediction": prediction, "scores": [[0.0] * 4] * 25}
    found = MultiLabel().contributions(metric, records)
    np.testing.assert_allclose(found, jackknife(reference, target, prediction), atol=1e-9)


@pytest.mark.parametrize("metric", ["wer", "cer", "exact_match"])
def test_transcription(metric):
    import jiwer

    words = ["one", "two", "three", "four"]
    target = [" ".join(RANDOM.choice(words, 5)) for _ in range(12)]
    prediction = [" ".join(word for word in text.split() if RANDOM.random() < 0.7) or "six"
                  for text in target]
    references = {
        "wer": jiwer.wer, "cer": jiwer.cer,
        "exact_match": lambda a, b: np.mean([x == y for x, y in zip(a, b, strict=True)]),
    }
    found = Transcription().contributions(metric, {"target": target, "prediction": prediction})
    np.testing.assert_allclose(found, jackknife(references[metric], target, prediction), atol=1e-9)


@pytest.mark.parametrize("metric", ["precision", "recall", "f1", "accuracy"])
def test_tagging(metric):
    from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score

    functions = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
    tags = ["O", "B-PER", "B-LOC"]
    target = [list(RANDOM.choice(tags, 6)) for _ in range(15)]
    prediction = [[tag if RANDOM.random() < 0.6 else RANDOM.choice(tags) for tag in row]
                  for row in target]

    def reference(a, b):
        return functions[metric](a, b) if metric in functions else accuracy_score(a, b)

    found = Tagging().contributions(metric, {"target": target, "prediction": prediction})
    np.testing.assert_allclose(found, jackknife(reference, target, prediction), atol=1e-9)


@pytest.mark.parametrize("task", [LanguageModelling(), SequenceToSequence()])
def test_generated_texts(task):
    records = {"target": ["yes", "no", "no"], "prediction": [" yes ", "yes", "no"]}
    assert list(task.contributions("exact_match", records)) == [1, 0, 1]


@pytest.mark.parametrize("task, metric", [
    (Classification(), "auroc"), (Regression(), "spearman"), (Transcription(), "loss"),
    (SequenceToSequence(), "bleu"), (LanguageModelling(), "perplexity"), (Tagging(), "f1/PER"),
    (MultiLabel(), "mean_average_precision"),
])
def test_what_is_no_function_of_sums_is_not_known(task, metric):
    records = {"target": [], "prediction": [], "scores": []}
    if isinstance(task, Regression):
        records = {"target": [1.0, 2.0], "prediction": [1.0, 3.0]}
    assert task.contributions(metric, records) is None
