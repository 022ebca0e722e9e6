"""The examples that techniques get wrong together: an UpSet plot of their errors.

Lex, Gehlenborg, Strobelt, Vuillemot, Pfister (2014), https://doi.org/10.1109/TVCG.2014.2346248
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ftlab.reports.colours import Style, styles
from ftlab.reports.csv_files import to_csv
from ftlab.reports.figures.base import Drawing
from ftlab.reports.figures.frames import lines_of, parts
from ftlab.reports.figures.labels import group_title, labels
from ftlab.reports.figures.matplotlib_axes import canvas, names
from ftlab.reports.figures.predictions import Mistakes, mistakes
from ftlab.reports.study_results import StudyResults

MOST = 20  # sets that are drawn of a group
ERRORS = "errors.csv"
COUNTED = "examples that exactly these get wrong"
_ABOVE, _BAR, _NONE = 0.9, "#666666", "#dddddd"  # rows between dots and bars; greys
Seeds = dict[int, NDArray[np.bool_]]


class ErrorOverlap(Drawing):
    """A column a set of techniques: how many examples these, and no others, get wrong."""

    name: ClassVar[str] = "error_overlap"
    title: ClassVar[str] = "Who gets which examples wrong"
    order: ClassVar[int] = 70
    tables: ClassVar[tuple[str, ...]] = (ERRORS, "shared_errors.csv")  # that of earlier versions

    def data(self, results: StudyResults) -> pd.DataFrame | None:
        """A line a group and set, the largest first; groups where nobody errs have none.

        `members`, `many`: examples that exactly these get wrong in more than half of their
        seeds; `names` and `errors` of all techniques; `examples` of the split, n seeds.
        """
        lines: list[dict[str, Any]] = []
        for group in results.groups:
            if (errors := mistakes(results, group)) is not None:
                lines += [{"group": group} | line for line in _sets(errors)]
        return pd.DataFrame(lines) if lines else None

    def draw(self, data: pd.DataFrame, results: StudyResults) -> Figure:
        groups = [(group, sets.head(MOST)) for group, sets in parts(data, "group")]
        rows, columns = (max(sizes) for sizes in zip(*(
            (len(sets["names"].iloc[0]), len(sets)) for _, sets in groups), strict=True))
        figure, all_axes = canvas([len(groups)], 2, max(3.6, 2.4 + 0.27 * columns),
                                  0.9 + 0.24 * (rows + _tall(rows)))
        look = styles(results.techniques)
        for axes, (group, sets) in zip(all_axes, groups, strict=True):
            axes.set_title(group_title(group))
            _upset(axes, sets, look)
        return figure

    def texts(self, data: pd.DataFrame, results: StudyResults) -> dict[str, str]:
        lines = []
        for group in dict.fromkeys(data["group"]):
            errors = mistakes(results, group)
            for technique, seeds in errors.wrong.items() if errors is not None else ():
                times = np.sum(list(seeds.values()), axis=0)
                lines += [{"backbone": group[0], "dataset": group[1], "id": errors.ids[place],
                           "technique": technique, "wrong_seeds": int(times[place]),
                           "seeds": len(seeds)}
                          for place in np.flatnonzero(times)] if errors is not None else []
        columns = ("backbone", "dataset", "id", "technique", "wrong_seeds", "seeds")
        return {ERRORS: to_csv(columns, lines)}

    def caption(self, data: pd.DataFrame, results: StudyResults) -> str:
        counts = sorted({n for seeds in data["n"] for n in seeds})
        n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        groups = parts(data, "group")
        sentences = " ".join(f"{f'{group_title(group)}: ' * (len(groups) > 1)}{_counted(sets)}"
                        f"{_agreement(mistakes(results, group))}." for group, sets in groups)
        kappa = " Cohen's kappa of being wrong: 1 on the same examples, 0 as by chance."
        return (f"Test examples by the techniques that get them wrong, in more than half of their "
                f"seeds (n = {n}). A column is a set of techniques, its bar the examples that "
                "these and no others get wrong; in brackets all errors of a technique. "
                f"{sentences}{kappa * ('; kappa' in sentences)} Every error is in {ERRORS}. Techniques "
                "without predictions are left out.")


def _sets(errors: Mistakes) -> list[dict[str, Any]]:
    wrong = np.array([2 * np.sum(list(seeds.values()), axis=0) > len(seeds)
                      for seeds in errors.wrong.values()])
    called = list(errors.wrong)
    shared = {"names": called, "errors": wrong.sum(axis=1).tolist(), "examples": len(errors.ids),
              "n": [len(seeds) for seeds in errors.wrong.values()]}
    counts = Counter(tuple(np.flatnonzero(column).tolist()) for column in wrong.T)
    counts.pop((), None)
    order = sorted(counts, key=lambda members: (-counts[members], len(members), members))
    return [{"members": tuple(called[place] for place in members), "many": counts[members]} | shared
            for members in order]


def overlap(a: Seeds, b: Seeds, same: bool) -> float:
    """Cohen's kappa of being wrong, the mean over the pairs of runs that allow it; else nan.

    Cohen (1960), https://doi.org/10.1177/001316446002000104

    Args:
        a: by seed, which examples are wrong.
        b: the same of another technique, or of the same one.
        same: a and b are one technique: each seed is paired with each other one, not with itself.
    """
    pairs = ([(a[s], a[t]) for s, t in itertools.combinations(a, 2)] if same else
             [(a[s], b[s]) for s in a if s in b])
    kappas = []
    for x, y in pairs:
        p, q = float(x.mean()), float(y.mean())
        chance = p * q + (1 - p) * (1 - q)
        if chance < 1:
            kappas.append((float((x == y).mean()) - chance) / (1 - chance))
    return math.fsum(kappas) / len(kappas) if kappas else math.nan


def _agreement(errors: Mistakes | None) -> str:
    """Agreement between seeds of one technique, beside that between two techniques."""
    if errors is None:
        return ""
    between_seeds = [overlap(seeds, seeds, True) for seeds in errors.wrong.values()]
    others = [overlap(a, b, False) for a, b in itertools.combinations(errors.wrong.values(), 2)]
    kappas_text = [f"{_ranged(kappas)} between two {what}" for kappas, what in (
        (between_seeds, "seeds of a technique"), (others, "techniques with the same seed"))
        if any(map(math.isfinite, kappas))]
    return f"; kappa {', '.join(kappas_text)}" if kappas_text else ""


def _ranged(values: Iterable[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    low, high = f"{min(finite):.2f}", f"{max(finite):.2f}"
    return low if low == high else f"{low} to {high}"


def _counted(sets: pd.DataFrame) -> str:
    first, wrong = sets.iloc[0], int(sets["many"].sum())
    everyone = sum(line.many for line in lines_of(sets) if len(line.members) == len(line.names))
    sentence = (f"{first['examples'] - wrong} of {first['examples']} examples are right for all, "
            f"{everyone} wrong for all")
    if len(sets) > MOST:
        share = 100 * sets["many"].head(MOST).sum() / wrong
        sentence += f"; the {MOST} largest of {len(sets)} sets hold {share:.0f}% of the others"
    return sentence


def _called(sets: pd.DataFrame) -> list[str]:
    called, errors = sets["names"].iloc[0], sets["errors"].iloc[0]
    return [f"{name} ({many})" for name, many in zip(labels(called).values(), errors, strict=True)]


def _tall(rows: int) -> float:
    """The highest bar, in rows."""
    return max(4.0, 0.7 * rows)


def _heights(sets: pd.DataFrame) -> list[float]:
    return (_tall(len(sets["names"].iloc[0])) * sets["many"] / sets["many"].max()).tolist()


def _upset(axes: Axes, sets: pd.DataFrame, look: dict[str, Style]) -> None:
    called = list(sets["names"].iloc[0])
    names(axes, _called(sets))
    axes.set_ylim(len(called) - 0.4, -_ABOVE - _tall(len(called)) - 1.2)
    axes.set_xlim(-0.7, max(len(sets), 8) - 0.3)  # few sets are not spread over the whole width
    axes.set_xticks([])
    axes.set_xlabel(COUNTED)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(left=False)
    for row in range(0, len(called), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="black", alpha=0.04, linewidth=0)
    heights = _heights(sets)
    axes.bar(range(len(sets)), [-height for height in heights], bottom=-_ABOVE, width=0.62,
             color=_BAR)
    for column, (line, height) in enumerate(zip(lines_of(sets), heights, strict=True)):
        axes.annotate(str(line.many), (column, -_ABOVE - height), xytext=(0, 2), ha="center",
                      textcoords="offset points", fontsize=7 if line.many < 1000 else 6)
        axes.plot([column, column], _ends(line.members, called), color=_BAR, linewidth=1.5)
        for row, name in enumerate(called):
            style, inside = look[name], name in line.members
            axes.plot([column], [row], style.marker if inside else "o",
                      color=style.colour if inside else _NONE, markersize=6 if inside else 4)


def _ends(members: tuple[str, ...], called: list[str]) -> tuple[int, int]:
    """The first and the last row of a set."""
    rows = [called.index(name) for name in members]
    return min(rows), max(rows)
