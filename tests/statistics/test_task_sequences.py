"""Scores of a sequence of three tasks, worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ftlab.statistics.task_sequences import (
    backward_transfer,
    final_accuracy,
    forgetting,
    forward_transfer,
)

RESULTS = [[0.9, 0.3, 0.2],
           [0.7, 0.8, 0.4],
           [0.6, 0.9, 0.7]]


def test_by_hand() -> None:
    assert final_accuracy(RESULTS) == pytest.approx((0.6 + 0.9 + 0.7) / 3)
    assert backward_transfer(RESULTS) == pytest.approx(((0.6 - 0.9) + (0.9 - 0.8)) / 2)
    assert forward_transfer(RESULTS, [0.5, 0.25, 0.3]) == pytest.approx(((0.3 - 0.25) + (0.4 - 0.3)) / 2)
    # the second task is at its best in the end
    assert forgetting(RESULTS) == pytest.approx(((0.9 - 0.6) + (0.9 - 0.9)) / 2)


def test_forgets_nothing__where_later_fits_change_nothing() -> None:
    kept = np.tril(np.ones((4, 4)))
    assert backward_transfer(kept) == forgetting(kept) == 0
    assert forgetting(np.eye(4)) == 1 and backward_transfer(np.eye(4)) == -1


@pytest.mark.parametrize("call", [
    lambda: final_accuracy([0.5]), lambda: backward_transfer([[0.5]]), lambda: forgetting([[1, 2, 3]]),
    lambda: forward_transfer(RESULTS, [0.5])])
def test_other_shapes__are_refused(call: Any) -> None:
    with pytest.raises(ValueError, match="must have a"):
        call()
