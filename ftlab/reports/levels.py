"""Scores over the levels of what a study varies, as curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from ftlab.reports.comparison import Comparison
from ftlab.reports.metric_text import digits
from ftlab.reports.study_results import StudyResults
from ftlab.statistics.sample_efficiency import area, needed
from ftlab.statistics.seed_summary import Summary, summarise
from ftlab.studies.vary import Level
from ftlab.tracking.metric_range import is_percent, limits
from ftlab.tracking.records import CellKey
from ftlab.wording import listed

EXAMPLES = "training examples"


@dataclass(frozen=True)
class Curve:
    """A line of a panel.

    Attributes:
        panel: backbone, data set, and what varies.
        name: technique, or the entry that varies and its other values.
        at: what varies, rising; levels of which a draw or a seed is missing are left out.
        scores: at each; over draws where there are several, else over seeds.
        draws: how many, at the level with the most.
    """

    panel: tuple[str, str, str]
    name: str
    at: tuple[float, ...]
    scores: tuple[Summary, ...]
    draws: int

    @property
    def means(self) -> list[float]:
        """Scores without their spread."""
        return [score.mean for score in self.scores]


@dataclass(frozen=True)
class _Point:
    panel: tuple[str, str, str]
    name: str
    at: float
    draws: int
    values: tuple[float, ...]


def curves(results: StudyResults) -> list[Curve]:
    """The curves of two levels or more whose levels are numbers, in the study's order."""
    found: list[Curve] = []
    points = [point for row in results.rows if not row.note for point in _points(results, row.key)]
    for panel, name in dict.fromkeys((point.panel, point.name) for point in points):
        own = sorted((p for p in points if (p.panel, p.name) == (panel, name)), key=lambda p: p.at)
        scores: dict[float, Summary] = {}
        most = 0
        for at, level in groupby(own, key=lambda point: point.at):
            drawn = list(level)
            if len(drawn) < drawn[0].draws or not all(point.values for point in drawn):
                continue
            values = [fmean(p.values) for p in drawn] if len(drawn) > 1 else drawn[0].values
            scores[at] = summarise(values, limits(results.named(results.metric)))
            most = max(most, len(drawn))
        if len(scores) > 1:
            found.append(Curve(panel, name, tuple(scores), tuple(scores.values()), most))
    return found


def _points(results: StudyResults, key: CellKey) -> Iterator[_Point]:
    """A cell's place on the curves of each axis that varies."""
    values = tuple(results.values(key, results.metric).values())
    names = {"backbones": key.backbone, "datasets": key.dataset, "techniques": key.technique}
    for axis, entries in results.levels.items():
        level = entries.get(names[axis])
        if level is None or not level.key:
            continue
        at, what = _place(results, key, axis, level)
        if at is None:
            continue
        line = {**names, axis: level.line}
        panel = (line["backbones"], line["datasets"], what)
        draws = sum(other.line == level.line and other.values[level.key] == level.values[level.key]
                    for other in entries.values() if other.key == level.key)
        yield _Point(panel, line["techniques"], at, draws, values)


def _place(results: StudyResults, key: CellKey, axis: str, level: Level) -> tuple[float | None, str]:
    """Where a level stands: of data sets at their number of training examples, if that varies."""
    if axis == "datasets":
        sizes = {name: results.training_examples(name) for name, other in results.levels[axis].items()
                 if other.line == level.line}
        known = {size for size in sizes.values() if size}
        if len(known) > 1:
            if not sizes.get(key.dataset):
                return None, EXAMPLES
            same = [size for name, size in sizes.items() if size is not None
                    and results.levels[axis][name].values[level.key] == level.values[level.key]]
            return fmean(same), EXAMPLES  # draws of a part may differ in size
    value = level.values[level.key]
    number = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
    return (float(value) if number else None), level.key


def apart(comparisons: Sequence[Comparison], results: StudyResults) -> list[Comparison]:
    """Comparisons on data sets that are no levels of one: such are not independent of each other."""
    levels = results.levels.get("datasets", {})
    return [comparison for comparison in comparisons if comparison.group[1] not in levels]


def covered(results: StudyResults) -> frozenset[str]:
    """The data sets of which `sentences` speak."""
    return frozenset(results.levels.get("datasets", {})) if sentences(results) else frozenset()


def sentences(results: StudyResults) -> list[str]:
    """For each panel over numbers of examples: areas, and what the others need for the best's score."""
    texts = []
    for panel, members in groupby(curves(results), key=lambda curve: curve.panel):
        lines = list(members)
        if panel[2] == EXAMPLES and len(lines) > 1 and len({line.at for line in lines}) == 1:
            texts.append(_sentence(results, panel, lines))
    return texts


def _sentence(results: StudyResults, panel: tuple[str, str, str], lines: Sequence[Curve]) -> str:
    sign = 1 if results.higher_is_better else -1
    areas = {line.name: area(line.at, line.means) for line in lines}
    order = sorted(lines, key=lambda line: -sign * areas[line.name])
    number = digits(results.metric, list(areas.values()))
    unit = "%" if is_percent(results.metric) else ""
    first, last = lines[0].at[0], lines[0].at[-1]
    name = results.metric.partition("/")[2]
    text = (f"From {first:,.0f} to {last:,.0f} {EXAMPLES} of {panel[1]} (from {panel[0]}) the mean {name} "
            "over the logarithm of their number is "
            + listed([f"{number(areas[line.name])}{unit} with {line.name}" for line in order]))
    parts = []
    for other in order[1:]:
        count = needed(order[0].at, order[0].means, other.means[-1], results.higher_is_better)
        if math.isfinite(count) and count < last:
            few = f"{count:,.0f}{' or fewer' if count == first else ''}"
            parts.append(f"{few} for what {other.name} reaches with {last:,.0f}")
    needs = f"; {order[0].name} needs {listed(parts)}" if parts else ""
    return f"{text}{needs}. Nothing of this is tested."
