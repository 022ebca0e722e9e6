"""Tables with chosen columns, `ftlab table --columns`, of one study or several."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ftlab.errors import InputError
from ftlab.reports import collapses, task_means
from ftlab.reports.cell_summary import CellSummary, build, check_metric, gaps, missing
from ftlab.reports.comparison import Comparison, compared
from ftlab.reports.default_columns import COSTS, SELECTION, incomplete, numbers, tuned
from ftlab.reports.grid import Entry, Grid, GridRow
from ftlab.reports.metric_record import merged
from ftlab.reports.sentences import across, bold, draws, ties
from ftlab.reports.study_results import StudyResults
from ftlab.tracking.metric_facts import named
from ftlab.tracking.mlflow_values import name_of
from ftlab.tracking.records import CellKey

DATASETS = "datasets"
_COLUMN = re.compile(r"(test|cost|retain)(\.[^/]+)?/|val/")


@dataclass(frozen=True)
class JudgedMetric:
    """A metric on all cells of a study."""

    study: StudyResults
    metric: str
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
        if name != DATASETS and not _COLUMN.match(metric):
            raise InputError(f"--columns {text}: {name!r} is no column",
                             "datasets, datasets:test/f1_macro, or a list such as "
                             "test/accuracy,val/loss,cost/train_seconds")
        if names.count(name) > 1:
            raise InputError(f"--columns {text}: {name} stands twice", "say it once")
        if name.startswith(DATASETS) and len(names) > 1:
            raise InputError(f"--columns {text}: data sets and metrics are two kinds of columns",
                             f"make two tables, one with --columns {name}")
    return names


def grid(studies: Sequence[StudyResults], columns: Sequence[str]) -> Grid:
    """Make the table.

    Args:
        studies: in order.
        columns: from `parse`.

    Raises:
        InputError: a metric that no finished run of any study has; or seeds of two kinds.
    """
    _refuse_both_kinds(studies)
    facts = {name: fact for study in studies for name, fact in merged(study.facts).items()}
    if columns[0].startswith(DATASETS):
        chosen = columns[0].partition(":")[2]
        return _by_dataset(studies, {study.study: named(chosen or study.metric, facts)
                                     for study in studies})
    return _by_metric(studies, [named(column, facts) for column in columns])


def _refuse_both_kinds(studies: Sequence[StudyResults]) -> None:
    """Refuse studies whose seeds draw the training set beside others, whose claims are not the same."""
    kinds: dict[bool, str] = {}
    for study in studies:
        for record in study.records.values():
            if record.finished:
                kinds.setdefault(record.training_share > 0, study.study)
    if len(kinds) > 1:
        raise InputError(
            f"a seed of {kinds[True]} draws the training set, and a seed of {kinds[False]} does not: their "
            "numbers vary by different things, and do not belong into one table",
            "make a table of each, or give both the same seeds: {of: ...}")


def judge(study: StudyResults, metric: str) -> JudgedMetric:
    """Summaries of a metric, and its own comparisons; costs are not compared."""
    rows: dict[CellKey, CellSummary] = {}
    comparisons: list[Comparison] = []
    for dataset in study.datasets:
        keys = [key for key in study.keys if key.dataset == dataset]
        records = [study.records[key] for key in keys if key in study.records]
        upwards = study.direction(dataset, metric)
        present = any(metric in run.metrics for record in records for run in record.finished)
        if upwards is None or not present:
            rows |= {row.key: row for row in build(keys, records, metric, True, check=False)}
            continue
        summaries, tested = compared(
            build(keys, records, metric, upwards), records, metric, upwards, study.tracker,
            study.contributions)
        rows |= {row.key: study.completed(row, metric, upwards) for row in summaries}
        comparisons += tested
    return JudgedMetric(study, metric, rows, tuple(comparisons))


def _check(studies: Sequence[StudyResults], metric: str) -> None:
    check_metric([record for study in studies for record in study.records.values()], metric)


def _entry(row: CellSummary) -> Entry:
    return Entry(row.summary, row.stands)


def _notes(study: StudyResults, keys: Sequence[CellKey], judged: Sequence[JudgedMetric]
           ) -> tuple[str, ...]:
    """Remarks on cells and what is missing of them, each once."""
    notes = []
    for key in keys:
        record = study.records.get(key)
        parts = ["not run"] if record is None else [
            gaps(record), *(missing(record, shown.metric) for shown in judged
                            if study.direction(key.dataset, shown.metric) is not None)]
        parts += dict.fromkeys(shown.rows[key].remark for shown in judged)
        if text := "; ".join(filter(None, parts)):
            notes.append(f"{key.title}: {text}")
    return tuple(notes)


def _by_metric(studies: Sequence[StudyResults], metrics: Sequence[str]) -> Grid:
    rows: list[GridRow] = []
    all_judged: list[JudgedMetric] = []
    for metric in metrics:
        _check(studies, metric)
    for study in studies:
        judged = [judge(study, metric) for metric in metrics]
        all_judged += judged
        groups = list(dict.fromkeys((key.backbone, key.dataset) for key in study.keys))
        for key in sorted(study.keys, key=lambda key: groups.index((key.backbone, key.dataset))):
            entries = {shown.metric: _entry(shown.rows[key]) for shown in judged}
            rows.append(GridRow(study.study, key.backbone, key.dataset, key.technique, entries,
                                _notes(study, [key], judged)))
    costs = [("Costs", COSTS)] if any(m.startswith("cost/") for m in metrics) else []
    return Grid({metric: metric for metric in metrics}, tuple(rows),
                _caption(studies, ", ".join(metrics)), (*_about(all_judged, rows), *costs))


def _by_dataset(studies: Sequence[StudyResults], metrics: Mapping[str, str]) -> Grid:
    metric, *others = dict.fromkeys(metrics.values())
    if others:
        raise InputError(
            f"--columns {DATASETS}: the studies report {' and '.join([metric, *others])}",
            f"say which to show: --columns {DATASETS}:{metric}")
    rows: list[GridRow] = []
    all_judged: list[JudgedMetric] = []
    rules: list[str] = []
    for study in studies:
        _check([study], metric)
        judged = judge(study, metric)
        all_judged.append(judged)
        rows += (study_rows := _rows_by_dataset(judged))
        rules.append(task_means.rule(study.study if len(studies) > 1 else "", study.datasets,
                                     study.data_groups, study_rows,
                                     study.direction(study.datasets[0], metric) is not False))
    datasets = dict.fromkeys(name for study in studies for name in study.datasets)
    averages = dict.fromkeys(name for study in studies
                             for name in task_means.names(study.datasets, study.data_groups))
    return Grid(dict.fromkeys([*datasets, *averages], metric), tuple(rows),
                _caption(studies, metric),
                (*_about(all_judged, rows), *(("Averages", rule) for rule in rules if rule),
                 *(("Data", text) for text in _other_data(studies))))


def _rows_by_dataset(judged: JudgedMetric) -> list[GridRow]:
    """A row per backbone and technique, its entries by data set and average."""
    study, rows = judged.study, []
    for backbone in dict.fromkeys(key.backbone for key in study.keys):
        keys = [key for key in study.keys if key.backbone == backbone]
        for technique in dict.fromkeys(key.technique for key in keys):
            cells = {key.dataset: key for key in keys if key.technique == technique}
            values = {name: _values(study, judged.rows[key], judged.metric)
                      for name, key in cells.items()}
            means = task_means.means(values, study.datasets, study.data_groups, judged.metric)
            entries = {name: _entry(judged.rows[key]) for name, key in cells.items()}
            entries |= {name: Entry(mean) for name, mean in means.items()}
            rows.append(GridRow(study.study, backbone, "", technique, entries,
                                _notes(study, list(cells.values()), [judged])))
    return rows


def _other_data(studies: Sequence[StudyResults]) -> list[str]:
    """Data sets that have one name in several studies, and are not the same data."""
    seen: dict[str, set[str]] = {}
    for study in studies:
        for record in study.records.values():
            for run in record.finished:
                if digest := run.data_sha256:
                    seen.setdefault(record.key.dataset, set()).add(digest)
    return [f"{name} is not the same data in all of the studies: its fingerprints differ."
            for name, digests in seen.items() if len(digests) > 1 and len(studies) > 1]


def _values(study: StudyResults, row: CellSummary, metric: str) -> dict[int, float]:
    """A complete cell's metric by seed; empty for an incomplete one, which is not averaged."""
    if row.note or not math.isfinite(row.summary.mean):
        return {}
    return {run.seed: run.metrics[metric] for run in study.records[row.key].finished}


def _caption(studies: Sequence[StudyResults], what: str) -> str:
    names = [study.study for study in studies]
    return f"{'Study' if len(names) == 1 else 'Studies'} {', '.join(names)}: {what}."


def _about(judged: Sequence[JudgedMetric], rows: Sequence[GridRow]) -> list[tuple[str, str]]:
    """Notes; what holds for several metrics or studies stands once, with their names."""
    summaries = [(row.key.technique, row.summary) for shown in judged for row in shown.rows.values()
                 if not shown.metric.startswith("cost/")]
    notes = [("Numbers", numbers(summaries)), ("Selection", SELECTION)]
    studies = {shown.study.study: shown.study for shown in judged}
    one_study = len(studies) == 1
    notes += [("Tuning" if one_study else f"Tuning ({name})", text)
              for name, study in studies.items() if (text := tuned(study))]
    for term, write in (("Bold", bold), ("Draws", lambda c, _: draws(c)), ("Ties", lambda c, _: ties(c)),
                        ("Over data sets", across)):
        texts: dict[str, list[str]] = {}
        for shown in judged:
            if not shown.comparisons:
                continue  # a cost: nothing is compared
            text = write(shown.comparisons, shown.comparisons[0].higher_is_better)
            name = shown.metric if one_study else f"{shown.study.study}, {shown.metric}"
            texts.setdefault(text, []).append(name)
        several = len(judged) > 1 and len(texts) > 1
        notes += [(f"{term} ({'; '.join(names)})" if several else term, text)
                  for text, names in texts.items() if text]
    for shown in judged:
        if text := collapses.sentences(list(shown.rows.values())):
            notes.append((f"Collapses ({shown.metric})" if len(judged) > 1 else "Collapses", text))
    text = incomplete(any(row.notes for row in rows),
                      any(row.remark for shown in judged for row in shown.rows.values()))
    return [*notes, ("Incomplete", text)] if text else notes
