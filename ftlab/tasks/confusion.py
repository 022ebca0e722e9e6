"""The confusion matrix, as numbers and as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

LEGIBLE = 30
"""Up to so many classes each cell has its text and each class its tick."""


def confusion_matrix(
    target: Sequence[str], prediction: Sequence[str], classes: Sequence[str]
) -> NDArray[np.int64]:
    """Counts (C, C): row = target, column = prediction."""
    index = {name: i for i, name in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for true, predicted in zip(target, prediction, strict=True):
        matrix[index[true], index[predicted]] += 1
    return matrix


def _tick(name: str) -> str:
    """A class name on one line of at most 24 characters."""
    line = " ".join(name.split())
    return line if len(line) <= 24 else line[:23] + "…"


def confusion_figure(matrix: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Row percentages as colour, counts and row percentages as text; made without pyplot.

    Args:
        matrix: counts (C, C), row = target.
        classes: names of rows and columns.
    """
    size = len(classes)
    support = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, support, out=np.zeros(matrix.shape), where=support > 0)
    side = min(3.5 + 0.45 * size, 17.0)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, label="% of the target class", shrink=0.8)
    axes.set(xlabel="prediction", ylabel="target")
    if size > LEGIBLE:
        return figure
    # a dollar in a class name is not mathematics
    labels = [_tick(name).replace("$", r"\$") for name in classes]
    axes.set_xticks(range(size), labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), labels)
    font = 9 if size <= 10 else 7 if size <= 20 else 6
    for row, column in zip(*np.nonzero(matrix), strict=True):
        part = share[row, column]
        axes.text(
            column, row, f"{matrix[row, column]}\n{100 * part:.0f}%",
            ha="center", va="center", fontsize=font, color="white" if part > 0.5 else "black",
        )
    return figure
