"""YAML as a reader sees it: version 1.2's core schema, and files that are read back equal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ftlab.errors import InputError
from ftlab.studies.study import load_study
from ftlab.studies.study_snapshot import record
from ftlab.studies.yaml_file import parse_value, read
from ftlab.studies.yaml_schema import Loader, WrittenFloat, WrittenInt, dump, plain

# what one version of YAML or the other takes for a boolean, a number, a date, a merge, nothing
TRAPS = ["on", "Off", "yes", "no", "y", "true", "null", "~", "010", "0x1F", "0o17", "0b1", "12:30", "1:2.3",
         "1_0", "1e3", "1.0", "+1", ".inf", "2024-01-01", "<<", "=", "-", "?", ":", "#a", "a: b", "{a}",
         "[x]", "!x", "&a", "*a", "%a", "@a", "`a", "'q'"]
texts = (st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(TRAPS)
         | st.from_regex(r"[-+0-9.eExo_:]{1,6}", fullmatch=True))
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3)
                     | st.dictionaries(texts, inner, max_size=3), max_leaves=6)


def same(one: Any, other: Any) -> bool:
    """Equal, in the same order, and of the same types: true is not 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@given(trees)
def test_dump__is_read_back_equal(data: Any) -> None:
    assert same(plain(yaml.load(dump(data), Loader=Loader)), data)


@given(texts)
def test_dump__texts_are_texts_to_readers_of_yaml_1_1_too(text: str) -> None:
    assert yaml.safe_load(dump({text: text})) == {text: text}


@pytest.mark.parametrize(("text", "value"), [
    # the examples of https://yaml.org/spec/1.2.2/#103-core-schema
    ("null", None), ("~", None), ("", None), ("true", True), ("False", False), ("0", 0),
    ("0o7", 7), ("0x3A", 58), ("-19", -19), ("0.", 0.0), ("-0.0", -0.0), (".5", 0.5),
    ("+12e03", 12000.0), ("-2E+05", -200000.0), (".inf", float("inf")), ("-.Inf", float("-inf")),
    ("+.INF", float("inf")), ("010", 10), ("1e3", 1000.0),
    # and what version 1.1 thought of
    *((text, text) for text in ("on", "Off", "yes", "NO", "y", "12:30", "1_0", "2024-01-01",
                                "2024-01-01 10:00:00", "0b1", "=", "1:2.3")),
])
def test_read__is_the_core_schema(text: str, value: Any) -> None:
    assert same(plain(parse_value(text)), value)


def test_read__keys_are_their_texts() -> None:
    keys = ["2024-01-01", "01", "0x1F", "1.0", "~", "on", "true", "1e3", "null", "12:30"]
    assert list(parse_value(f"{{{', '.join(f'{key}: 1' for key in keys)}}}")) == keys
    assert parse_value("{base: &b {x: 1, y: 2}, more: {<<: *b, x: 3}}")["more"] == {"x": 3, "y": 2}


def test_numbers__remember_how_they_are_written_and_are_written_so_again() -> None:
    data = parse_value("{a: 010, b: 0x1F, c: 1e3, d: 7, e: 0.5, f: 5.0e-5}")
    assert data == {"a": 10, "b": 31, "c": 1000.0, "d": 7, "e": 0.5, "f": 5e-5}
    assert (type(data["a"]), type(data["c"])) == (WrittenInt, WrittenFloat)
    assert (type(data["d"]), type(data["e"])) == (int, float)
    assert [str(value) for value in data.values()] == ["010", "0x1F", "1e3", "7", "0.5", "5.0e-5"]
    assert dump(data) == "a: 010\nb: 0x1F\nc: 1e3\nd: 7\ne: 0.5\nf: 5.0e-5\n"


@pytest.mark.parametrize(("text", "what"), [
    ("{1: a, '1': b}", "1 stands twice"),
    ("[{a: 1, a: 2}]", "0.a stands twice"),
    ("{[1]: a}", "a key is a text"),
    ("!!int abc", "'abc' is not of int"),
    ("!!bool yes", "'yes' is not of bool"),
    ("!!timestamp 2024-01-01", "could not determine"),
    ("!!set {a}", "could not determine"),
    ("1e400", "larger than any number"),
    ("9" * 5000, "digits"),
    ("&a {b: *a}", "holds itself"),
    ("&a [*a]", "holds itself"),
])
def test_read__refused_in_one_line(text: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=what):
        parse_value(text)
    path = tmp_path / "s.yaml"
    path.write_text(f"x: {text}\n")
    with pytest.raises(InputError, match=rf"s\.yaml:1.*{what}"):
        read(path)


def test_record__reads_back_names_and_arguments_that_look_like_something_else(
        write: Callable[..., Path], tmp_path: Path) -> None:
    study = load_study(write(name="1e3"), [
        "techniques={on: LoRA, '010': LinearProbe}", "baseline=010", "select_by=val/loss",
        "datasets.reviews.init_args.text='null'", "datasets.reviews.init_args.label=2024",
        "datasets.reviews.init_args.classes={neg: 0, 2024-01-01: 1_0, ~: '~'}"])
    assert [cell.key.technique for cell in study.cells] == ["on", "010"]
    assert study.baseline == "010"
    given = study.cells[0].data["init_args"]
    assert given["text"] == "null"
    assert given["label"] == 2024  # a column's number, where both may stand
    assert given["classes"] == {"neg": "0", "2024-01-01": "1_0", "~": "~"}
    path = tmp_path / "again.yaml"
    path.write_text(record(study), encoding="utf-8")
    assert load_study(path) == study


def test_texts__as_json_writes_them() -> None:
    assert parse_value(r'{"\ud83d\ude00": ["\ud83d\ude00", "caf\u00e9"]}') == {"\U0001f600": ["\U0001f600", "caf\u00e9"]}
    for half in (r'"\ud83d"', r'{"\ude00": a}'):
        with pytest.raises(ValueError, match="half a character"):
            parse_value(half)


def test_read__another_encoding_is_said(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes("name: größe\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"study.yaml: not UTF-8 \(byte 8\)\n  save it as UTF-8"):
        read(path)
