"""Exact match, ROUGE and BLEU, held against nltk and the formulas."""

import random
from collections import Counter

import pytest
from nltk.translate.bleu_score import corpus_bleu

from ftlab.tasks.exact_match import ExactMatch
from ftlab.tasks.generation_metrics import Bleu, Rouge

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "dogs"]


def texts(seed: int, count: int = 10) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(4, 12))) for _ in range(count)]


def computed(metric, ours: list[str], theirs: list[str]):
    for half in (slice(0, 4), slice(4, None)):  # states add up over batches
        metric.update(ours[half], {"text": theirs[half]})
    return metric.compute()


def f_measure(hits: int, ours: int, theirs: int) -> float:
    return 2 * hits / (ours + theirs) if hits else 0.0


def shared(ours: list[str], theirs: list[str], n: int) -> float:
    a, b = (Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in (ours, theirs))
    return f_measure((a & b).total(), a.total(), b.total())


def longest(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return 0
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            skipped = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else skipped
    return table[-1][-1]


@pytest.mark.parametrize("seed", range(5))
def test_rouge__is_the_formula(seed: int) -> None:
    ours, theirs = texts(seed), texts(seed + 50)
    pairs = [(a.split(), b.split()) for a, b in zip(ours, theirs, strict=True)]
    found = computed(Rouge(), ours, theirs)
    assert set(found) == {"rouge1", "rouge2", "rougeL"}
    scores = {"rouge1": lambda a, b: shared(a, b, 1), "rouge2": lambda a, b: shared(a, b, 2),
              "rougeL": lambda a, b: f_measure(longest(a, b), len(a), len(b))}
    for name, score in scores.items():
        assert float(found[name]) == pytest.approx(sum(score(a, b) for a, b in pairs) / len(pairs))


@pytest.mark.parametrize("seed", range(5))
def test_bleu__is_nltk_s(seed: int) -> None:
    theirs = texts(seed)
    draw = random.Random(seed)
    ours = [" ".join(word if draw.random() < 0.9 else "other" for word in text.split())
            for text in theirs]
    expected = corpus_bleu([[text.split()] for text in theirs], [text.split() for text in ours])
    assert 0 < expected < 1
    assert float(computed(Bleu("none"), ours, theirs)) == pytest.approx(expected)


def test_bleu__13a_parts_punctuation() -> None:
    ours, theirs = ["a cat, on the mat!"], ["a cat , on the mat !"]
    assert float(computed(Bleu(), ours * 5, theirs * 5)) == pytest.approx(1)
    assert float(computed(Bleu("none"), ours * 5, theirs * 5)) < 1


def test_exact_match__leaves_whitespace_at_the_ends_aside() -> None:
    assert float(computed(ExactMatch(), [" a b", "a  b", "", "c\n", "A", "d"],
                          ["a b", "a b", "x", "c", "a", "d"])) == pytest.approx(3 / 6)


def test_empty_texts__score_zero() -> None:
    ours, theirs = [""] * 5, ["a cat"] * 5
    assert float(computed(Bleu(), ours, theirs)) == 0
    assert {float(value) for value in computed(Rouge(), ours, theirs).values()} == {0.0}
