"""Which columns a table has, and what the store says in each: `ftlab table --columns`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ftlab.errors import InputError
from ftlab.reports import task_means
from ftlab.reports.cell_summary import CellSummary, build, check_metric, gaps, missing
from ftlab.reports.comparison import Comparison, compared
from ftlab.reports.evidence import merged
from ftlab.reports.grid import Column, Entry, Grid, TableBlock, TableRow
from ftlab.reports.sentences import across, bold, ties
from ftlab.reports.sheet import COSTS, SELECTION, SPREAD, incomplete
from ftlab.reports.study_results import StudyResults
from ftlab.tracking.metric_facts import named
from ftlab.tracking.mlflow_values import name_of
from ftlab.tracking.records import CellKey

DATASETS = "datasets"
_SPLITS = ("test/", "val/", "cost/")


@dataclass(frozen=True)
class JudgedMetric:
    """A metric on all cells of a study."""

    rows: Mapping[CellKey, CellSummary]
    comparisons: tuple[Comparison, ...]


def parse(text: str) -> tuple[str, ...]:
    """The columns asked for: `datasets`, `datasets:METRIC`, or metrics and costs by comma.

    Raises:
        InputError: none, one twice, or one that names no split.
    """
    names = tuple(name_of(part.strip()) for part in text.split(","))
    for name in names:
        metric = name.removeprefix(f"{DATASETS}:")
        if name != DATASETS and not metric.startswith(_SPLITS):
            raise InputError(f"--columns {text}: {name!r} is no column",
                             "datasets, datasets:test/f1_macro, or a list such as "
                             "test/accuracy,val/loss,cost/train_seconds")
        if names.count(name) > 1:
            raise InputError(f"--columns {text}: {name} stands twice", "say it once")
        if name.startswith(DATASETS) and len(names) > 1:
            raise InputError(f"--columns {text}: data sets and metrics are two kinds of columns",
                             f"make two tables, one with --columns {name}")
    return names


def grid(sources: Sequence[StudyResults], columns: Sequence[str]) -> Grid:
    """Make the table.

    Args:
        sources: the studies, in order.
        columns: from `parse`.

    Raises:
        InputError: a metric that no finished run of any study has.
    """
    facts = {name: fact for source in sources for name, fact in merged(source.facts).items()}
    if columns[0].startswith(DATASETS):
        chosen = columns[0].partition(":")[2]
        return _by_dataset(sources, {source.study: named(chosen or source.report, facts)
                                     for source in sources})
    return _by_metric(sources, [named(column, facts) for column in columns])


def judge(source: StudyResults, metric: str) -> JudgedMetric:
    """Summaries of a metric, and what its own comparisons say; costs are not compared."""
    rows: dict[CellKey, CellSummary] = {}
    comparisons: list[Comparison] = []
    for dataset in source.datasets:
        keys = [key for key in source.keys if key.dataset == dataset]
        records = [source.records[key] for key in keys if key in source.records]
        upwards = source.higher_is_better(dataset, metric)
        present = any(metric in run.metrics for record in records for run in record.finished)
        if upwards is None or not present:
            rows |= {row.key: row for row in build(keys, records, metric, True, check=False)}
            continue
        made, found = compared(build(keys, records, metric, upwards), records, metric, upwards,
                               source.tracker, source.contributions)
        rows |= {row.key: row for row in made}
        comparisons += found
    return JudgedMetric(rows, tuple(comparisons))


def _check(sources: Sequence[StudyResults], metric: str) -> None:
    check_metric([record for source in sources for record in source.records.values()], metric)


def _entry(row: CellSummary) -> Entry:
    return Entry(row.summary, row.stands)


def _notes(source: StudyResults, keys: Sequence[CellKey], judged: Mapping[str, JudgedMetric]
           ) -> tuple[str, ...]:
    """Remarks on cells, and what is missing of them, each once; `judged` by metric."""
    said = []
    for key in keys:
        record = source.records.get(key)
        parts = ["not run"] if record is None else [
            gaps(record), *(missing(record, metric) for metric in judged
                            if source.higher_is_better(key.dataset, metric) is not None)]
        parts += dict.fromkeys(each.rows[key].remark for each in judged.values())
        if text := "; ".join(filter(None, parts)):
            said.append(f"{key.title}: {text}")
    return tuple(said)


def _by_metric(sources: Sequence[StudyResults], metrics: Sequence[str]) -> Grid:
    blocks: list[TableBlock] = []
    found: list[tuple[StudyResults, str, JudgedMetric]] = []
    for metric in metrics:
        _check(sources, metric)
    for source in sources:
        judged = {metric: judge(source, metric) for metric in metrics}
        found += [(source, metric, each) for metric, each in judged.items()]
        for backbone, dataset in dict.fromkeys((k.backbone, k.dataset) for k in source.keys):
            keys = [k for k in source.keys if (k.backbone, k.dataset) == (backbone, dataset)]
            lines = tuple(
                TableRow(key.technique, {metric: _entry(each.rows[key])
                                          for metric, each in judged.items()},
                          _notes(source, [key], judged))
                for key in keys)
            blocks.append(TableBlock(source.study, backbone, dataset, lines))
    costs = [("Costs", COSTS)] if any(m.startswith("cost/") for m in metrics) else []
    return Grid(tuple(Column(metric, metric) for metric in metrics), tuple(blocks),
                _caption(sources, ", ".join(metrics)),
                (*_about(found, blocks), *costs))


def _by_dataset(sources: Sequence[StudyResults], metrics: Mapping[str, str]) -> Grid:
    own_metrics = list(dict.fromkeys(metrics.values()))
    if len(own_metrics) > 1:
        raise InputError(f"--columns {DATASETS}: the studies report {' and '.join(own_metrics)}",
                         f"say which to show: --columns {DATASETS}:{own_metrics[0]}")
    blocks: list[TableBlock] = []
    found: list[tuple[StudyResults, str, JudgedMetric]] = []
    datasets = list(dict.fromkeys(name for source in sources for name in source.datasets))
    for source in sources:
        metric = metrics[source.study]
        _check([source], metric)
        judged = judge(source, metric)
        found.append((source, metric, judged))
        for backbone in dict.fromkeys(key.backbone for key in source.keys):
            own = [key for key in source.keys if key.backbone == backbone]
            lines = []
            for technique in dict.fromkeys(key.technique for key in own):
                cells = {key.dataset: key for key in own if key.technique == technique}
                entries = {name: _entry(judged.rows[key]) for name, key in cells.items()}
                values = {name: _values(source, judged.rows[key], metric)
                          for name, key in cells.items()}
                entries |= {name: Entry(mean) for name, mean
                            in task_means.means(
                                values, source.datasets, source.groups, metric).items()}
                lines.append(TableRow(technique, entries,
                                       _notes(source, list(cells.values()), {metric: judged})))
            blocks.append(TableBlock(source.study, backbone, "", tuple(lines)))
    averages = list(dict.fromkeys(name for source in sources
                                  for name in task_means.names(source.datasets, source.groups)))
    columns = [Column(name, own_metrics[0]) for name in (*datasets, *averages)]
    rule = [text for source in sources if (text := task_means.rule(
        source.study if len(sources) > 1 else "", source.datasets, source.groups,
        [block for block in blocks if block.study == source.study],
        source.higher_is_better(source.datasets[0], metrics[source.study]) is not False))]
    return Grid(tuple(columns), tuple(blocks), _caption(sources, own_metrics[0]),
                (*_about(found, blocks), *(("Averages", text) for text in rule),
                 *(("Data", text) for text in _other_data(sources))))


def _other_data(sources: Sequence[StudyResults]) -> list[str]:
    """Data sets that several studies call alike, and that are not the same data."""
    seen: dict[str, set[str]] = {}
    for source in sources:
        for record in source.records.values():
            for run in record.finished:
                if digest := run.tags.get("ftlab.dataset_sha256"):
                    seen.setdefault(record.key.dataset, set()).add(digest)
    return [f"{name} is not the same data in all of the studies: its fingerprints differ."
            for name, digests in seen.items() if len(digests) > 1 and len(sources) > 1]


def _values(source: StudyResults, row: CellSummary, metric: str) -> dict[int, float]:
    """A complete cell's metric by seed; empty for an incomplete one, which is not averaged."""
    if row.note or not math.isfinite(row.summary.mean):
        return {}
    return {run.seed: run.metrics[metric] for run in source.records[row.key].finished}


def _caption(sources: Sequence[StudyResults], what: str) -> str:
    names = [source.study for source in sources]
    return f"{'Study' if len(names) == 1 else 'Studies'} {', '.join(names)}: {what}."


def _about(found: Sequence[tuple[StudyResults, str, JudgedMetric]],
           blocks: Sequence[TableBlock]) -> list[tuple[str, str]]:
    """Notes; what holds for several metrics or studies is said once, with their names."""
    said = [("Numbers", SPREAD), ("Selection", SELECTION)]
    several = len(found) > 1
    for term, write in (("Bold", bold), ("Ties", lambda c, _: ties(c)), ("Over data sets", across)):
        texts: dict[str, list[str]] = {}
        for source, metric, judged in found:
            if not judged.comparisons:
                continue  # a cost: nothing is compared
            name = metric if len({s.study for s, _, _ in found}) == 1 else f"{source.study}, {metric}"
            text = write(judged.comparisons, judged.comparisons[0].higher_is_better)
            texts.setdefault(text, []).append(name)
        said += [(f"{term} ({'; '.join(names)})" if several and len(texts) > 1 else term, text)
                 for text, names in texts.items() if text]
    text = incomplete(any(line.notes for block in blocks for line in block.lines),
                      any(row.remark for _, _, judged in found for row in judged.rows.values()))
    return [*said, ("Incomplete", text)] if text else said
