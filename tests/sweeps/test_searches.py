"""A sweep of several searches: apart from each other, shared, interrupted, and run as a study."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from scripted import HereEngine, Play, ScriptedEngine, epochs, write_sweep

from ftlab.errors import InputError
from ftlab.studies.dispatch import Interrupted
from ftlab.studies.engine import Event
from ftlab.studies.study import load_study
from ftlab.sweeps.coordinator import SweepOutcome, run_sweep
from ftlab.sweeps.search_names import search_name, search_of
from ftlab.sweeps.status import left, status
from ftlab.sweeps.sweep import load_sweep
from ftlab.tracking.tracker import Tracker

UNRENDERED = True
Here = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.usefixtures("store")


def good(said: dict[str, Any], folder: Path) -> Iterator[Event]:
    """The rate is the score, as each seed likes it."""
    rate = said["technique"]["init_args"]["lr"]
    yield from epochs(folder, [0.1, 1 / (1 + rate) - 0.01 * said["seed"]])


@pytest.fixture
def sweep(tmp_path: Path, tiny_bert: Path, reviews: Path) -> Callable[..., SweepOutcome]:
    """A sweep in a folder of its own: `sweep(play, searches=2)`; again, it is the same command."""

    def run(play: Play, slots: int = 2, **keys: Any) -> SweepOutcome:
        path = write_sweep(tmp_path, tiny_bert, reviews, **{"trials": 4, "searches": 3, **keys})
        run.sweep = load_sweep(path).with_shortcuts(False)
        run.engine = ScriptedEngine(play, slots)
        return run_sweep(run.sweep, engine=run.engine)

    return run


def drawn(outcome: SweepOutcome) -> dict[int, dict[int, dict[str, Any]]]:
    """By search, then trial: its values."""
    return {s.search: {t.number: t.params for t in s.trials} for s in outcome.standings}


def complete(outcome: SweepOutcome) -> list[int]:
    return [s.count(TrialState.COMPLETE) for s in outcome.standings]


# One search apart from the others

def test_names__come_back() -> None:
    for search in range(3):
        assert search_of(search_name("some.sweep", search)) == ("some.sweep", search)


def test_each__has_seeds_and_draws_of_its_own(sweep: Any) -> None:
    outcome = sweep(good)
    assert outcome.over and complete(outcome) == [4, 4, 4]
    assert Counter(said["seed"] for said in sweep.engine.started) == {0: 4, 1: 4, 2: 4}
    values = drawn(outcome)
    assert values[0][0] == values[1][0] == values[2][0], "each begins with the study's own setting"
    others = [str(params) for of in values.values() for number, params in of.items() if number]
    assert len(set(others)) == 9, "no two searches draw alike"


def test_each__of_several_seeds_a_trial_shares_none(tmp_path: Path, tiny_bert: Path, reviews: Path) -> None:
    loaded = load_sweep(write_sweep(tmp_path, tiny_bert, reviews, searches=3, seeds=[5, 7]))
    assert [search.seeds for search in loaded.each] == [(5, 7), (8, 10), (11, 13)]
    assert loaded.fresh_seeds == (0, 1, 2)
    assert replace(loaded, seeds=(0, 2)).fresh_seeds == (1, 4, 7)


def test_first_search__is_the_sweep_without_the_others(sweep: Any) -> None:
    alone = sweep(good, searches=1)
    assert sweep.sweep.each[0] == replace(sweep.sweep, searches=1)
    digest = sweep.sweep.digest
    more = sweep(good, searches=3)
    assert sweep.sweep.each[0].digest == digest != sweep.sweep.each[1].digest
    assert len(sweep.engine.started) == 8, "nothing of the first is repeated"
    assert drawn(more)[0] == drawn(alone)[0]


def test_samplers__see_no_other_searchs_trials(sweep: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """TPE asked for the fifth trial of a search knows the four of this search."""
    seen: list[set[float]] = []
    infer = optuna.samplers.TPESampler.sample_relative

    def sample(self: Any, study: Any, trial: FrozenTrial, space: Any) -> Any:
        values = [t.values[0] for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
        seen.append({round(value // 1) for value in values})
        return infer(self, study, trial, space)

    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        yield from epochs(folder, [0.1, float(said["seed"]) + 0.5])

    seen.clear()
    monkeypatch.setattr(optuna.samplers.TPESampler, "sample_relative", sample)
    sweep(play, 1, sampler={"class_path": "TPE", "init_args": {"multivariate": True}}, searches=2)
    assert {frozenset(values) for values in seen} == {frozenset(), frozenset({0}), frozenset({1})}


# Continued, shared, stopped

def test_interrupted__and_continued_is_the_sweep_in_one_go(
    sweep: Any, tmp_path: Path, empty_store: Path
) -> None:
    whole = drawn(sweep(good, 1))
    (tmp_path / "optuna.journal").unlink()
    (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())
    for after in (2, 3, 4):
        count = Counter[str]()

        def stopped(said: dict[str, Any], folder: Path, after: int = after,
                    count: Counter[str] = count) -> Iterator[Event]:
            count["begun"] += 1
            if count["begun"] > after:
                raise Interrupted(2)
            yield from good(said, folder)

        with pytest.raises(Interrupted):
            sweep(stopped, 1)
    assert [s.ended for s in status(sweep.sweep)] == [4, 4, 1], "whole searches first"
    outcome = sweep(good, 1)
    assert len(sweep.engine.started) == 3
    assert drawn(outcome) == whole
    tracker = Tracker()
    for search in sweep.sweep.each:
        assert [t.state for t in tracker.trials("small", search.name)] == ["COMPLETE"] * 4


def test_two_coordinators__share_all_searches(
    sweep: Any, tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    alone = drawn(sweep(good, 1))
    for left_over in tmp_path.glob("optuna.journal*"):
        left_over.unlink()
    path, done, lock = tmp_path / "sweep.yaml", [], threading.Lock()

    def play(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        with lock:
            done.append((threading.current_thread().name, said["seed"], folder.name.split("-")[2]))
        yield from good(said, folder)

    outcomes: list[SweepOutcome] = []

    def work() -> None:
        outcomes.append(run_sweep(load_sweep(path).with_shortcuts(False), engine=ScriptedEngine(play, 1)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [complete(outcome) for outcome in outcomes] == [[4, 4, 4]] * 2
    assert len(done) == len({each[1:] for each in done}) == 12, "each once"
    assert len({name for name, *_ in done}) == 2
    assert drawn(outcomes[0]) == drawn(outcomes[1]) == alone


def test_max_seconds__is_of_all_searches(sweep: Any) -> None:
    def slow(said: dict[str, Any], folder: Path) -> Iterator[Event]:
        threading.Event().wait(0.3)
        yield from good(said, folder)

    outcome = sweep(slow, 1, trials=5, searches=4, max_seconds=2)
    assert not outcome.over
    assert 0 < sum(complete(outcome)) < 15
    assert complete(outcome)[-1] == 0
    again = sweep(good, 2, trials=5, searches=2)
    assert complete(again) == [5, 5], "fewer searches than were begun"


def test_status__counts_all_searches(sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from ftlab.sweeps.status import rich

    sweep(good, searches=2)
    standings = status(replace(sweep.sweep, searches=3))  # one more since
    assert [(s.search, s.ended, s.budget) for s in standings] == [(0, 4, 4), (1, 4, 4), (2, 0, 4)]
    assert left(standings) is None
    Console(width=80).print(rich(replace(sweep.sweep, searches=3), standings, "maximize"))
    said = capsys.readouterr().out
    assert "4 trials a cell of small, 3 searches" in said
    assert "reviews from bert, search 3 of 3" in said and "0/4" in said


# What is refused

@pytest.mark.parametrize(("keys", "what", "mend"), [
    ({"searches": 0}, "searches: expected a whole number above 0, got 0", "searches: "),
    ({"searches": "three"}, "searches: expected a whole number above 0, got three", "searches: "),
    ({"searches": 1.5}, "searches: expected a whole number above 0, got 1.5", "searches: "),
    ({"searches": 3, "seeds": [2**32 - 1]}, "seeds: expected a list of whole numbers", "[0, 1, 2]"),
    ({"name": "first.search-2"}, "what a sweep's further searches are called", "does not end in"),
])
def test_load__refuses(tmp_path: Path, tiny_bert: Path, reviews: Path, keys: dict[str, Any], what: str,
                       mend: str) -> None:
    path = write_sweep(tmp_path, tiny_bert, reviews, **keys)
    with pytest.raises(InputError) as caught:
        load_sweep(path)
    assert what in caught.value.what and mend in caught.value.mend
    assert "\n" not in caught.value.what + caught.value.mend


# From the sweep file to the table of the tuned study

def test_tuned_study__of_searches_runs_and_its_table_counts_searches(
    here: Here, tmp_path: Path, tiny_bert: Path, reviews: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_sweep(tmp_path, tiny_bert, reviews, {
        "trainer": {"max_epochs": 1}, "techniques": {
            "probe": {"class_path": "LinearProbe", "init_args": {"lr": 0.01, "solver": None}},
            "bitfit": {"class_path": "BitFit", "init_args": {"lr": 0.001}}}},
        trials=2, searches=2, spaces={"probe": {"lr": {"low": 0.001, "high": 1.0, "log": True}}})
    monkeypatch.setattr("ftlab.studies.engines.make_engine", lambda *_: HereEngine())
    code, said, errors = here("check", path)
    assert code == 0 and "2 cells, 8 trials" in said, errors
    code, said, errors = here("sweep", path)
    assert code == 0, errors
    assert "study.tuned.yaml" in said
    budget = (tmp_path / "results" / "small" / "sweeps" / "sweep" / "budget.md").read_text()
    assert "2 searches, each of at most 2 trials a cell" in budget
    assert "from the lowest to the highest" in budget
    study = load_study(tmp_path / "study.tuned.yaml")
    assert study.seeds == (2, 3) and (study.tuned.trials, study.tuned.searches) == (2, 2)
    code, said, errors = here("run", tmp_path / "study.tuned.yaml")
    assert code == 0, errors
    markdown = (tmp_path / "results" / "small.tuned" / "table.md").read_text()
    assert "n = 2 searches, each of 2 trials, its winner tested with one fresh seed" in markdown
    tracker = Tracker()
    for cell in study.cells:
        (record,) = [r for r in tracker.cells("small.tuned") if r.key == cell.key]
        ran = {run.seed: float(run.params["technique.init_args.lr"]) for run in record.finished}
        assert ran == {seed: study.specification(cell, seed)["technique"]["init_args"]["lr"]
                       for seed in study.seeds}
    recorded = load_study(tmp_path / "results" / "small.tuned" / "study.yaml")
    assert [c.key for c in recorded.cells] == [c.key for c in study.cells]
    assert (recorded.tuned, recorded.seeds) == (study.tuned, study.seeds)


def test_searches__of_a_study_whose_seeds_draw_the_split_choose_on_splits_of_their_own(
        tmp_path: Path, tiny_bert: Path, reviews: Path) -> None:
    path = write_sweep(tmp_path, tiny_bert, reviews, searches=3, study={
        "seeds": {"of": ["training", "split"], "list": [0, 1, 2]}})
    for each in load_sweep(path).each:
        draws = [each.config(cell, {}, seed)["data"]["init_args"]["split"]["draw"]
                 for cell in each.study.cells for seed in each.seeds]
        assert set(draws) == {each.search}, "a search's seed draws its split"
