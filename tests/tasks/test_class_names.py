import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlab.errors import InputError
from ftlab.tasks.class_names import class_name, metric_keys, name_order
from ftlab.tracking.mlflow_values import name_of


@settings(deadline=None, derandomize=True)
@given(st.lists(st.text(st.sampled_from("ab/.:$ é\u0301न\u093f😀_0\n"), max_size=4), unique=True))
def test_metric_keys__distinct_and_safe(names):
    keys = metric_keys(names)
    assert len(set(keys)) == len(names)
    for key in keys:
        assert re.fullmatch(r"[\w\-. ]*", key)
        assert name_of(f"test/f1/{key}") == f"test/f1/{key}", "it is stored as it is"
        assert set(key) != {"."}


def test_metric_keys__leaves_a_safe_name_alone():
    assert metric_keys(["sport", "a&b", "a+b", "x" * 300, ".."]) == [
        "sport", "a_b_1", "a_b_2", "x" * 100, "_",
    ]
    assert metric_keys(["a&b", "a+b", "a_b_1"]) == ["a_b_0", "a_b_1_", "a_b_1"]


def test_metric_keys__letters_of_every_script_stay():
    names = ["体育", "财经", "科技", "é", "ü", "да", "خبر", "😀", "😢", "नी", "नि", "A", "a"]
    assert metric_keys(names) == ["体育", "财经", "科技", "é", "ü", "да", "خبر", "_1f600", "_1f622",
                                  "न_940", "न_93f", "A", "a"]
    assert metric_keys(["é", "e\u0301"]) == ["é_0", "é_1"]
    assert len(metric_keys(["体" * 300])[0]) == 100
    assert metric_keys(["😀" * 50])[0] == ("_1f600" * 50)[:100]


@given(st.lists(st.integers(-(10**6), 10**6)))
def test_name_order__numbers_by_value(numbers):
    assert sorted(map(str, numbers), key=name_order) == [str(n) for n in sorted(numbers)]


def test_name_order__numbers_before_texts():
    assert sorted(["b", "10", "nan", "2", "a"], key=name_order) == ["2", "10", "a", "b", "nan"]


@pytest.mark.parametrize("label", [None, math.nan, np.float64("nan"), "", "  "])
def test_class_name__refuses_a_missing_label(label):
    with pytest.raises(InputError, match="row 7 is missing"):
        class_name(label, "row 7")


def test_class_name__is_the_text():
    assert class_name(np.int64(3), "") == class_name(3, "") == class_name("3", "") == "3"
