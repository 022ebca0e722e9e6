"""A 0 or 1 for each label in the forms that files have it in, held to the drawn matrix itself."""

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
import torch

from ftlab.errors import InputError
from ftlab.tasks.multi_label import MultiLabel

NAMES = ["a", "b", "c"]
MATRIX = np.random.default_rng(0).integers(0, 2, (30, 3))


def written(cells: list) -> list[str]:
    """Cells as pandas writes them into a CSV and the csv module reads them."""
    text = pd.DataFrame({"label": cells}).to_csv(index=False)
    return [row[0] for row in csv.reader(io.StringIO(text))][1:]


FORMS = {
    "integers": MATRIX.tolist(),
    "floats": MATRIX.astype(float).tolist(),
    "booleans": MATRIX.astype(bool).tolist(),
    "texts in lists": MATRIX.astype(str).tolist(),
    "tuples": list(map(tuple, MATRIX.tolist())),
    "arrays": list(MATRIX),
    "float arrays": list(MATRIX.astype(np.float32)),
    "tensors": list(torch.tensor(MATRIX)),
    "csv of lists": written(MATRIX.tolist()),
    "csv of booleans": written(MATRIX.astype(bool).tolist()),
    "csv of arrays": written(list(MATRIX)),
    "csv of float arrays": written(list(MATRIX.astype(float))),
    "json": [json.dumps(row) for row in MATRIX.astype(bool).tolist()],
    "commas": [",".join(map(str, row)) for row in MATRIX],
    "blanks": [" ".join(map(str, row)) for row in MATRIX],
    "separators": ["|".join(map(str, row)) for row in MATRIX],
    "csv of boolean arrays": written(list(MATRIX.astype(bool))),
    "csv of tensors": written([repr(torch.tensor(row)) for row in MATRIX]),
    "representations of arrays": list(map(repr, MATRIX.astype(np.float32))),
}
KEYED = {
    "mappings": [dict(zip(NAMES, row, strict=True)) for row in MATRIX.tolist()],
    "booleans": [dict(zip(NAMES, row, strict=True)) for row in MATRIX.astype(bool).tolist()],
    "in another order": [dict(reversed(list(zip(NAMES, row, strict=True))))
                         for row in MATRIX.tolist()],
    "csv": written([dict(zip(NAMES, row, strict=True)) for row in MATRIX.tolist()]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("given", [None, ["x", "y", "z"]])
def test_positions__are_the_matrix(form: str, given: list[str] | None) -> None:
    task = MultiLabel(labels=given)
    task.fit(FORMS[form])
    assert task.labels == (given or ["label_0", "label_1", "label_2"])
    assert [task.encode(label, "") for label in FORMS[form]] == MATRIX.tolist()
    counts = task.summary()["train_counts"]
    assert list(counts.values()) == MATRIX.sum(axis=0).tolist()


@pytest.mark.parametrize("form", KEYED)
def test_keys__are_the_matrix(form: str) -> None:
    task = MultiLabel()
    task.fit(KEYED[form])
    assert task.labels == NAMES
    assert [task.encode(label, "") for label in KEYED[form]] == MATRIX.tolist()
    assert list(task.summary()["train_counts"].values()) == MATRIX.sum(axis=0).tolist()


@pytest.mark.parametrize("labels", [
    [["a"], ["b", "c"], [], ["a", "c"]], ["a", "b|c", "none", "a|c"],
    [*written([["a"], ["b", "c"], ["c", "a"]]), "[]"], ["[a]", "[b, c]", "[]", "[c, a]"]])
def test_names__stay_names(labels: list) -> None:
    task = MultiLabel(nothing="none")
    task.fit(labels)
    assert task.labels == NAMES
    assert task.encode(labels[1], "") == [0, 1, 1]


@pytest.mark.parametrize(("labels", "names"), [
    ([[3], [1, 7], [0, 1]], ["0", "1", "3", "7"]), ([[0], [1], [0, 1]], ["0", "1"]),
    (["0", "1", "2", "0|1"], ["0", "1", "2"])])
def test_names__may_be_numbers_where_none_occurs_twice(labels: list, names: list[str]) -> None:
    task = MultiLabel()
    task.fit(labels)
    assert task.labels == names
    with pytest.raises(InputError, match=r"row 9: label \[1, 1, 0\], where train has names"):
        task.encode([1, 1, 0], "row 9")


@pytest.mark.parametrize("form", [[1, 0], [1, 0, 1, 1], ["a", "b", "c"], [], "a|b", {"a": 1}, [1, 0, 2]])
def test_other_forms__are_refused_with_the_row(form: object) -> None:
    task = MultiLabel()
    task.fit(FORMS["integers"])
    with pytest.raises(InputError, match=r"row 9: label .* where train has lists of 3") as error:
        task.encode(form, "row 9")
    assert "labels: [...]" in error.value.mend


@pytest.mark.parametrize(("label", "says"), [
    ({"a": 1, "b": 0}, "other names than train's a, b, c"), ({"a": 1, "b": 0, "c": 2}, "neither 0 nor 1"),
    ({"a": 1, "b": 0, "c": None}, "the 0 or 1 of 'c' is missing"), ([1, 0, 1], "under the name of each")])
def test_keys__are_all_there(label: object, says: str) -> None:
    task = MultiLabel()
    task.fit(KEYED["mappings"])
    with pytest.raises(InputError, match=f"row 9.*{says}"):
        task.encode(label, "row 9")


def test_names__and_one_list_of_flags_are_a_mixture() -> None:
    labels = [["a"], ["b", "c"], [1, 0]]
    task = MultiLabel()
    task.fit(labels)
    with pytest.raises(InputError, match=r"row 3: label \[1, 0\], where train has names"):
        task.encode(labels[-1], "row 3")


@pytest.mark.parametrize("labels", [[[0], [1], [1]], ["0", "1"], [[True], [False]]])
def test_single_flags__are_refused(labels: list) -> None:
    with pytest.raises(InputError, match="a single 0 or 1"):
        MultiLabel().fit(labels)


def test_rows_of_digits__are_refused() -> None:
    with pytest.raises(InputError, match="a row of 0 and 1 such as '011'"):
        MultiLabel().fit(["011", "101", "110"])
    MultiLabel().fit(["110", "101"])


@pytest.mark.parametrize("labels", [[[.2, .8], [.5, .1]], [[1, 1, -1], [1, -1, -1]], [[2, 2, 0], [0, 2, 0]]])
def test_other_numbers__are_refused(labels: list) -> None:
    task = MultiLabel()
    task.fit(labels)
    with pytest.raises(InputError, match="row 1: label"):
        task.encode(labels[0], "row 1")


def test_labels__are_checked() -> None:
    for wrong in (["a"], ["a", "a"], ["1", "1.0"], ["a", " "]):
        with pytest.raises(ValueError, match="at least two names, all different"):
            MultiLabel(labels=wrong)
    with pytest.raises(InputError, match="lists of 3 numbers 0 and 1, and the task's labels name 2"):
        MultiLabel(labels=["a", "b"]).fit(FORMS["integers"])
    ordered = MultiLabel(labels=["c", "b", "a", "rare"])
    ordered.fit([["a"], ["b", "c"]])
    assert ordered.labels == ["c", "b", "a", "rare"]
    assert ordered.encode(["a", "c"], "") == [1, 0, 1, 0]


def test_renamed__renames_names_and_not_flags() -> None:
    task, classes = MultiLabel(), {"a": "x", "b": "y", "a|b": "both", "1": "one"}
    assert task.renamed(["a", "b"], classes, "") == ["x", "y"] == task.renamed("a |b", classes, "")
    assert task.renamed("a|b", classes, "") == "both"
    assert task.renamed([1.0], classes, "") == ["one"]
    with pytest.raises(InputError, match="row 1: classes rename labels by name"):
        task.renamed([1, 1], classes, "row 1")


SETS = [{"a", "b"}, {"c"}, set(), {"b", "c"}]


@pytest.mark.parametrize("cells", [
    written([np.array(sorted(each)) for each in SETS]),  # ['a' 'b']
    written([repr(np.array(sorted(each))) for each in SETS]), written(SETS),
    written(list(map(frozenset, SETS))), written(list(map(sorted, SETS)))],
    ids=["arrays", "representations", "sets", "frozen sets", "lists"])
def test_names__in_what_python_and_numpy_write(cells: list[str]) -> None:
    task = MultiLabel()
    task.fit(cells)
    assert task.labels == ["a", "b", "c"]
    assert [task.encode(cell, "") for cell in cells] == [[1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 1, 1]]


def test_parquets_maps__are_mappings() -> None:
    task = MultiLabel()
    maps = [[("a", 1), ("b", 0)], [("a", 0), ("b", 1)]]
    task.fit(maps)
    assert (task.labels, [task.encode(each, "") for each in maps]) == (["a", "b"], [[1, 0], [0, 1]])


def test_array__that_numpy_cut_short_is_refused() -> None:
    cells = written([np.arange(2000) % 2, (np.arange(2000) + 1) % 2])
    with pytest.raises(InputError, match="was cut when it was written"):
        MultiLabel().fit(cells)


@pytest.mark.parametrize("mark", [",", ";", ", ", "/", " ", "\t", "\n", "+"])
def test_separator__of_another_kind_is_refused_and_named(mark: str) -> None:
    cells = [mark.join(names) for names in (["a", "b"], ["a"], ["b", "c"], ["c"])]
    with pytest.raises(InputError, match=r"no training label has the separator '\|'") as caught:
        MultiLabel().fit(cells)
    meant = mark.strip(" ") or mark
    assert f"set the task's separator: {meant!r}" in caught.value.mend
    task = MultiLabel(separator=meant)
    task.fit(cells)
    assert task.labels == ["a", "b", "c"]
    whole = MultiLabel(labels=sorted({cell.strip() for cell in cells}))
    whole.fit(cells)
    assert whole.outputs == 4


@pytest.mark.parametrize("cells", [["New York", "New Jersey", "Maine"], ["C++", "C", "A/B"], ["a", "b"],
                                   ["rock & roll", "rock"], ["a|b", "a, b"]])
def test_separator__that_stands_in_names_parts_none(cells: list[str]) -> None:
    MultiLabel().fit(cells)


@pytest.mark.parametrize("cells", [[["Paris, France"], ["Lyon, France"]], ["a|b", "b, c", "c"]])
def test_separator__is_not_looked_for_where_lists_or_others_have_it(cells: list) -> None:
    MultiLabel().fit(cells)
