"""Predicted over true numbers, as a figure."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure


def scatter_figure(target: Sequence[float], prediction: Sequence[float]) -> Figure:
    """A point an example, and the line on which predictions are right; made without pyplot."""
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    low, high = min(*target, *prediction), max(*target, *prediction)
    axes.plot([low, high], [low, high], color="0.6", linewidth=1, zorder=0)
    # translucent, because targets often take few values and points lie over one another
    axes.scatter(target, prediction, s=12, alpha=0.4, linewidths=0)
    axes.set(xlabel="target", ylabel="prediction", aspect="equal")
    return figure
