"""Classes of users that were written for an earlier version are refused, not ignored."""

import importlib

import pytest

from ftlab.data.base import DataModule
from ftlab.data.text import TextClassification
from ftlab.errors import InputError
from ftlab.renamed import RENAMED
from ftlab.studies.discover import members
from ftlab.tasks.classification import Classification
from ftlab.tasks.losses.base import Loss
from ftlab.techniques.base import Technique


@pytest.mark.parametrize(("base", "names"), [
    (Technique, ["attach", "form"]), (Classification, ["form", "outside"]),
    (TextClassification, ["outside"]), (DataModule, ["outside"])])
def test_an_earlier_name_is_refused_where_its_class_is_defined(base: type, names: list[str]) -> None:
    with pytest.raises(InputError, match="Mine defines") as error:
        type("Mine", (base,), {"__module__": __name__, **dict.fromkeys(names, "vector")})
    for name in names:
        assert name in error.value.what and f"{name} to {RENAMED[name]}" in error.value.mend
        assert "\n" not in error.value.what + error.value.mend


def test_a_name_that_the_family_never_had_is_free() -> None:
    assert type("Mine", (Loss,), {"form": "round", "attach": print}).form == "round"
    assert type("Mine", (TextClassification,), {"attach": print}).attach is print


def test_a_module_that_is_allowed_is_refused_in_the_same_words(tmp_path, monkeypatch) -> None:
    (tmp_path / "of_before.py").write_text(
        "from ftlab.tasks.regression import Regression\n\n\n"
        "class Mine(Regression):\n    form = 'vector'\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with pytest.raises(InputError) as error:
        members(Classification, ["of_before"])
    assert str(error.value) == (
        "of_before.Mine defines form, which this version of ftlab does not read\n"
        "  rename: form to output_type")
