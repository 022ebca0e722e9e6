"""Every test that the threat model names is there."""

import ast
import re
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "threat_model.md"


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test")}


def missing(text: str) -> list[str]:
    """Names of tests in a page that no file has; one without a file is of the file before it."""
    wrong, path = [], None
    for file, name in re.findall(r"`(?:(tests/[\w/]+\.py)::)?(test_[\w*]*)`", text):
        path = ROOT / file if file else path
        if path is None or not path.is_file() or not any(
                fnmatch(function, name) for function in functions(path)):
            wrong.append(f"{file}::{name}")
    return wrong


def test_page__names_tests_that_exist():
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("::test_") > 20
    assert missing(text) == []


def test_check__finds_what_is_planted():
    assert missing("`tests/faults/test_threat_model.py::test_page*`, `test_no`") == ["::test_no"]
    assert missing("`tests/faults/no.py::test_a`") == ["tests/faults/no.py::test_a"]
