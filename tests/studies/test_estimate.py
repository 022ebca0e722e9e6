"""The dry run: caches that cells share are made once and counted once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ftlab.studies.estimate
from ftlab.studies.estimate import START, Estimate, Foreseen, estimate
from ftlab.studies.plan import Plan, PlannedCell
from ftlab.studies.study import Cell, Study, load_study
from ftlab.training.cache_plan import Forecast


class _Study:
    name, seeds = "study", [0, 1, 2]


class _Key:
    dataset, backbone = "news", "bert"

    def __init__(self, technique: str) -> None:
        self.technique = self.config = technique


def planned(technique: str, frozen: int) -> PlannedCell:
    cell = Cell.__new__(Cell)
    object.__setattr__(cell, "key", _Key(technique))
    return PlannedCell(cell, 10, 100, "", "", {}, frozen)


def test_total__has_each_shared_cache_once() -> None:
    cells = [planned("probe", 7), planned("last1", 6), planned("tuned", 7), planned("full", 0)]
    cache = Forecast(runs=6, plain=60.0, build=4.0, read=6.0, bytes=10)  # 9 s less a run
    made = Estimate(Plan(_Study(), cells), {  # type: ignore[arg-type]  # all that it reads of a study
        "probe": Foreseen(20.0, cache), "last1": Foreseen(20.0, cache),
        "tuned": Foreseen(20.0, cache), "full": Foreseen(20.0, why_not="the first block trains")})
    assert made.plain_seconds == 4 * 3 * 20.0
    assert made.total_seconds == pytest.approx(3 * (3 * 11.0 + 20.0) + 2 * 4.0)
    assert [cells[0].shares_prefix(each) for each in cells] == [True, False, True, False]
    assert not cells[3].shares_prefix(cells[3])


def test_cached_seconds__are_never_less_than_a_run_takes_to_start() -> None:
    assert Foreseen(5.0, Forecast(1, 60.0, 1.0, 1.0, 10)).cached_seconds == START


def test_estimate__counts_the_seeds_of_all_cells_that_share(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, int] = {}

    def foresee(study: Study, planned: PlannedCell, *_: Any, runs: int) -> Foreseen:
        asked[planned.cell.key.technique] = runs
        return Foreseen(1.0)

    monkeypatch.setattr(ftlab.studies.estimate, "_foresee", foresee)
    probes = {f"lr{lr}": {"class_path": "LinearProbe", "init_args": {"lr": lr}} for lr in (0.01, 0.1)}
    estimate(load_study(write(techniques={**probes, "full": "FullFineTuning"}, seeds=[1, 2, 3])))
    assert asked == {"lr0.01": 6, "lr0.1": 6, "full": 3}
