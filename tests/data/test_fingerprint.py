import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftlab.data.fingerprint import duplicates, fingerprint

row = st.tuples(st.sampled_from(["train", "test"]), st.text(max_size=2), st.text(max_size=2),
                st.binary(max_size=2))


@given(st.lists(row, max_size=3), st.lists(row, max_size=3))
def test_fingerprint__equal_just_for_equal_rows(a, b):
    assert (fingerprint(a) == fingerprint(b)) == (a == b)


@pytest.mark.parametrize("place", range(4))
def test_fingerprint__every_field_counts(place):
    rows = [("train", "1", "x", b"text"), ("train", "2", "x", b"text")]
    changed = list(rows[1])
    changed[place] = b"else" if place == 3 else "else"
    assert fingerprint([rows[0], tuple(changed)]) != fingerprint(rows)


def test_fingerprint__fields_do_not_run_together():
    assert fingerprint([("train", "1", "1x", b"")]) != fingerprint([("train", "11", "x", b"")])


def test_duplicates__are_counted_a_split():
    found = duplicates({"train": [b"a", b"b"], "beside.memory": [b"c", b"d"]},
                       {"validation": [b"c"], "test": [b"b", b"b"]})
    assert found == ["2 of 2 test inputs are also in train (exact duplicates)",
                     "1 of 1 validation inputs are also in beside.memory (exact duplicates)"]
