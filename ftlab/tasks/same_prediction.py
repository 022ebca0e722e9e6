"""Comparison of two prediction records."""

from __future__ import annotations

import math
from typing import Any


def alike(given: Any, expected: Any, tolerance: float) -> bool:
    """The same values, numbers up to a tolerance (relative above 1), however nested."""
    if isinstance(given, float) and isinstance(expected, int | float):
        return math.isclose(given, expected, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(given, list | tuple) and isinstance(expected, list | tuple):
        return len(given) == len(expected) and all(
            alike(a, b, tolerance) for a, b in zip(given, expected, strict=True))
    if isinstance(given, dict) and isinstance(expected, dict):
        return given.keys() == expected.keys() and all(
            alike(given[key], expected[key], tolerance) for key in given)
    return bool(given == expected)
