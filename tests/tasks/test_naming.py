import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlab.errors import InputError
from ftlab.tasks.naming import class_name, metric_keys, name_order


@settings(deadline=None, derandomize=True)
@given(st.lists(st.text(st.sampled_from("ab/.$ é_0\n"), max_size=4), unique=True))
def test_metric_keys__distinct_and_safe(names):
    keys = metric_keys(names)
    assert len(set(keys)) == len(names)
    for key in keys:
        assert re.fullmatch(r"[\w\-. ]*", key)
        assert set(key) != {"."}


def test_metric_keys__leaves_a_safe_name_alone():
    assert metric_keys(["sport", "a&b", "a+b", "x" * 300, ".."]) == [
        "sport", "a_b_1", "a_b_2", "x" * 100, "_",
    ]
    assert metric_keys(["a&b", "a+b", "a_b_1"]) == ["a_b_0", "a_b_1_", "a_b_1"]


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
