"""Read a study's numbers and their provenance from a result folder, `runs.csv` or store."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ftlab.addresses import shown
from ftlab.errors import InputError
from ftlab.interchange import parse_json, read_bytes
from ftlab.reports.formats import unescape_csv
from ftlab.reports.metric_record import merged, read_stated, recorded
from ftlab.studies import provenance
from ftlab.studies.study import Study
from ftlab.studies.study_snapshot import FILE, settings
from ftlab.studies.yaml_file import read as read_yaml
from ftlab.tracking.metric_facts import Record
from ftlab.tracking.mlflow_values import flatten
from ftlab.tracking.records import CellRecord
from ftlab.tracking.tracker import Tracker

Names = tuple[str, str, str]
"""Backbone, data set and technique: what a cell is matched by."""
_KEYS = ("study", "backbone", "dataset", "technique", "seed", "status", "run_id")
_AGAIN = "write the file again: ftlab table STUDY"
_HOW = "give results/STUDY, a runs.csv, or a store and its study: sqlite:///mlflow.db#STUDY"


@dataclass(frozen=True)
class CellResult:
    """One cell.

    Attributes:
        status: by seed.
        values: by metric, then seed; of finished runs, finite ones.
    """

    status: dict[int, str]
    values: dict[str, dict[int, float]]

    def restricted(self, seeds: tuple[int, ...]) -> CellResult:
        """With some of its seeds."""
        return CellResult({s: word for s, word in self.status.items() if s in seeds},
                        {name: {s: v for s, v in by_seed.items() if s in seeds}
                         for name, by_seed in self.values.items()})


@dataclass(frozen=True)
class ComparedStudy:
    """One side of a comparison.

    Attributes:
        label: what the person gave.
        study: its name.
        cells: by names, in the source's order.
        reported: the metric that the study's table shows; empty where unknown.
        provenance: as in `provenance.json`; empty where unknown.
        settings: dotted, as in the study file; empty where unknown.
        facts: about its metrics; empty where unknown.
    """

    label: str
    study: str
    cells: dict[Names, CellResult]
    reported: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    facts: Record = field(default_factory=dict)

    def labelled(self, label: str) -> ComparedStudy:
        """Under another name."""
        return replace(self, label=label)

    def seeds_of(self, techniques: Sequence[str]) -> list[int]:
        """The seeds of some techniques' cells."""
        return sorted({seed for names, cell in self.cells.items() if names[-1] in techniques
                       for seed in cell.status})

    def restricted(self, study: Study) -> ComparedStudy:
        """The cells and seeds of a study alone."""
        wanted = {(c.key.backbone, c.key.dataset, c.key.technique) for c in study.cells}
        return replace(self, cells={names: cell.restricted(study.seeds)
                                    for names, cell in self.cells.items() if names in wanted})


def measurements(source: str | Path) -> ComparedStudy:
    """Read one side.

    Args:
        source: a result folder, a `runs.csv`, or a store's address, `#` and the study's name.

    Raises:
        InputError: it is none of these, or says nothing usable.
    """
    text = str(source)
    if "://" in text:
        return _of_store(text)
    path = Path(source)
    file = path / "runs.csv" if path.is_dir() else path
    if file.suffix != ".csv" or not file.is_file():
        raise InputError(f"{shown(text)}: no results there", _HOW)
    study, cells = _runs(file)
    folder = file.parent
    origin = _json(folder / "provenance.json")
    snapshot = _recorded(folder / FILE)
    dotted = flatten(settings(snapshot)) if snapshot else {}
    return ComparedStudy(text, study, cells, snapshot.get("report", "") or _metric(folder), origin,
                         dotted, read_stated(origin))


def _recorded(path: Path) -> dict[str, Any]:
    return read_yaml(path)[0] if path.is_file() else {}


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    data = parse_json(read_bytes(path, _AGAIN), path, _AGAIN)
    if not isinstance(data, dict):
        raise InputError(f"{path}: no mapping", _AGAIN)
    return data


def _metric(folder: Path) -> str:
    """The metric of the table beside the runs, for results without a recorded study."""
    path = folder / "table.csv"
    if not path.is_file():
        return ""
    with _reading(path) as reader:
        names = {line.get("metric") or "" for line in reader}
    return names.pop() if len(names) == 1 else ""


def _runs(path: Path) -> tuple[str, dict[Names, CellResult]]:
    cells: dict[Names, CellResult] = {}
    studies = set()
    for number, line in _lines(path):
        place = f"{path}:{number}"
        studies.add(line["study"])
        names = line["backbone"], line["dataset"], line["technique"]
        cell = cells.setdefault(names, CellResult({}, {}))
        seed = _seed(line["seed"], f"{place}: seed")
        if seed in cell.status:
            raise InputError(f"{place}: {title(names)}, seed {seed}: stands twice",
                             _AGAIN)
        cell.status[seed] = line["status"]
        metrics = {name: _number(text, f"{place}: {name}") for name, text in line.items()
                 if name not in _KEYS and text}
        _add(cell, seed, metrics)
    if len(studies) != 1:
        raise InputError(f"{path}: {len(studies) or 'no'} studies", "one study a file")
    return studies.pop(), cells


@contextmanager
def _reading(path: Path) -> Iterator[csv.DictReader[str]]:
    """The lines of a file that ftlab wrote and somebody may have changed."""
    try:
        yield csv.DictReader(io.StringIO(read_bytes(path, _AGAIN).decode("utf-8"), newline=""))
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is malformed: {error}", _AGAIN) from error


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with _reading(path) as reader:
        missing = [key for key in _KEYS[:6] if key not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"{path}: no column {missing[0]!r}, so no runs.csv of ftlab", _HOW)
        for line in reader:
            if None in line or None in line.values():
                raise InputError(f"{path}:{reader.line_num}: not as many fields as columns",
                                 _AGAIN)
            yield reader.line_num, {name: unescape_csv(text) for name, text in line.items()}


def _seed(text: str, place: str) -> int:
    number = _number(text, place)
    if not number.is_integer():  # nor not a number, nor infinite
        raise InputError(f"{place}: {text!r} is not a whole number", _AGAIN)
    return int(number)


def _number(text: str, place: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{place}: {text!r} is no number",
                         _AGAIN) from None


def _add(cell: CellResult, seed: int, metrics: Mapping[str, float]) -> None:
    if cell.status[seed] != "FINISHED":
        return
    for name, value in metrics.items():
        if math.isfinite(value):
            cell.values.setdefault(name, {})[seed] = value


def _of_store(address: str) -> ComparedStudy:
    uri, sign, study = address.rpartition("#")  # a password may hold another
    label = f"{shown(uri if sign else study)}{sign}{study * bool(sign)}"
    if not sign or not study:
        raise InputError(f"{label}: which study of the store?", f"write {label.rstrip('#')}#STUDY")
    tracker = Tracker(uri)
    records = tracker.cells(study)
    tracker.close()
    cells: dict[Names, CellResult] = {}
    dotted: dict[str, str] = {}
    for record in records:
        names = record.key.backbone, record.key.dataset, record.key.technique
        if names in cells:
            raise InputError(
                f"{label}: {record.key.title} is there with several settings",
                f"choose by a study file: ftlab table STUDY, then compare results/{study}")
        runs = {run.seed: run for run in record.runs}
        cells[names] = CellResult({seed: runs[seed].status if seed in runs else "MISSING"
                                 for seed in sorted({*record.seeds, *runs})}, {})
        for run in record.finished:
            _add(cells[names], run.seed, run.metrics)
        dotted |= _settings(record)
    collected = provenance.collect(study, "", records)
    return ComparedStudy(label, study, cells, "", collected, dotted, merged(recorded(records)))


def _settings(record: CellRecord) -> dict[str, str]:
    """A run's params under the names that a study file has for them."""
    key, dotted = record.key, {}
    places = {"backbone": f"backbones.{key.backbone}", "data": f"datasets.{key.dataset}",
              "technique": f"techniques.{key.technique}",
              "trainer": f"techniques.{key.technique}.trainer", "select_by": "select_by"}
    for run in record.finished[:1]:
        for name, value in run.params.items():
            part, dot, rest = name.partition(".")
            if part in places:
                dotted[f"{places[part]}{dot}{rest}"] = value
    return dotted


def title(names: Names) -> str:
    """For people: `lora on bbc from minilm`."""
    backbone, dataset, technique = names
    return f"{technique} on {dataset} from {backbone}"
