"""Backbones of a study by transferability scores, and how well those foretell its results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Group

from ftlab.reports import formats
from ftlab.reports.metric_text import digits
from ftlab.reports.table import NONE, Column, Quantity, Table, plain, tabulate
from ftlab.statistics.rank_agreement import FEWEST, Agreement, agreement
from ftlab.tracking.metric_range import is_percent
from ftlab.wording import listed

HARDLY = ("Scores rank backbones for a data set, and hardly techniques; the best of several scores "
          "looks better than it is.")


@dataclass(frozen=True)
class BackboneScores:
    """A backbone on a data set.

    Attributes:
        backbone, dataset: their names in the study.
        scores: by name; what could not be computed is absent.
        results: mean over seeds of the study's metric by technique; without those not run.
        lacking: why scores are absent, a sentence each.
        examples, width: of the features; 0 where there are none.
    """

    backbone: str
    dataset: str
    scores: Mapping[str, float]
    results: Mapping[str, float]
    lacking: tuple[str, ...] = ()
    examples: int = 0
    width: int = 0


@dataclass(frozen=True)
class Foretold:
    """A score's agreement with a technique's results over the backbones of a data set."""

    dataset: str
    score: str
    technique: str
    agreement: Agreement


@dataclass(frozen=True)
class Transferability:
    """The scores of a study's backbones, and their agreement with its results.

    Attributes:
        study: its name.
        metric: that its results are of.
        higher_is_better: of the metric.
        names: of the scores, in order.
        techniques: in the study's order.
        rows: a data set's backbones beside each other.
        notes: what was left out, a sentence each.
        paths: files written.
    """

    study: str
    metric: str
    higher_is_better: bool
    names: tuple[str, ...]
    techniques: tuple[str, ...]
    rows: tuple[BackboneScores, ...]
    notes: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()

    @cached_property
    def foretold(self) -> list[Foretold]:
        """Every score against every technique, data set by data set."""
        made = []
        for dataset, members in groupby(self.rows, key=lambda row: row.dataset):
            rows = list(members)
            for name in self.names:
                for technique in self.techniques:
                    both = [(row.scores[name], row.results[technique]) for row in rows
                            if name in row.scores and technique in row.results]
                    sign = 1 if self.higher_is_better else -1
                    found = agreement([score for score, _ in both],
                                      [sign * result for _, result in both])
                    made.append(Foretold(dataset, name, technique, found))
        return made

    @property
    def sentences(self) -> list[str]:
        """The limits of what the tables say."""
        found = [each.agreement for each in self.foretold if each.agreement.things >= FEWEST]
        if not any(row.results for row in self.rows):
            return ["The study has no results yet, which the scores could be held against.", HARDLY]
        if not found:
            return [f"Fewer than {FEWEST} backbones have a score and a result: no order.", HARDLY]
        chances = {a.things: a.chance for a in found}
        parts = [f"{count} backbones leave tau +-{chance:.2f}"
                 for count, chance in sorted(chances.items())]
        return [f"{listed(parts)}: 95% of random orders come no farther from 0.", HARDLY]

    @cached_property
    def table(self) -> Table:
        """A line a backbone: its scores, and what the study reached with it."""
        columns = [self._scores(name) for name in self.names]
        columns += [self._results(name) for name in self.techniques]
        made = tabulate(
            self.rows, columns, name=lambda row: row.backbone, title=lambda row: row.dataset,
            notes=lambda row: row.lacking,
            caption="Transferability scores of the training split's features, the best in bold; "
                    f"more is better. Techniques: mean {self.metric} over seeds.",
            about=[("left out", note) for note in self.notes]
            + [("note", sentence) for sentence in self.sentences if not self.techniques])
        return _headed(made, "backbone")

    @cached_property
    def agreements(self) -> Table:
        """A line a score: weighted tau with the order by each technique."""
        lines = [list(members) for _, members in
                 groupby(self.foretold, key=lambda each: (each.dataset, each.score))]
        columns = [Column[list[Foretold]]("backbones", _counts)]
        columns += [Column(name, partial(_tau_text, place))
                    for place, name in enumerate(self.techniques)]
        made = tabulate(
            lines, columns, name=lambda row: row[0].score, title=lambda row: row[0].dataset,
            caption="Weighted Kendall's tau of the backbones' order by a score with that by "
                    f"{self.metric}, and its 95% bootstrap interval over backbones, too narrow "
                    "with few of them; none where every draw has the same tau.",
            about=[("note", sentence) for sentence in self.sentences])
        return _headed(made, "score")

    def _scores(self, name: str) -> Column[BackboneScores]:
        return Column(name, lambda row: plain(row.scores.get(name, math.nan), _score),
                      lambda row: name in row.scores and row.scores[name] >= max(
                          other.scores.get(name, -math.inf) for other in self.rows
                          if other.dataset == row.dataset))

    def _results(self, technique: str) -> Column[BackboneScores]:
        values = [row.results[name] for row in self.rows for name in row.results]
        written = digits(self.metric, values)
        heading = technique + (", %" if is_percent(self.metric) else "")
        return Column(heading, lambda row: plain(row.results.get(technique, math.nan), written))

    def numbers(self) -> tuple[list[str], list[dict[str, Any]]]:
        """The columns of the table's CSV, and its lines."""
        columns = ["dataset", "backbone", "examples", "features", *self.names, *self.techniques]
        return columns, [
            {"dataset": row.dataset, "backbone": row.backbone, "examples": row.examples,
             "features": row.width, **row.scores, **row.results} for row in self.rows]

    def agreement_numbers(self) -> tuple[list[str], list[dict[str, Any]]]:
        """The columns of the agreements' CSV, and its lines."""
        columns = ["dataset", "score", "technique", "metric", "backbones", "tau", "ci_low",
                   "ci_high", "by_chance"]
        return columns, [
            {"dataset": each.dataset, "score": each.score, "technique": each.technique,
             "metric": self.metric, "backbones": found.things, "tau": found.tau,
             "ci_low": found.low, "ci_high": found.high, "by_chance": found.chance}
            for each in self.foretold for found in [each.agreement]]

    def rich(self, room: int | None = None) -> Group:
        """Both tables, for a terminal with room for so many characters in a line."""
        tables = [self.table, self.agreements] if self.techniques else [self.table]
        return Group(*(formats.terminal(table, room) for table in tables))

    def _repr_html_(self) -> str:
        return "\n".join(map(formats.page, (self.table, self.agreements)))


def _headed(table: Table, first: str) -> Table:
    """The table with a first column that names other things than techniques."""
    return replace(table, headings=(first, *table.headings[1:]))


def _score(value: float) -> str:
    """Four digits: backbones may differ by orders of magnitude."""
    return f"{value:.4g}"


def _counts(row: Sequence[Foretold]) -> str:
    counts = sorted({each.agreement.things for each in row})
    return Quantity(str(counts[0])) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


def _tau_text(place: int, row: Sequence[Foretold]) -> str:
    found = row[place].agreement
    if not math.isfinite(found.tau):
        return NONE
    interval = f"[{found.low:.2f}, {found.high:.2f}]" if math.isfinite(found.low) else ""
    return " ".join(filter(None, (f"{found.tau:.2f}", interval)))
