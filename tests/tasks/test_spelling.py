"""One class under several spellings, held to exact arithmetic on decimals and fractions."""

import itertools
import random
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from ftlab.errors import InputError
from ftlab.tasks.boxes import Box
from ftlab.tasks.class_names import class_name, unseen
from ftlab.tasks.classification import Classification
from ftlab.tasks.detection import Detection
from ftlab.tasks.multi_label import MultiLabel
from ftlab.tasks.spelling import Classes, key, note_spellings, one_spelling, renamed
from ftlab.tasks.tagging import Tagging

SPELLINGS = ["1", "1.0", "1.", "+1", "1e0", "10e-1", "1.50", "1.5", "15e-1", "-0", "0", "0.00", ".5",
             "0.5", "-2", "-2.0", "9007199254740992", "9007199254740993", "1E+22",
             "10000000000000000000000", "1" + "0" * 40, "1" + "0" * 39 + "1"]


def test_key__is_equal_exactly_where_the_numbers_are() -> None:
    for one, other in itertools.product(SPELLINGS, repeat=2):
        assert (key(one) == key(other)) == (Fraction(one) == Fraction(other)), (one, other)


@pytest.mark.parametrize("code", ["01", "001.0", "-01", "1_0", "1,0", "0x1F", "1 0", "٣", "nan", "inf",
                                  "", "1.0.0", "e5", "yes", "True story"])
def test_key__of_what_is_no_plain_number_is_itself(code: str) -> None:
    assert key(code) == code


@pytest.mark.parametrize(("label", "name"), [
    (1, "1"), (1.0, "1"), (np.float32(1), "1"), (np.int8(1), "1"), (Decimal("1.00"), "1"), (-0.0, "0"),
    (1.5, "1.5"), (Decimal("1.50"), "1.5"), (0.1, "0.1"), (float(np.float32(0.1)), "0.1"),
    (2**53 + 1, "9007199254740993"), (1e-5, "1e-05"), (True, "true"), (np.False_, "false"),
    ("1.0", "1.0"), ("01", "01"), ("True", "True"), (" a", " a")])
def test_class_name__of_numbers_is_the_shortest_and_of_texts_themselves(label, name) -> None:
    assert class_name(label, "") == name


@pytest.mark.parametrize(("label", "says"), [
    (float("nan"), "row 1 is missing"), (np.float32("nan"), "row 1 is missing"),
    (2.0**53, "row 1: label 9007199254740992.0 is too large for a float"),
    (["a"], r"row 1: label \['a'\] is of type list"), ({"a": 1}, "is of type dict"),
    (np.array([1, 0]), "is of type ndarray"), (b"a", "is of type bytes"),
    ("caf\ufffd", "bytes in it that could not be read")])
def test_class_name__refuses_what_names_no_class(label, says) -> None:
    with pytest.raises(InputError, match=says):
        class_name(label, "row 1")


def test_classes__are_shown_as_train_writes_them() -> None:
    classes = Classes(["1.10", "1.9", "1.8", "1.9"])
    assert (classes.names, classes.counts) == (["1.10", "1.8", "1.9"], [1, 1, 2])
    assert [classes.place(name) for name in ("1.1", "1.80", "1.7", "b")] == [0, 1, None, None]
    merged = Classes(["1.0", "1", "01", "True", "true", "1.0"])
    assert merged.names == ["01", "1", "true"] or merged.names == ["1", "01", "true"]
    assert dict(zip(merged.names, merged.counts, strict=True)) == {"1": 3, "01": 1, "true": 2}


def test_one_spelling__changes_no_names_without_twins() -> None:
    names = ["1.0", "b", "2", "+3", "True", None]
    assert one_spelling(names) == names
    assert one_spelling(["1.0", "1", "b", "true", "TRUE"]) == ["1", "1", "b", "true", "true"]


def test_note_spellings__is_one_line() -> None:
    assert note_spellings(["1", "1", "b"]) == []
    assert note_spellings(["1", "1.0", "2.0", "2", "2."]) == [
        "labels '1' and '1.0' are spellings of one class (and 1 more so); rename them if they are not"]


def test_renamed__takes_the_spelling_itself_before_another() -> None:
    assert renamed(1.0, {"1": "good"}, "") == renamed("1.0", {"1": "good"}, "") == "good"
    assert renamed(True, {"True": "good"}, "") == "good"
    apart = {"1.1": "old", "1.10": "new"}
    assert [renamed(name, apart, "") for name in ("1.10", "1.1", 1.1)] == ["new", "old", "old"]
    with pytest.raises(InputError, match="row 2: label '01' is not in classes"):
        renamed("01", {"1": "good"}, "row 2")


def test_unseen__names_the_class_that_it_may_have_been() -> None:
    assert "'01' does not occur in train, which has '1'" in unseen("label", "01", ["0", "1"]).what
    assert "'Pos ' does not occur in train, which has 'pos'" in unseen("", "Pos ", ["pos"]).what
    assert unseen("label", "b", ["a"]).what == "label 'b' does not occur in train"


def test_tasks__that_have_classes_share_the_rule() -> None:
    draw = random.Random(0)
    values = [draw.choice([0, 1]) for _ in range(40)]
    spelled = [draw.choice([value, float(value), str(value), f"{value}.0"]) for value in values]
    classes = Classification()
    classes.fit(spelled)
    assert classes.classes == ["0", "1"]
    assert [classes.encode(label, "") for label in spelled] == values
    assert {classes.stratum(label) for label in spelled} == {"0", "1"}
    labels = MultiLabel()
    labels.fit([[1, "2"], ["1.0", "b"]])
    assert labels.encode([1.0, 2], "") == labels.encode("1|2.0", "") == [1, 1, 0]
    tags = Tagging("none")
    tags.fit([["1", "a"], ["1.0", "a"]])
    assert tags.tags == ["1", "a"] and tags.encode(["1.00", "a"], "") == [0, 1]
    boxes = Detection()
    boxes.fit([[Box("1", (0, 0, 1, 1)), Box("2.0", (0, 0, 1, 1))], [Box("1.0", (0, 0, 1, 1))]])
    assert boxes.summary()["train_counts"] == {"1": 2, "2.0": 1}
    assert boxes.encode([Box("2", (0, 0, 1, 1))], "")["labels"].tolist() == [1]


COMPOSED, APART = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(("one", "other"), [(COMPOSED, APART), ("pos", "pos "), ("pos", "\u00a0pos"),
                                            ("1", " 1.0"), ("\uac00", "\u1100\u1161")])
def test_key__does_not_depend_on_composition_and_blanks_around(one: str, other: str) -> None:
    assert key(one) == key(other)
    known = Classes([other, one, "x", other])
    assert known.names in ([one, "x"], ["x", one]) and known.counts[known.names.index(one)] == 3
    assert renamed(other, {one: "new"}, "") == renamed(one, {other: "new"}, "") == "new"
    [note] = note_spellings([one, other])
    assert "are spellings of one class" in note


def test_note_spellings__shows_what_a_reader_cannot_see() -> None:
    assert note_spellings([COMPOSED, APART]) == [
        r"labels 'cafe\u0301' and 'caf\xe9' are spellings of one class; rename them if they are not"]


def test_tagging__types_are_one_in_all_spellings() -> None:
    task = Tagging()
    task.fit([[f"B-{COMPOSED}", f"I-{APART}", "B-LOC ", "O"], ["B-LOC", "B-1.0", "I-1"]])
    assert task.tags == ["O", "B-1", "I-1", "B-LOC", "I-LOC", f"B-{COMPOSED}", f"I-{COMPOSED}"]
    assert task.encode([f"B-{APART}", "I-LOC ", "B-1.00"], "") == [5, 4, 1]
    assert task.named(["B-1.0", "O"], "") == ["1.0"]


def test_renamed__needs_a_name() -> None:
    with pytest.raises(InputError, match="classes gives 'a' an empty name"):
        renamed("a", {"a": " "}, "")
