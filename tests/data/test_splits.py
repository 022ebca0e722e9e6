from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ftlab.data.splits import Split, Subset, stratified_counts
from ftlab.errors import InputError

BOTH = ["validation", "test"]
class_sizes = st.lists(st.integers(3, 60), min_size=1, max_size=5)
fractions = st.floats(0.05, 0.3)


def rows(sizes: list[int]) -> tuple[list[str], list[str]]:
    strata = [f"c{i}" for i, size in enumerate(sizes) for _ in range(size)]
    return strata, [f"id{i:04d}" for i in range(len(strata))]


def count(strata: list[str], positions: list[int]) -> Counter[str]:
    return Counter(strata[i] for i in positions)


@given(class_sizes, fractions, fractions, st.integers(0, 9))
def test_carve__disjoint_exhaustive_and_stratified_within_one(sizes, validation, test, seed):
    strata, ids = rows(sizes)
    parts = Split(validation, test, seed).carve(strata, ids, BOTH, "x")
    assert sorted(i for positions in parts.values() for i in positions) == list(range(len(ids)))
    for name, fraction in (("validation", validation), ("test", test)):
        counts = count(strata, parts[name])
        for stratum, size in Counter(strata).items():
            assert counts[stratum] >= 1
            assert abs(counts[stratum] - fraction * size) <= 1


def test_carve__seed_and_only_the_seed_changes_it():
    strata, ids = rows([50, 50])
    zero, again, one = (Split(seed=seed).carve(strata, ids, BOTH, "x") for seed in (0, 0, 1))
    assert zero == again
    assert zero["test"] != one["test"]


@given(st.permutations(range(40)))
def test_carve__independent_of_row_order(order):
    strata, ids = rows([25, 15])
    plain = Split().carve(strata, ids, BOTH, "x")
    moved = Split().carve([strata[i] for i in order], [ids[i] for i in order], BOTH, "x")
    for name, positions in moved.items():
        assert {ids[order[i]] for i in positions} == {ids[i] for i in plain[name]}


def test_carve__test_does_not_depend_on_validation():
    strata, ids = rows([50, 50])
    a = Split(validation=0.1).carve(strata, ids, BOTH, "x")
    b = Split(validation=0.4).carve(strata, ids, BOTH, "x")
    assert a["test"] == b["test"]


def test_carve__given_splits_are_left_alone():
    strata, ids = rows([10, 10])
    assert Split().carve(strata, ids, [], "x") == {"train": list(range(20))}
    assert set(Split().carve(strata, ids, ["validation"], "x")) == {"train", "validation"}


def test_carve__names_a_class_that_is_too_small():
    strata, ids = rows([10, 2])
    with pytest.raises(InputError, match="'c1' has 2 examples") as error:
        Split().carve(strata, ids, BOTH, "file.csv")
    assert "file.csv" in error.value.what and error.value.mend
    Split().carve(strata, ids, ["test"], "file.csv")


@pytest.mark.parametrize("arguments", [
    {"validation": 0.0}, {"test": 1.0}, {"validation": 0.5, "test": 0.5}, {"seed": -1}])
def test_split__refuses_values_out_of_range(arguments):
    with pytest.raises(ValueError):
        Split(**arguments)


@given(class_sizes, st.integers(1, 3))
def test_shots__that_many_of_each_class(sizes, shots):
    strata, ids = rows(sizes)
    kept = Subset(shots=shots).positions(strata, ids, "train")
    assert set(count(strata, kept).values()) == {shots}


@given(class_sizes, st.integers(5, 250))
def test_limit__exact_total_and_every_class(sizes, limit):
    strata, ids = rows(sizes)
    kept = Subset(limit=limit).positions(strata, ids, "train")
    assert len(kept) == min(limit, len(ids))
    assert set(count(strata, kept)) == set(strata)


@given(st.lists(st.integers(20, 60), min_size=1, max_size=5), st.floats(0.1, 1))
def test_limit__fraction_is_stratified_within_one(sizes, limit):
    strata, ids = rows(sizes)
    counts = count(strata, Subset(limit=limit).positions(strata, ids, "train"))
    size = sum(counts.values())
    assert size == int(limit * len(ids) + 0.5)
    assert all(abs(counts[f"c{i}"] - size * n / len(ids)) <= 1 for i, n in enumerate(sizes))


@given(st.dictionaries(st.text(max_size=2), st.integers(1, 99), min_size=1, max_size=9),
       st.integers(1, 200))
def test_stratified_counts__never_more_than_there_are(counts, size):
    assume(len(counts) <= size <= sum(counts.values()))
    kept = stratified_counts(counts, size, "train")
    assert sum(kept.values()) == size
    assert all(1 <= kept[stratum] <= counts[stratum] for stratum in counts)


@pytest.mark.parametrize(("largest", "ratio", "classes"), [(100, 10, 10), (500, 100, 10),
                                                           (64, 8, 2), (40, 1, 4)])
def test_long_tail__follows_cui_2019(largest, ratio, classes):
    strata, ids = rows([largest] * classes)
    kept = Subset(imbalance_ratio=ratio).positions(strata, ids, "train")
    # https://github.com/richardaecn/class-balanced-loss: img_max * imb_factor**(i / (C - 1.0))
    formula = largest * (1 / ratio) ** (np.arange(classes) / (classes - 1.0))
    assert [count(strata, kept)[f"c{i}"] for i in range(classes)] == (formula + 1e-9).astype(
        int).tolist()


def test_long_tail__exact_powers_are_not_rounded_down():
    strata, ids = rows([32] * 6)
    counts = count(strata, Subset(imbalance_ratio=32.0).positions(strata, ids, "train"))
    assert list(counts.values()) == [32, 16, 8, 4, 2, 1]  # 32 * 32**-0.4 is 7.999999999999999


def test_long_tail__largest_class_becomes_the_head():
    strata, ids = rows([20, 80, 40])
    counts = count(strata, Subset(imbalance_ratio=16.0).positions(strata, ids, "train"))
    assert counts == {"c1": 80, "c2": 20, "c0": 5}


def test_subset__smaller_within_larger_and_train_only_unless_said():
    strata, ids = rows([50, 50])
    few, more = (set(Subset(limit=n).positions(strata, ids, "train")) for n in (10, 30))
    assert few < more
    assert few != set(Subset(limit=10, seed=1).positions(strata, ids, "train"))
    assert len(Subset(limit=10).positions(strata, ids, "test")) == 100
    assert len(Subset(limit=10, splits=("test",)).positions(strata, ids, "test")) == 10


@pytest.mark.parametrize(("subset", "message"), [
    (Subset(shots=11), "'c1' has 10 examples"),
    (Subset(limit=1), "limit of 1 cannot hold"),
    (Subset(imbalance_ratio=1000.0), "leaves class 'c1' empty")])
def test_subset__refuses_what_the_data_cannot_give(subset, message):
    strata, ids = rows([20, 10])
    with pytest.raises(InputError, match=message):
        subset.positions(strata, ids, "train")


def test_subset__shots_need_classes():
    with pytest.raises(InputError, match="need a task with classes"):
        Subset(shots=1).positions([None, None], ["a", "b"], "train")
    assert Subset(limit=1).positions([None, None], ["a", "b"], "train") in ([0], [1])


@pytest.mark.parametrize("arguments", [
    {"shots": 0}, {"limit": 0}, {"limit": 1.5}, {"imbalance_ratio": 0.5}, {"seed": -1},
    {"shots": 1, "limit": 9}, {"splits": ("dev",)}])
def test_subset__refuses_values_out_of_range(arguments):
    with pytest.raises(ValueError):
        Subset(**arguments)
