"""What runs had to import is imported once, by the server."""

import os
import sys

import pytest

from ftlab.studies.preload import LONGEST, ImportsSeen, _parts

NEW = ("json.tool", "this")  # of a package that is here, and a module that is not


def test_learned__takes_submodules_of_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NEW:
        monkeypatch.delitem(sys.modules, name, raising=False)
    learned = ImportsSeen()
    for name in NEW:  # as if a run's process had imported them
        monkeypatch.setitem(sys.modules, name, os)
    learned.send()
    for name in NEW:
        monkeypatch.delitem(sys.modules, name)
    learned.take()
    assert sys.modules["json.tool"] is not os
    assert "this" not in sys.modules


def test_learned__outlives_a_module_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    learned = ImportsSeen()
    monkeypatch.setitem(sys.modules, "json.no_such_module", os)
    learned.send()
    monkeypatch.delitem(sys.modules, "json.no_such_module")
    learned.take()
    learned.take()  # nothing has come
    assert "json.no_such_module" not in sys.modules


def test_messages__stay_whole() -> None:
    names = [f"package.module{number}" for number in range(1000)]
    parts = list(_parts(names))
    assert [name for part in parts for name in part] == names
    assert max(len(repr(part)) for part in parts) <= LONGEST
    assert not list(_parts([]))
