"""What a value of a file is for an argument, in whichever way it is typed."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from ftlab.errors import InputError
from ftlab.studies.components import build, check_plain
from ftlab.studies.yaml_file import Place, parse_value


@dataclass
class Part:
    text: str | None = None
    rate: float = 0.5


PART = Part()


class Arguments:
    def __init__(self, text: str = "", perhaps: str | None = "x", either: str | int = "",
                 number_first: int | str = 0, one_or_more: str | list[str] = "",
                 names: dict[str, str] | None = None, several: list[str] | None = None,
                 word: Literal["on", "1", "a"] = "a", part: Part = PART, parts: Part | None = None,
                 rate: float = 0.0, count: int = 1, flag: bool = False,
                 size: int | tuple[int, int] | None = None) -> None:
        self.given = dict(locals())


Here = f"{__name__}.Arguments"
TEXTS = ["on", "no", "2024-01-01", "12:30", "1_0", "'1'", "'01'", "'null'", "'~'", "'true'", "'1e3'",
         "'[1, 2]'", "'- x'", "'a: b'", "''", "'{x'"]


def read(text: str) -> dict[str, Any]:
    """Checked and built; the constructor gets what the check has said."""
    checked = check_plain(Arguments, parse_value(text), Place("file"))
    made = build({"class_path": Here, "init_args": checked})
    for key, value in checked.items():
        given = made.given[key]
        assert (vars(given) if isinstance(given, Part) else given) == value
    return checked


@pytest.mark.parametrize("text", TEXTS)
def test_text__is_itself_wherever_a_text_may_stand(text: str) -> None:
    value = text[1:-1] if text[0] == "'" else text
    places = ("text", "perhaps", "either", "number_first", "one_or_more")
    found = read(f"{{{', '.join(f'{key}: {text}' for key in places)}, names: {{x: {text}}}, "
                 f"several: [{text}], part: {{text: {text}}}, parts: {{text: {text}}}}}")
    assert [found[key] for key in places] == [value] * len(places)
    assert found["names"] == {"x": value}
    assert found["several"] == [value]
    assert found["part"]["text"] == found["parts"]["text"] == value


@pytest.mark.parametrize("text", ["0", "1.0", "010", "0x1F", "1e3", "+5", ".5", ".inf", "5.0e-5"])
def test_number__is_its_digits_where_a_text_is_wanted(text: str) -> None:
    found = read(f"{{text: {text}, perhaps: {text}, names: {{x: {text}}}, several: [{text}], "
                 f"parts: {{text: {text}}}, one_or_more: {text}}}")
    assert [found["text"], found["perhaps"], found["one_or_more"]] == [text] * 3
    assert found["names"] == {"x": text}
    assert found["several"] == [text]
    assert found["parts"]["text"] == text


def test_number__where_both_may_stand_is_a_number_as_it_is_usually_written() -> None:
    assert [read(f"either: {text}")["either"] for text in ("7", "-1", "07", "0x7", "1.5", "1e3")] == [
        7, -1, "07", "0x7", "1.5", "1e3"]
    assert [read(f"number_first: {text}")["number_first"] for text in ("7", "07")] == [7, "07"]
    assert read("rate: 1e3")["rate"] == 1000.0
    assert read("{count: 010, size: [3, 0x4]}")["size"] == (3, 4)


def test_literal__is_found_as_text_and_as_number() -> None:
    assert [read(f"word: {text}")["word"] for text in ("on", "'1'", "1")] == ["on", "1", "1"]


@pytest.mark.parametrize(("text", "what", "mend"), [
    ("text: true", "text: expected text, got true", 'a text is quoted: "true"'),
    ("text: null", "text: expected text, got null", 'a text is quoted: "null"'),
    ("either: False", "either: expected text or a whole number, got false", '"false"'),
    ("names: {a: true}", "names.a: expected text, got true", '"true"'),
    ("names: {a: }", "names.a: expected text, got null", '"null"'),
    ("several: [a, ~]", "several.1: expected text, got null", '"null"'),
    ("count: '16'", "count: expected a whole number, got the text '16'", "without quotes: 16"),
    ("rate: '1e-4'", "rate: expected a number, got the text '1e-4'", "without quotes: 1e-4"),
    ("part: {rate: '.5'}", "part.rate: expected a number, got the text '.5'", "without quotes"),
    ("flag: yes", "flag: expected true or false, got yes", "write true or false"),
    ("count: null", "count: expected a whole number, got null", "remove the key"),
    ("count: 1_000", "count: expected a whole number, got 1_000", ""),
    ("count: true", "count: expected a whole number, got true", ""),
    ("rate: 'null'", "rate: expected a number, got null", ""),
])
def test_refused__with_the_mend(text: str, what: str, mend: str) -> None:
    with pytest.raises(InputError) as caught:
        check_plain(Arguments, parse_value(text), Place("file"))
    assert what in caught.value.what
    assert mend in caught.value.mend
