"""Averages over tasks and groups, against numbers computed by hand and by scipy."""

import csv
import io
import math

import numpy as np
import pytest
from scipy import stats

from ftlab.reports import task_means
from ftlab.reports.columns import grid, parse
from ftlab.reports.csv_files import to_csv
from ftlab.reports.study_results import StudyResults
from ftlab.statistics.averages import over_groups, over_tasks
from ftlab.tasks.classification import Classification
from tests.reports.conftest import Store

TABLE = np.array([[0.90, 0.93, 0.91], [0.60, 0.66, 0.61], [0.71, 0.70, 0.75]])  # tasks by seeds
TASKS = [dict(zip((3, 5, 7), row, strict=True)) for row in TABLE.tolist()]


def same(found, values):
    """A summary against numpy's and scipy's."""
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert found.n == len(values)
    assert (found.mean, found.std) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high))


def test_over_tasks__is_the_summary_of_the_seeds_means():
    same(over_tasks(TASKS), TABLE.mean(axis=0))


def test_over_groups__counts_a_group_once_seed_by_seed():
    same(over_groups([TASKS[:2], TASKS[2:]]), (TABLE[:2].mean(axis=0) + TABLE[2]) / 2)


@pytest.mark.parametrize("groups", [[TASKS[:2], [{3: 0.5}]], [[TASKS[0], {3: 0.5}], TASKS[1:]]])
def test_over_groups__of_unequal_seeds_has_a_mean_and_no_spread(groups):
    found = over_groups(groups)
    means = [np.mean([np.mean(list(task.values())) for task in group]) for group in groups]
    assert (found.mean, found.n) == (pytest.approx(np.mean(means)), 1)
    assert all(map(math.isnan, (found.std, found.ci_low, found.ci_high)))


@pytest.mark.parametrize("groups", [[], [[]], [TASKS, []], [TASKS, [{}]], [[{}], TASKS]])
def test_over_groups__of_what_is_missing_there_is_none(groups):
    found = over_groups(groups)
    assert found.n == 0 and math.isnan(found.mean)


def test_over_tasks__seeds_are_matched_by_number_not_by_place():
    found = over_tasks([{0: 0.1, 1: 0.9}, {1: 0.1, 0: 0.9}])
    assert (found.mean, found.std) == (0.5, 0.0)
    unequal = over_tasks([{0: 0.1, 1: 0.9}, {1: 0.1, 2: 0.9}])
    assert unequal.mean == 0.5 and math.isnan(unequal.std) and unequal.n == 2


def test_names__of_one_data_set_there_is_no_average():
    assert task_means.names(["bbc"], {"g": ["bbc"]}) == []
    assert task_means.means({"bbc": {0: 0.5}}, ["bbc"], {"g": ["bbc"]}) == {}
    assert task_means.rule("", ["bbc"], {}, [], True) == ""
    assert task_means.names(["a", "b"], {}) == ["mean over tasks"]


def test_means__a_group_that_misses_a_data_set_has_none_and_others_do():
    found = task_means.means({"a": {0: 0.5}, "b": {0: 0.7}}, ["a", "b", "c"],
                             {"g": ["a", "b"], "h": ["b", "c"]})
    assert found["mean of g"].mean == pytest.approx(0.6)
    assert [found[name].n for name in ("mean of h", "mean over groups", "mean over tasks")] == [0, 0, 0]


def test_means__data_sets_in_no_group_count_over_tasks_alone():
    found = task_means.means({"a": {0: 0.5}, "b": {0: 0.7}}, ["a", "b"], {"g": ["a"]})
    assert found["mean over groups"].mean == 0.5 and found["mean over tasks"].mean == pytest.approx(0.6)


LOSSES = {("a", "x"): 0.9, ("a", "y"): 0.9, ("a", "z"): 0.5,
          ("b", "x"): 0.85, ("b", "y"): 0.85, ("b", "z"): 0.58}


@pytest.mark.parametrize(("metric", "over_task", "over_group"), [("test/accuracy", "a", "b"),
                                                                 ("test/loss", "b", "a")])
def test_grid__winners_swap_in_the_metrics_direction(metric, over_task, over_group):
    """Means over tasks 0.767 and 0.760, over groups 0.70 and 0.715: by hand."""
    store = Store()
    keys = [store.add(name, [value] * 2, dataset=data, metric=metric)
            for (name, data), value in LOSSES.items()]
    source = StudyResults("study", metric, keys, {r.key: r for r in store.records},
                    {name: Classification() for name in "xyz"}, {"p": ["x", "y"], "q": ["z"]})
    made = grid([source], parse("datasets"))
    assert (f"best over tasks {over_task}, over groups {over_group}."
            in dict(made.about)["Averages"])
    lines = list(csv.DictReader(io.StringIO(to_csv(*made.numbers()))))
    means = [tuple(float(line[f"mean over {of}.mean"]) for of in ("tasks", "groups")) for line in lines]
    assert means == [pytest.approx((2.3 / 3, 0.7)), pytest.approx((2.28 / 3, 0.715))]
    assert {line["mean over tasks.stands"] for line in lines} == {"0"}, "averages are not tested"
