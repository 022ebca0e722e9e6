"""The planner of the prefix cache: a formula over what one batch measured."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftlab.training.shortcuts.prefix_cache.cache_estimate import (
    CHECK,
    MARGIN,
    WRITE,
    BatchTiming,
    CacheFile,
    Forecast,
    ForwardPasses,
    foresee,
    padded,
    stored_bytes,
)

COSTLY = BatchTiming(compute=1e-2, read=1e-5, bytes=1000.0)
TRAIN = CacheFile(1000, ForwardPasses(training=5), 1200.0, 1000.0, there=False)
VALIDATION = CacheFile(100, ForwardPasses(evaluation=6), 0.0, 100.0, there=False)


def test_forecast__is_the_sum_of_its_passes() -> None:
    one = foresee(COSTLY, [TRAIN, VALIDATION], runs=1)
    assert one.plain == pytest.approx(1e-2 * (5 * 1200 + 6 * 100))
    assert one.build == pytest.approx(1e-2 * 1100 + 1100 * 1000 / WRITE)
    assert one.bytes == 1_100_000
    assert one.read == pytest.approx(1e-5 * (5 * 1000 + 6 * 100) + 1_100_000 / CHECK)
    assert one.saved == pytest.approx(one.plain - one.build - one.read)


@given(st.integers(1, 50), st.floats(1e-7, 1e-1), st.floats(1e-7, 1e-1))
def test_forecast__grows_with_the_runs_to_come_and_building_does_not(
    runs: int, compute: float, read: float
) -> None:
    measured = BatchTiming(compute, read, 1000.0)
    one, many = (foresee(measured, [TRAIN, VALIDATION], n) for n in (1, runs))
    assert many.build == one.build
    assert many.plain == pytest.approx(runs * one.plain)
    assert many.read == pytest.approx(runs * one.read)


def test_forecast__of_what_is_there_builds_nothing() -> None:
    parts = [dataclasses.replace(part, there=True) for part in (TRAIN, VALIDATION)]
    assert foresee(COSTLY, parts, 1).build == 0


def test_forecast__declines_one_epoch_alone_and_not_with_others_to_come() -> None:
    once = dataclasses.replace(TRAIN, passes=ForwardPasses(training=1), training=1000.0)
    assert not foresee(COSTLY, [once], 1).pays and foresee(COSTLY, [once], 3).pays


@pytest.mark.parametrize(("saved", "pays"), [
    (-0.5, False), (0.5 * MARGIN, False), (0.99 * MARGIN, False), (1.01 * MARGIN, True)])
def test_forecast__pays_by_more_than_it_may_be_wrong(saved: float, pays: bool) -> None:
    assert Forecast(1, plain=10.0, build=6.0, read=4.0 - 10 * saved, bytes=1).pays == pays


def test_padded__counts_each_batch_at_its_longest() -> None:
    assert padded([3, 1, 2, 5, 4], [4, 3, 0, 2, 1], 2) == 2 * 5 + 2 * 3 + 1


def test_stored_bytes__leave_padding_out() -> None:
    mask = torch.tensor([[True, False, False], [True, True, True]])
    handed = [torch.zeros(2, 3, 5, dtype=torch.float16), torch.zeros(2, 7)]
    assert stored_bytes(handed, [mask, None]) == 4 * 5 * 2 + 2 * 7 * 4
