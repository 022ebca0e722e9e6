"""Levels of questions that come one after another to one test set, nobody knows how many."""

from __future__ import annotations

import math

from ftlab.statistics.multiple_testing import LEVEL


def level(number: int, family: float = LEVEL) -> float:
    """Level of the question with a number, so that all questions together keep the family's.

    family * 6 / (pi^2 k^2) sums up to the family's level over any number of questions, whatever is
    asked next and however it depends on the answers before: alpha spending (Foster, Stine 2008,
    https://doi.org/10.1111/j.1467-9868.2007.00643.x, of which this gains nothing back by a find, so
    that the chance of any false claim is kept, and not only their share).

    Args:
        number: 1 for the first.
        family: chance of any false claim in any answer.
    """
    if number < 1:
        raise ValueError(f"questions are counted from 1, got {number}")
    return family * 6 / (math.pi * number) ** 2
