"""Packages of the current folder, on the explicit word of the user and no other."""

import importlib.util
import os
from pathlib import Path

import pytest

from ftlab.errors import InputError
from ftlab.studies.allowed_packages import admit
from ftlab.studies.discover import find, members
from ftlab.techniques.base import Technique

CLASS = """
from ftlab.techniques.base import Technique
class {name}(Technique):
    "Train nothing."
    def __init__(self) -> None:
        super().__init__(1e-3)
    def adapt(self, model) -> None:
        pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_admit__a_package_with_all_that_is_in_it_and_nothing_beside_it(folder: Path) -> None:
    (folder / "admitted_a" / "deep").mkdir(parents=True)
    (folder / "admitted_a" / "__init__.py").touch()
    (folder / "admitted_a" / "near.py").write_text(CLASS.format(name="Near"))
    (folder / "admitted_a" / "deep" / "far.py").write_text(CLASS.format(name="Far"))
    (folder / "admitted_b.py").write_text("raise SystemExit('imported')")
    assert "Near" in members(Technique, ["admitted_a"])
    for name in ("Near", "admitted_a.near.Near", "admitted_a.deep.far.Far"):
        assert find(Technique, name, ["admitted_a"], "here").__name__ == name.rpartition(".")[2]
    assert importlib.util.find_spec("admitted_b") is None
    for name in ("admitted_a.near.os", "admitted_a.near.None", "admitted_a.nowhere.Far", "Far"):
        with pytest.raises(InputError, match="there is no Technique called"):
            find(Technique, name, ["admitted_a"], "here")


@pytest.mark.parametrize(("name", "what", "mend"), [
    ("admitted_none", "cannot be imported", "install it"),
    ("mine.py", "not the name of a module", "--allow mine, in the folder"),
    ("code/mine", "not the name of a module", "--allow mine, in the folder"),
    ("json", "there is one here, and another in", "rename yours"),
    ("admitted_wrong", "cannot be imported", "mend it"),
])
def test_admit__refused_in_one_line(name: str, what: str, mend: str, folder: Path) -> None:
    (folder / "json.py").touch()
    (folder / "admitted_wrong.py").write_text("def (:\n")
    with pytest.raises(InputError) as caught:
        members(Technique, [name])
    assert what in caught.value.what
    assert mend in caught.value.mend


def test_admit__a_folder_that_is_called_like_what_is_installed_is_none_of_it(folder: Path) -> None:
    (folder / "yaml").mkdir()  # a checkout, say
    admit(["yaml"])
    assert not os.listdir(folder / "yaml")
