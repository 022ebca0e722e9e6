"""Texts in CSV files: numbers as they are, formulas guarded, and the guard taken back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftlab.exports.predictions import Predictions
from ftlab.reports.csv_files import to_csv
from ftlab.reports.drift.read_results import measurements
from ftlab.reports.formats import escape_csv, unescape_csv

NUMBERS = ["-1", "+3", "-12", "-1.5e-3", "-0", "+.5", "-5%", "-1,5", "-1.000,25", "+49", "-", "+", "--"]
# the first characters that OWASP names, in half and in full width
FORMULAS = ["=1", "=cmd|' /C calc'!A0", "+x", "-x", "-1abc", "-1+2", "+1-1", "-2*A1", "-1\n", "@SUM(A1)",
            "\t=1", "\r=1", "\n=1", "\uff1d1", "\uff0bx", "\uff0dx", "\uff20x", "'=1", "''-x", "+\u0663"]
PLAIN = ["good", "1", "", "'tis", "'", "''", "a=b", " =1", "\u22121", "2024-01-01"]


def test_numbers_and_other_texts__stay() -> None:
    for text in [*NUMBERS, *PLAIN]:
        assert escape_csv(text) == text, text


def test_formulas__are_guarded() -> None:
    for text in FORMULAS:
        assert escape_csv(text) == f"'{text}", text


@given(st.text(alphabet="'=+-@\t\r\n\uff1d1a.,e% "))
def test_guard__is_taken_back(text: str) -> None:
    guarded = escape_csv(text)
    assert unescape_csv(guarded) == text
    assert not guarded.startswith(("=", "@", "\t", "\r", "\n"))


def test_every_table__has_the_class_as_it_is(tmp_path: Path) -> None:
    names = ["-1", "+3", "-", "=1"]
    columns: dict = {"id": ["a", "b", "c", "d"], "prediction": names, "score -1": [-1.0, 0.5, -0.0, 1e-7]}
    written = Predictions(columns, {}).write(tmp_path / "said.csv").read_text()
    assert written == ("id,prediction,score -1\na,-1,-1.0\nb,+3,0.5\nc,-,-0.0\nd,'=1,1e-07\n")
    assert to_csv(["id", "label"], [{"id": "-12", "label": "@x"}]) == "id,label\n-12,'@x\n"


@pytest.mark.parametrize("name", ["=full", "-probe", "-1", "'@x"])
def test_compare__reads_names_as_they_were(name: str, tmp_path: Path) -> None:
    line = {"study": "s", "backbone": "b", "dataset": "d", "technique": name, "seed": 0,
            "status": "FINISHED", "run_id": "r", "test/accuracy": 0.5}
    (tmp_path / "runs.csv").write_text(to_csv(list(line), [line]))
    assert list(measurements(str(tmp_path)).cells) == [("b", "d", name)]
