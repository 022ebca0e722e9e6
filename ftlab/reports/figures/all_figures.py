"""All figures of a study: found by walking the room, drawn, and written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from ftlab.errors import InputError
from ftlab.reports.csv_files import write_file
from ftlab.reports.figures.base import Drawing
from ftlab.reports.figures.matplotlib_axes import files, paper, svg
from ftlab.reports.formats import escape_markdown
from ftlab.reports.study_results import StudyResults
from ftlab.studies.discover import members
from ftlab.wording import closest

MOST_TECHNIQUES, MOST_GROUPS = 40, 20
"""The most that a figure shows: the techniques with the best ranks, the first groups."""
CAPTIONS = "captions.md"


def drawings() -> list[Drawing]:
    """Every figure there is."""
    every: list[Drawing] = [made() for made in members(Drawing).values()]
    return sorted(every, key=lambda drawing: (drawing.order, drawing.name))


@dataclass(frozen=True)
class DrawnFigure:
    """A figure that a study has.

    Attributes:
        drawing: what draws it.
        data: what is drawn.
        results: of the study, as much of it as figures show.
        note: what is left out; empty where nothing is.
    """

    drawing: Drawing
    data: pd.DataFrame
    results: StudyResults
    note: str

    @property
    def name(self) -> str:
        """The name of its files."""
        return self.drawing.name

    @property
    def title(self) -> str:
        """Its heading."""
        return self.drawing.title

    @cached_property
    def caption(self) -> str:
        """How to read it."""
        return f"{self.drawing.caption(self.data, self.results)} {self.note}".strip()

    def files(self) -> dict[str, bytes]:
        """`png` and `pdf`, the same for the same store."""
        with paper():
            return files(self.drawing.draw(self.data, self.results))

    def svg(self, width: float) -> str:
        """An `<svg>` element for a page.

        Args:
            width: of the page, in inches; narrow ones have fewer axes side by side.
        """
        with paper(width):
            return svg(self.drawing.draw(self.data, self.results), f"{self.name}-{width:g}")


def drawn(results: StudyResults, only: Sequence[str] = ()) -> Iterator[DrawnFigure]:
    """The figures that a study has something for, in their order.

    Args:
        results: of the study.
        only: names of figures; empty for all.

    Raises:
        InputError: there is no figure of a name.
    """
    every = drawings()
    for name in only:
        names = [drawing.name for drawing in every]
        if name not in names:
            near = closest(name, names)
            raise InputError(f"figure {name!r}: there is none of that name",
                             f"did you mean {near[0]}?" if near else f"one of {', '.join(names)}")
    shown, note = _narrowed(results)
    for drawing in every:
        if not only or drawing.name in only:
            cells, less = (results, "") if drawing.whole else (shown, note)
            data = drawing.data(cells)
            if data is not None and len(data):
                yield DrawnFigure(drawing, data, cells, less)


def write(results: StudyResults, folder: Path, only: Sequence[str] = ()) -> list[Path]:
    """Write the figures and their captions; those that no longer apply go.

    Args:
        results: of the study.
        folder: `figures/` of its results.
        only: names of figures; others are left as they are, and so are the captions.

    Raises:
        InputError: there is no figure of a name, or the folder cannot be written.
    """
    paths, captions = [], []
    for figure in drawn(results, only):
        paths += [write_file(folder / f"{figure.name}.{suffix}", content)
                  for suffix, content in figure.files().items()]
        paths += [write_file(folder / name, content) for name, content
                  in figure.drawing.texts(figure.data, figure.results).items()]
        captions.append(f"**{figure.title}** ({figure.name}). {escape_markdown(figure.caption)}\n")
    written = {path.name for path in paths}
    asked = [drawing for drawing in drawings() if not only or drawing.name in only]
    ours = [f"{drawing.name}.{suffix}" for drawing in asked for suffix in ("png", "pdf")]
    ours += [name for drawing in asked for name in drawing.tables]
    if not only:
        ours.append(f"{results.metric.replace('/', '_')}.png")  # the figure of earlier versions
        if captions:
            paths.append(write_file(folder / CAPTIONS, "\n".join(captions)))
        else:
            (folder / CAPTIONS).unlink(missing_ok=True)
    for name in ours:
        if name not in written:  # of an earlier store, it would contradict the table
            (folder / name).unlink(missing_ok=True)
    return paths


def _narrowed(results: StudyResults) -> tuple[StudyResults, str]:
    """As much as figures can show, and what is left out."""
    groups, names = results.groups[:MOST_GROUPS], results.techniques
    notes = []
    if len(groups) < len(results.groups):
        notes.append(f"The first {MOST_GROUPS} of {len(results.groups)} pairs of backbone and "
                     "data set.")
    if len(names) > MOST_TECHNIQUES:
        best = sorted(names, key=lambda name: _best_rank(results, name))[:MOST_TECHNIQUES]
        notes.append(f"The {MOST_TECHNIQUES} of {len(names)} techniques with the best ranks.")
        names = best
    if not notes:
        return results, ""
    rows = tuple(row for row in results.rows
                 if row.group in groups and row.key.technique in names)
    return replace(results, rows=rows), " ".join(notes)


def _best_rank(results: StudyResults, name: str) -> float:
    return min((row.rank for row in results.rows
                if row.key.technique == name and row.rank is not None), default=math.inf)
