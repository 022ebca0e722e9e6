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
from ftlab.studies.vary import DRAW, Level
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
        technique: in whose colour it is drawn.
        at: what varies, rising.
        scores: at each; over draws where there are several, else over seeds.
        draws: how many, at the level with the fewest.
    """

    panel: tuple[str, str, str]
    name: str
    technique: str
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
    technique: str
    at: float
    draw: str
    values: tuple[float, ...]


def curves(results: StudyResults) -> list[Curve]:
    """The curves of two levels or more whose levels are numbers, in the study's order."""
    found: list[Curve] = []
    points = [point for row in results.rows for point in _points(results, row.key)]
    by = {(point.panel, point.name): point.technique for point in points}
    for (panel, name), technique in by.items():
        own = sorted((p for p in points if (p.panel, p.name) == (panel, name)), key=lambda p: p.at)
        scores: dict[float, Summary] = {}
        fewest = 0
        for at, level in groupby(own, key=lambda point: point.at):
            draws = [point.values for point in level if point.values]
            if not draws:
                continue
            values = [fmean(values) for values in draws] if len(draws) > 1 else draws[0]
            scores[at] = summarise(values, limits(results.named(results.metric)))
            fewest = min(fewest or len(draws), len(draws))
        if len(scores) > 1:
            found.append(Curve(panel, name, technique, tuple(scores), tuple(scores.values()), fewest))
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
        yield _Point(panel, line["techniques"], key.technique if axis != "techniques" else level.of,
                     at, str(level.values.get(DRAW, "")), values)


def _place(results: StudyResults, key: CellKey, axis: str, level: Level) -> tuple[float | None, str]:
    """Where a level stands: of data sets at their number of training examples, if that varies."""
    if axis == "datasets":
        sizes = {name: results.training_examples(name) for name, other in results.levels[axis].items()
                 if other.line == level.line}
        if all(sizes.values()) and len(set(sizes.values())) > 1:
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
