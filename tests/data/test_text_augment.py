from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftlab.data.text_augment import TextAugment
from ftlab.data.text_normalise import Lemmatise

texts = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=20).map(" ".join)


@given(texts, st.floats(0, 0.99), st.floats(0, 1), st.integers(0, 99))
def test_augment__reproducible_never_empty_and_no_new_words(text, dropout, swap, index):
    augment = TextAugment(dropout, swap)
    changed = augment(text, 0, 1, index)
    assert changed == augment(text, 0, 1, index)
    assert changed.strip()
    assert not Counter(changed.split()) - Counter(text.split())


def test_augment__each_part_of_the_key_matters():
    text = " ".join(map(str, range(50)))
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert len({TextAugment()(text, *key) for key in keys}) == 4


def test_augment__drops_and_swaps_as_often_as_asked():
    text = " ".join(map(str, range(100)))
    kept = [len(TextAugment(0.3, 0.0)(text, i).split()) for i in range(200)]
    assert 68 < sum(kept) / 200 < 72
    moved = [sum(a != b for a, b in zip(TextAugment(0.0, 0.1)(text, i).split(), text.split(),
                                        strict=True)) for i in range(200)]
    assert 17 < sum(moved) / 200 < 21.5  # 10.5 pairs, a few meeting each other
    assert TextAugment(0.0, 0.0)(text, 1) == text


@pytest.mark.parametrize("arguments", [{"dropout": 1.0}, {"dropout": -0.1}, {"swap": 1.1}])
def test_augment__refuses_values_out_of_range(arguments):
    with pytest.raises(ValueError):
        TextAugment(**arguments)


def test_lemmatise__inflections_meet():
    lemmatise = Lemmatise()
    assert lemmatise("The cats were running") == lemmatise("the cat is running")
    assert lemmatise("   ") == "   "
    with pytest.raises(ValueError, match="xx"):
        Lemmatise("xx")
