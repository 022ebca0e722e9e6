"""Whether techniques get the same examples wrong."""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ftlab.reports.evidence import Evidence
from ftlab.reports.export import to_csv
from ftlab.reports.figures.answers import mistakes
from ftlab.reports.figures.base import Drawing
from ftlab.reports.figures.frames import lines_of, parts
from ftlab.reports.figures.paper import canvas, ink, leftmost
from ftlab.reports.figures.screen import Screen, text
from ftlab.reports.figures.words import group_title, labels

_NUMBERED = 15  # techniques up to which each cell has its number
_PANELS = {
    "share": ("% of a's errors (row) that b (column) makes too", "Blues", 0.0, 100.0),
    "kappa": ("Cohen's kappa of being right", "PuOr", -1.0, 1.0),
}
SHARED = "shared_errors.csv"
Seeds = dict[int, NDArray[np.bool_]]


class ErrorOverlap(Drawing):
    """Shared errors and agreement; on the diagonal a technique with its own other seeds."""

    name: ClassVar[str] = "error_overlap"
    title: ClassVar[str] = "Shared errors"
    order: ClassVar[int] = 70
    tables: ClassVar[tuple[str, ...]] = (SHARED,)

    def data(self, evidence: Evidence) -> pd.DataFrame | None:
        """A line a group and ordered pair of techniques; groups where nobody errs have none.

        `share` in percent, `kappa`, n seeds; how many examples, and how many all get wrong.
        """
        found = []
        for group in evidence.groups:
            known = mistakes(evidence, group)
            if known is None or not any(w.any() for s in known.wrong.values() for w in s.values()):
                continue
            for a, b in itertools.product(known.wrong, repeat=2):
                share, kappa, n = overlap(known.wrong[a], known.wrong[b], a == b)
                found.append({"group": group, "a": a, "b": b, "share": 100 * share,
                              "kappa": kappa, "n": n, "examples": len(known.ids),
                              "shared": len(known.shared)})
        return pd.DataFrame(found) if found else None

    def draw(self, data: pd.DataFrame, evidence: Evidence) -> Figure:
        groups = parts(data, "group")
        most = max(pairs["a"].nunique() for _, pairs in groups)
        side = min(3.4 + 0.24 * most, 9.0)
        figure, all_axes = canvas([2 * len(groups)], 2, side + 0.9, side)
        for n, (axes, kind) in enumerate(zip(all_axes, itertools.cycle(_PANELS), strict=False)):
            group, pairs = groups[n // 2]
            image = _matrix(axes, pairs, kind)
            axes.set_title(f"{group_title(group)}\n{_PANELS[kind][0]}", fontsize=9)
            figure.colorbar(image, ax=axes, shrink=0.8)
        return figure

    def plot(self, data: pd.DataFrame, evidence: Evidence) -> dict[str, Any]:
        groups = parts(data, "group")
        most = max(pairs["a"].nunique() for _, pairs in groups)
        panels = [(group, pairs, kind) for group, pairs in groups for kind in _PANELS]
        screen = Screen([f"{_PANELS[kind][0]}, {group_title(group)}" for group, _, kind in panels],
                        min(240 + 26 * most, 800))
        for n, (_, pairs, kind) in enumerate(panels):
            called = [text(name) for name in labels(pairs["a"]).values()]
            ticks = {"tickvals": list(range(len(called))), "ticktext": called, "showgrid": False,
                     "automargin": True}
            screen.axis("x", n, "", **ticks)
            screen.axis("y", n, "", **ticks, autorange="reversed")
            _, _, low, high = _PANELS[kind]
            screen.add(n, type="heatmap", z=_square(pairs, kind), zmin=low, zmax=high,
                       colorscale="Blues" if kind == "share" else "PuOr", showscale=False,
                       texttemplate="%{z:.3g}" if len(called) <= _NUMBERED else "",
                       hovertemplate="%{y} and %{x}: %{z:.3g}<extra></extra>")
        return screen.done()

    def texts(self, data: pd.DataFrame, evidence: Evidence) -> dict[str, str]:
        lines = [{"backbone": group[0], "dataset": group[1], "id": example}
                 for group in dict.fromkeys(data["group"])
                 if (known := mistakes(evidence, group)) is not None for example in known.shared]
        return {SHARED: to_csv(("backbone", "dataset", "id"), lines)}

    def caption(self, data: pd.DataFrame, evidence: Evidence) -> str:
        counts = sorted(set(data.loc[data["a"] != data["b"], "n"]))
        n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        firsts = data.drop_duplicates("group")
        shared = "; ".join(f"{line.shared} of {line.examples} examples"
                           f"{f' ({group_title(line.group)})' if len(firsts) > 1 else ''}"
                           for line in lines_of(firsts))
        return (f"Test examples, mean over seeds in common (n = {n}). On the diagonal a technique "
                "with its own other seeds: what chance alone makes of the same technique. Kappa 1: "
                "right and wrong on the same examples; 0: as by chance. Grey: no error, or one "
                f"seed. Wrong for every technique and seed, see {SHARED}: {shared}. Techniques "
                "without predictions are left out.")


def overlap(a: Seeds, b: Seeds, same: bool) -> tuple[float, float, int]:
    """P(b wrong | a wrong) and Cohen's kappa, each the mean over the pairs of runs that allow it.

    Args:
        a: by seed, which examples are wrong.
        b: likewise.
        same: a and b are one technique: each seed is paired with each other one, not with itself.

    Returns:
        nan where no pair allows it; and the number of seeds.
    """
    if same:
        pairs = [(a[s], a[t]) for s, t in itertools.permutations(a, 2)]
        n = len(a)
    else:
        pairs = [(a[s], b[s]) for s in a if s in b]
        n = len(pairs)
    shares = [float((x & y).sum() / x.sum()) for x, y in pairs if x.any()]
    kappas = [value for x, y in pairs if math.isfinite(value := _kappa(x, y))]
    return _mean(shares), _mean(kappas), n


def _kappa(x: NDArray[np.bool_], y: NDArray[np.bool_]) -> float:
    """Cohen (1960), https://doi.org/10.1177/001316446002000104; nan where both never vary."""
    p, q = float(x.mean()), float(y.mean())
    chance = p * q + (1 - p) * (1 - q)
    return (float((x == y).mean()) - chance) / (1 - chance) if chance < 1 else math.nan


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _square(pairs: pd.DataFrame, kind: str) -> NDArray[np.float64]:
    size = pairs["a"].nunique()
    return pairs[kind].to_numpy(dtype=np.float64).reshape(size, size)


def _matrix(axes: Axes, pairs: pd.DataFrame, kind: str) -> Any:
    _, colours, low, high = _PANELS[kind]
    values, called = _square(pairs, kind), list(labels(pairs["a"]).values())
    axes.set_facecolor("#cccccc")
    image = axes.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=low, vmax=high)
    axes.grid(visible=False)
    font = 8 if len(called) <= 20 else 6
    axes.set_xticks(range(len(called)), called, rotation=45, ha="right", rotation_mode="anchor",
                    fontsize=font)
    axes.set_yticks(range(len(called)), called if leftmost(axes) else [""] * len(called),
                    fontsize=font)
    for (row, column), value in np.ndenumerate(values):
        if len(called) <= _NUMBERED and math.isfinite(value):
            place = (value - low) / (high - low)
            axes.text(column, row, f"{value:.0f}" if kind == "share" else f"{value:.2f}",
                      ha="center", va="center", fontsize=7, color=ink(colormaps[colours](place)))
    return image
