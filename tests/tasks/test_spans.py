"""Entities in tag sequences, held against seqeval."""

import random

import pytest
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, IOBES, Entities

from ftlab.tasks.spans import first_violation, is_tag, repaired, spans

REFERENCE = {"IOB2": IOB2, "IOBES": IOBES}
TAGS = {
    "IOB2": ["O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in ("X", "Y"))],
    "IOBES": ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("X", "Y"))],
}


def sequences(scheme: str, count: int) -> list[list[str]]:
    draw = random.Random(0)
    return [draw.choices(TAGS[scheme], k=draw.randint(0, 9)) for _ in range(count)]


@pytest.mark.parametrize("scheme", REFERENCE)
def test_spans__are_seqeval_s_strict_entities(scheme: str) -> None:
    found = 0
    for tags in sequences(scheme, 3000):
        (entities,) = Entities([tags], REFERENCE[scheme]).entities
        theirs = {(entity.start, entity.end, entity.tag) for entity in entities}
        assert spans(tags, scheme) == theirs, tags
        found += len(theirs)
    assert found > 1000


def test_spans__without_scheme_every_word_is_one() -> None:
    assert spans(["DET", "NOUN", "NOUN"], "none") == {(0, 1, "DET"), (1, 2, "NOUN"), (2, 3, "NOUN")}


def test_repaired__reads_as_conlleval_does() -> None:
    for tags in sequences("IOB2", 3000):
        mended = repaired(tags)
        assert first_violation(mended, "IOB2") is None, tags
        theirs = {(start, end + 1, kind) for kind, start, end in get_entities(tags)}
        assert spans(mended, "IOB2") == theirs, tags
        assert mended == tags or first_violation(tags, "IOB2") is not None


@pytest.mark.parametrize("scheme", REFERENCE)
def test_first_violation__is_none_exactly_where_every_tag_is_part_of_an_entity(scheme: str) -> None:
    for tags in sequences(scheme, 3000):
        covered = {i for start, end, _ in spans(tags, scheme) for i in range(start, end)}
        whole = all(tag == "O" or i in covered for i, tag in enumerate(tags))
        assert (first_violation(tags, scheme) is None) == whole, tags


def test_first_violation__is_the_first() -> None:
    assert first_violation(["O", "B-X", "I-X", "I-Y", "I-Y"], "IOB2") == 3
    assert first_violation(["I-X"], "IOB2") == 0
    assert first_violation(["B-X", "O"], "IOBES") == 1
    assert first_violation(["B-X", "I-X"], "IOBES") == 2
    assert first_violation(["anything"], "none") is None


def test_continuations__are_told_in_all_spellings_of_a_type() -> None:
    tags = ["B-caf\u00e9", "I-cafe\u0301", "I-caf\u00e9 "]
    assert first_violation(tags, "IOB2") is None
    assert repaired(tags) == tags
    assert first_violation(["B-1", "E-1.0"], "IOBES") is None


def test_is_tag() -> None:
    assert all(is_tag(tag, scheme) for scheme, tags in TAGS.items() for tag in tags)
    for tag in ("", "X", "B", "B-", "E-X", "S-X", "BI-X", "o", "-X"):
        assert not is_tag(tag, "IOB2")
    assert is_tag("NOUN", "none") and not is_tag("", "none")
