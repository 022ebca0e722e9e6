"""Tagging: loss held against transformers, metrics against seqeval."""

import random
import warnings
from collections.abc import Callable

import pytest
import torch
from seqeval.metrics import accuracy_score, classification_report
from seqeval.scheme import IOB2

from ftlab.backbones.huggingface import HuggingFace
from ftlab.errors import InputError
from ftlab.tasks.tagging import Tagging

TAGS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


@pytest.fixture
def tagging() -> Tagging:
    task = Tagging()
    task.fit([["B-PER", "O"], ["B-LOC", "I-LOC"]])
    return task


def batch_of(gold: list[list[int]], predicted: list[list[int]], cut: int = 99) -> tuple:
    """Logits and target where every second token begins a word; words from `cut` on have none."""
    width = 2 * max(map(len, gold)) + 1
    logits = torch.randn(len(gold), width, len(TAGS))
    labels, words = (torch.full((len(gold), width), -100) for _ in range(2))
    for row, (true, ours) in enumerate(zip(gold, predicted, strict=True)):
        for i, (tag, guess) in enumerate(zip(true[:cut], ours[:cut], strict=True)):
            labels[row, 2 * i + 1], words[row, 2 * i + 1] = tag, i
            logits[row, 2 * i + 1, guess] = 20.0
    return logits, {"labels": labels, "words": words, "tags": gold}


def random_tags(seed: int, lengths: list[int]) -> list[list[int]]:
    draw = random.Random(seed)
    return [draw.choices(range(len(TAGS)), [4, 3, 3, 3, 3], k=n) for n in lengths]


def named(rows: list[list[int]]) -> list[list[str]]:
    return [[TAGS[i] for i in row] for row in rows]


def scores(task: Tagging, *batches: tuple) -> dict[str, float]:
    metrics = task.collection()
    for logits, target in batches:
        metrics.update(logits, target)
    return task.scalars({**metrics.compute(), "loss": torch.tensor(0.5)})


@pytest.mark.parametrize("seed", range(20))
def test_metrics__are_seqeval_s(seed: int, tagging: Tagging) -> None:
    lengths = [random.Random(seed).randint(1, 8) for _ in range(12)]
    gold, guess = random_tags(seed, lengths), random_tags(seed + 100, lengths)
    for i in range(0, 12, 2):
        guess[i] = gold[i]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval of undefined ratios
        report = classification_report(named(gold), named(guess), mode="strict", scheme=IOB2,
                                       output_dict=True, zero_division=0)
        accuracy = accuracy_score(named(gold), named(guess))
    # one batch or two: states are sums
    halves = (batch_of(gold[:5], guess[:5]), batch_of(gold[5:], guess[5:]))
    for ours in (scores(tagging, batch_of(gold, guess)), scores(tagging, *halves)):
        micro = report["micro avg"]
        assert ours["precision"] == pytest.approx(micro["precision"])
        assert ours["recall"] == pytest.approx(micro["recall"])
        assert ours["f1"] == pytest.approx(micro["f1-score"])
        assert ours["accuracy"] == pytest.approx(accuracy)
        for kind in ("LOC", "PER"):
            assert ours[f"f1/{kind}"] == pytest.approx(report.get(kind, {}).get("f1-score", 0))
        assert ours["loss"] == 0.5


def test_metrics__are_over_whole_sentences(tagging: Tagging) -> None:
    """What was cut counts as O: an entity there is missed, an O there is right."""
    gold = [[1, 0, 3, 4, 0]]
    ours = scores(tagging, batch_of(gold, gold, cut=2))
    assert ours["recall"] == pytest.approx(1 / 2)
    assert ours["precision"] == 1
    assert ours["accuracy"] == pytest.approx(3 / 5)
    records = tagging.records(*batch_of(gold, gold, cut=2))
    assert records["target"] == named(gold)
    assert records["prediction"] == [["B-LOC", "O", "O", "O", "O"]]
    assert records["scores"] == [[pytest.approx(1), pytest.approx(1), 0, 0, 0]]


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2"])
def test_loss__equals_transformers(family: str, backbone: Callable[..., HuggingFace],
                                   batch_of: Callable[..., dict], tagging: Tagging) -> None:
    model, batch = backbone(family).build(tagging).eval(), batch_of(family)
    labels = torch.randint(0, 5, batch["inputs"]["input_ids"].shape)
    labels[torch.rand(labels.shape) < 0.5] = -100
    batch["target"] = {"labels": labels}
    theirs = model.network(**batch["inputs"], labels=labels).loss
    torch.testing.assert_close(tagging.loss(model(batch), batch), theirs)
    assert tagging.weight(batch) == int((labels != -100).sum())


def test_loss__of_a_batch_without_words_is_zero(tagging: Tagging) -> None:
    batch = {"target": {"labels": torch.full((2, 3), -100)}}
    assert tagging.loss(torch.randn(2, 3, 5), batch) == 0


def test_tags__of_a_type_are_all_there(tagging: Tagging) -> None:
    assert tagging.tags == TAGS
    assert tagging.encode(["I-PER", "O"], "test") == [4, 0]
    iobes = Tagging("IOBES")
    iobes.fit([["S-X"]])
    assert iobes.tags == ["O", "B-X", "I-X", "E-X", "S-X"]


def test_scheme_none__is_accuracy_and_f1_a_tag() -> None:
    task = Tagging("none")
    task.fit([["DET", "NOUN"], ["VERB"]])
    assert task.tags == ["DET", "NOUN", "VERB"]
    words = torch.tensor([[0, 1, -100]])
    logits = torch.eye(3)[[0, 2, 1]][None] * 9  # the third word is cut
    ours = scores(task, (logits, {"words": words, "tags": [[0, 1, 2]]}))
    assert ours["accuracy"] == pytest.approx(1 / 3)
    assert ours["f1/DET"] == 1 and ours["f1/NOUN"] == 0 and ours["f1/VERB"] == 0


@pytest.mark.parametrize(("scheme", "tags", "key"), [("IOB2", ["B-PER", "O"], "f1/PER"),
                                                    ("IOBES", ["S-X"], "f1/X")])
def test_metrics__of_one_type(scheme: str, tags: list[str], key: str) -> None:
    task = Tagging(scheme)
    task.fit([tags])
    logits = torch.eye(len(task.tags))[task.encode(tags, "")][None] * 9
    ours = scores(task, (logits, {"words": torch.arange(len(tags))[None],
                                  "tags": [task.encode(tags, "")]}))
    assert ours[key] == ours["f1"] == 1


def test_loss__of_half_precision_is_computed_in_float32(tagging: Tagging) -> None:
    logits, labels = torch.randn(2, 3, 5), torch.tensor([[1, 2, -100], [4, -100, 0]])
    half = logits.bfloat16()
    assert torch.equal(tagging.loss(half, {"target": {"labels": labels}}),
                       tagging.loss(half.float(), {"target": {"labels": labels}}))


def test_bad_tags__are_refused(tagging: Tagging) -> None:
    with pytest.raises(InputError, match=r"test, a:3: tag 'B-ORG' is of a type that train does"):
        tagging.encode(["O", "B-ORG"], "test, a:3")
    with pytest.raises(InputError, match=r"x: 'LOC' is no tag of the scheme IOB2"):
        tagging.encode(["LOC"], "x")
    with pytest.raises(InputError, match="fewer than two tags"):
        Tagging().fit([["O", "O"]])
    with pytest.raises(ValueError, match=r"scheme must be one of .* got 'BIO'"):
        Tagging("BIO")


def test_higher_is_better(tagging: Tagging) -> None:
    for metric in ("f1", "precision", "recall", "accuracy", "f1/PER"):
        assert tagging.higher_is_better(metric)
    assert not tagging.higher_is_better("loss")
    with pytest.raises(InputError, match="did you mean 'accuracy'"):
        tagging.higher_is_better("acuracy")
    assert Tagging().higher_is_better("f1/any"), "a study asks before the types are known"
    with pytest.raises(InputError, match=r"unknown metric 'f1/PRE'.*\n.*did you mean 'f1/PER'"):
        tagging.higher_is_better("f1/PRE")
