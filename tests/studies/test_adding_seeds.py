"""Studies that add seeds until they are decided, through the coordinator: runs follow a script."""

import csv
import io
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scripted import ScriptedEngine
from simulated_studies import Scenario

from ftlab.errors import FtlabError, InputError
from ftlab.reports import csv_files
from ftlab.reports.study_results import read
from ftlab.reports.study_table import table
from ftlab.statistics.evidence import Evidence
from ftlab.statistics.moderated import SeedScores
from ftlab.statistics.until_decided import decide
from ftlab.statistics.verdict import Rule, Verdict
from ftlab.studies.display import Display
from ftlab.studies.dry_run import estimate
from ftlab.studies.engine import Event
from ftlab.studies.study import load_study
from ftlab.studies.verdict_words import words
from ftlab.sweeps.study_runs import run_study
from ftlab.tasks.classification import Classification
from ftlab.terminal import Terminal
from ftlab.tracking.metric_facts import MetricFacts
from ftlab.tracking.tracker import Tracker

TECHNIQUES = {
    "full": "FullFineTuning",
    "probe": {"class_path": "LinearProbe", "init_args": {"solver": None}},
    "bitfit": "BitFit",
    "ln": "NormTuning",
}
MOST, MARGIN = 8, 2.0
# the probe is far below; bitfit is equal; of ln no seed can tell
HITS = dict(zip(TECHNIQUES, Scenario((0.88, 0.78, 0.88, 0.865), (0.004, 0.004, 0.004, 0.03), 1500).draw(
    np.random.default_rng(2), MOST), strict=True))
NAMES = {"FullFineTuning": "full", "LinearProbe": "probe", "BitFit": "bitfit", "NormTuning": "ln"}
PAIRS = [("full", "probe"), ("full", "bitfit"), ("full", "ln")]


def scores(hits: dict[str, np.ndarray]) -> dict[str, dict[int, SeedScores]]:
    return {name: {seed: SeedScores(np.array([row.mean()]), row[None]) for seed, row in enumerate(rows)}
            for name, rows in hits.items()}


EXPECTED = decide(scores(HITS), PAIRS, Rule(MARGIN / 100, 3, MOST))


def play(specification: dict[str, Any], folder: Path) -> Iterator[Event]:
    """A run that is right on the examples that the table says."""
    name = NAMES[specification["technique"]["class_path"].rpartition(".")[2]]
    hits = HITS[name][specification["seed"]].astype(int)
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"id": [f"e{n}" for n in range(len(hits))], "target": "a",
                  "prediction": np.where(hits, "a", "b")}).to_parquet(
        folder / "predictions" / "test.parquet")
    yield {"event": "done", "metrics": {"val/accuracy": 0.9, "test/accuracy": float(hits.mean()),
                                        "test/loss": 1 - float(hits.mean())}}


@pytest.fixture
def study_file(write: Callable[..., Path]) -> Callable[..., Path]:
    def make(**changes: object) -> Path:
        return write(**{"techniques": TECHNIQUES, "baseline": "full", "seeds": {
            "until": "decided", "margin": MARGIN, "most": MOST}} | changes)
    return make


def run(path: Path, folder: Path, engine: ScriptedEngine, **options: Any) -> str:
    """Run a study file; what was shown."""
    shown = io.StringIO()
    display = Display(Terminal(file=shown, width=500)) if "display" not in options else options["display"]
    run_study(load_study(path), store(folder), folder / "results", engine=engine, display=display)
    return shown.getvalue()


def store(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


def finished(folder: Path) -> dict[str, list[int]]:
    return {cell.key.technique: [run.seed for run in cell.finished]
            for cell in Tracker(store(folder)).cells("small")}


def results_of(path: Path, folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    results = read(load_study(path), Tracker(store(folder))).directed().compared()
    lines = csv.DictReader(io.StringIO(csv_files.tests_csv(results.comparisons)))
    return {(line["a"], line["b"]): line for line in lines}


def test_the_script__has_a_difference_an_equality_and_an_open_question() -> None:
    kinds = [verdict.kind for verdict in EXPECTED.verdicts.values()]
    assert kinds[:2] == ["different", "equal"] and not EXPECTED.verdicts[PAIRS[2]].resolved
    assert len(set(EXPECTED.used.values())) > 1


def test_one_worker__begins_the_runs_that_the_decision_wants_and_no_other(
        study_file: Callable[..., Path], tmp_path: Path) -> None:
    path = study_file()
    engine = ScriptedEngine(play, slots=1)
    shown = run(path, tmp_path, engine)
    done = finished(tmp_path)
    assert {name: len(seeds) for name, seeds in done.items() if name != "probe"} == {
        name: count for name, count in EXPECTED.used.items() if name != "probe"}
    # the heads of a probe train together: those of the round after the first come along
    assert len(done["probe"]) in (EXPECTED.used["probe"], EXPECTED.used["probe"] + 1)
    assert all(seeds == list(range(len(seeds))) for seeds in done.values())
    assert "full is better than probe by" in shown and "full equals bitfit within 2 points" in shown
    assert "with 1,500 test examples equality can be shown within" in shown
    assert "of runs are expected until all is decided" in shown
    lines = results_of(path, tmp_path)
    assert [lines[pair]["verdict"] for pair in PAIRS] == [
        "better", "equal", EXPECTED.verdicts[PAIRS[2]].kind]
    for pair, verdict in EXPECTED.verdicts.items():
        line = lines[pair]
        assert int(line["seeds"]) == verdict.evidence.seeds
        assert float(line["difference"]) == pytest.approx(verdict.evidence.difference)
        assert float(line["equal_within"]) == pytest.approx(verdict.equal_within)
        assert (float(line["ci_low"]), float(line["ci_high"])) == pytest.approx(verdict.interval)


@pytest.mark.parametrize("slots", [3])
def test_several_workers__come_to_the_same_verdicts_with_few_runs_more(
        study_file: Callable[..., Path], tmp_path: Path, slots: int) -> None:
    path = study_file()
    run(path, tmp_path, ScriptedEngine(play, slots=slots))
    lines = results_of(path, tmp_path)
    assert [lines[pair]["verdict"] for pair in PAIRS] == [
        "better", "equal", EXPECTED.verdicts[PAIRS[2]].kind]
    more = {name: len(seeds) - EXPECTED.used[name] for name, seeds in finished(tmp_path).items()}
    assert all(0 <= count <= 1 for count in more.values()), "at most one seed of the next round"


def test_interrupted_anywhere_and_continued__decides_the_same_and_repeats_nothing(
        study_file: Callable[..., Path], tmp_path: Path) -> None:
    path = study_file()
    begun: Counter[tuple[str, int]] = Counter()
    ended: Counter[tuple[str, int]] = Counter()
    stop_at = iter((2, 5, 4, 3, 100))
    left = [next(stop_at)]

    def interrupted(specification: dict[str, Any], folder: Path) -> Iterator[Event]:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        place = (specification["technique"]["class_path"], specification["seed"])
        begun[place] += 1
        yield from play(specification, folder)
        ended[place] += 1

    for _ in range(5):
        try:
            run(path, tmp_path, ScriptedEngine(interrupted, slots=1))
            break
        except KeyboardInterrupt:
            left[0] = next(stop_at)
    lines = results_of(path, tmp_path)
    assert [lines[pair]["verdict"] for pair in PAIRS] == [
        "better", "equal", EXPECTED.verdicts[PAIRS[2]].kind]
    assert set(ended.values()) == {1}
    engine = ScriptedEngine(play, slots=1)
    run(path, tmp_path, engine)
    assert not engine.started, "all is decided: the same command has nothing to do"


def test_a_technique_that_fails__is_not_compared_and_the_others_are(
        study_file: Callable[..., Path], tmp_path: Path) -> None:
    path = study_file()

    def failing(specification: dict[str, Any], folder: Path) -> Iterator[Event]:
        if "BitFit" in specification["technique"]["class_path"] and specification["seed"] == 1:
            yield {"event": "failed", "reason": "non-finite loss"}
            yield {"event": "exit", "code": 1, "lost": False}
            return
        yield from play(specification, folder)

    shown = run(path, tmp_path, ScriptedEngine(failing, slots=1))
    assert "full is not compared with bitfit: bitfit: seed 1: non-finite loss" in shown
    lines = results_of(path, tmp_path)
    assert lines["full", "probe"]["verdict"] == "better" and ("full", "bitfit") not in lines
    assert max(finished(tmp_path)["bitfit"]) <= 3, "nothing more is spent on it"


def test_a_metric_of_no_examples__is_decided_by_the_seeds_and_it_is_said(
        study_file: Callable[..., Path], tmp_path: Path) -> None:
    path = study_file(report="test/loss", seeds={"until": "decided", "margin": 0.02, "most": MOST})
    shown = run(path, tmp_path, ScriptedEngine(play, slots=1))
    lines = results_of(path, tmp_path)
    assert lines["full", "probe"]["verdict"] == "better"
    if "loss is not compared by example" in shown:
        assert {line["examples"] for line in lines.values()} == {"0"}
    else:  # the task tells what each example adds to it
        assert "test examples equality can be shown" in shown


def test_seeds_on_the_command_line__replace_the_rule(study_file: Callable[..., Path]) -> None:
    study = load_study(study_file())
    assert study.until is not None and study.seeds == tuple(range(MOST))
    listed = load_study(study_file(seeds={"until": "decided", "margin": 2, "list": [9, 5, 7, 6]}))
    assert listed.seeds == (9, 5, 7, 6) and listed.first_seeds == (9, 5, 7)
    given = study.with_seeds([4, 5])
    assert given.until is None and given.seeds == (4, 5)


def test_the_verdict__is_a_tag_of_the_cell_and_a_sentence_of_the_report(
        study_file: Callable[..., Path], tmp_path: Path) -> None:
    path = study_file()
    shown = io.StringIO()
    console = Terminal(file=shown, width=120, force_terminal=True)
    run(path, tmp_path, ScriptedEngine(play, slots=2), display=Display(console))
    assert "full is better than probe" in shown.getvalue(), "above the bars of a terminal"
    report = table(load_study(path), store(tmp_path), tmp_path / "results")
    tracker = Tracker(store(tmp_path))
    tags = {cell.key.technique: tracker._client.get_run(cell.cell_id).data.tags.get("ftlab.verdict")
            for cell in tracker.cells("small")}
    assert tags["full"] == "baseline" and tags["probe"].startswith("is worse than full by ")
    assert tags["bitfit"].startswith("equals full within 2 points")
    assert tags["ln"].startswith("and full are undecided")
    said = " ".join(report.sentences)
    assert "probe (by" in said and "is worse than full; bitfit equals full within 2 points" in said
    assert "resolved of 3 comparisons" in said and f"{MOST} seeds of every technique" in said
    about = dict(report.table.about)
    assert "at most 8" in about["Verdicts"] and "5% chance of any false claim" in about["Verdicts"]


@pytest.mark.parametrize("seeds, what", [
    ({"until": "decided"}, "seeds.margin: expected a number above 0, got None"),
    ({"until": "decided", "margin": 0}, "seeds.margin: expected a number above 0, got 0"),
    ({"until": "decided", "margin": 100}, "differ by at most 100 points"),
    ({"until": "decided", "margin": 2, "most": 2}, "2 seeds are fewer than the first 3"),
    ({"until": "decided", "margin": 2, "first": 2}, "fewer than 3 seeds"),
    ({"until": "decided", "margin": 2, "most": 1000}, "at most 200 seeds"),
    ({"until": "bored", "margin": 2}, "expected decided"),
    ({"margin": 2}, "only with until: decided"),
    ({"until": "decided", "margin": 2, "list": [1]}, "1 seeds are fewer than the first 3"),
    ({"until": "decided", "margin": 2, "list": [7, 8, 9], "most": 3}, "the list says how many"),
    ({"until": "decided", "margin": 2, "mots": 9}, "unknown key"),
    ({"of": ["training", "weather"]}, "draws training and split"),
])
def test_bad_seeds__are_refused_in_one_line(study_file: Callable[..., Path], seeds: object,
                                            what: str) -> None:
    with pytest.raises(InputError) as refused:
        load_study(study_file(seeds=seeds))
    assert what in refused.value.what and "\n" not in refused.value.what and refused.value.mend


def test_one_technique__and_a_baseline_left_out_are_refused(study_file: Callable[..., Path]) -> None:
    study = load_study(study_file())
    with pytest.raises(InputError, match="told from full, which is left out"):
        study.only(["probe", "bitfit"])
    with pytest.raises(InputError, match="left out"):
        study.only(["probe"])
    with pytest.raises(InputError, match="compared with nothing"):
        load_study(study_file(techniques={"full": "FullFineTuning"}))


def test_one_technique__runs_alone_with_seeds_that_are_given(
        study_file: Callable[..., Path], here: Callable[..., tuple[int, str, str]]) -> None:
    code, out, errors = here("run", study_file(), "--only", "probe", "--seeds", "0", "--dry-run")
    assert code == 0, errors
    assert "probe" in out and "bitfit" not in out


def test_a_margin_beyond_a_metric_s_range__is_refused_where_the_task_knows_it(
        study_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the name says that it is a share; the data set's task does, before anything is stored."""
    facts = Classification().facts() | {"hits": MetricFacts(True, "share")}
    monkeypatch.setattr(Classification, "facts", lambda self: facts)
    monkeypatch.setattr("ftlab.studies.plan.check_measurable", lambda *_: None)
    path = study_file(report="test/hits", seeds={"until": "decided", "margin": 300})
    with pytest.raises(InputError, match="values of test/hits differ by at most 100 points"):
        run(path, tmp_path, ScriptedEngine(play))
    assert not Path(f"{tmp_path}/mlflow.db").exists()


def test_two_commands_at_once__share_the_runs_and_decide_alike(
        study_file: Callable[..., Path], tmp_path: Path) -> None:
    path = study_file()
    begun: Counter[tuple[str, int]] = Counter()

    def slowly(specification: dict[str, Any], folder: Path) -> Iterator[Event]:
        begun[specification["technique"]["class_path"], specification["seed"]] += 1
        for _ in range(3):
            time.sleep(0.02)
            yield {"event": "progress", "phase": "fit", "done": 1, "total": 2}
        yield from play(specification, folder)

    ends: list[FtlabError | None] = []

    def command() -> None:
        try:
            run(path, tmp_path, ScriptedEngine(slowly, slots=1))
            ends.append(None)
        except FtlabError as error:
            ends.append(error)

    commands = [threading.Thread(target=command) for _ in range(2)]
    for each in commands:
        each.start()
        time.sleep(0.5)
    for each in commands:
        each.join()
    assert ends.count(None) >= 1
    assert all(error is None or "nothing to do here" in str(error) for error in ends)
    assert set(begun.values()) == {1}, "no run is done twice"
    lines = results_of(path, tmp_path)
    assert [lines[pair]["verdict"] for pair in PAIRS] == [
        "better", "equal", EXPECTED.verdicts[PAIRS[2]].kind]
    more = {name: len(seeds) - EXPECTED.used[name] for name, seeds in finished(tmp_path).items()}
    assert all(0 <= count <= 2 for count in more.values()), more


def test_dry_run__says_the_least_the_most_and_the_margin_that_a_test_set_usually_allows(
        study_file: Callable[..., Path]) -> None:
    shown = io.StringIO()
    Terminal(file=shown, width=300).print(estimate(load_study(study_file())).rich())
    said = shown.getvalue()
    assert "12 runs at first, about " in said and f"at most {4 * MOST}, about " in said
    assert "equal are techniques that differ by less than 2 points" in said
    assert "equality can usually be shown within" in said


def test_two_data_sets__have_a_family_and_verdicts_each(
        study_file: Callable[..., Path], tmp_path: Path) -> None:
    path = study_file()
    data = load_study(path).cells[0].data["init_args"]["train"]
    entry = {"class_path": "TextClassification", "init_args": {"train": data, "batch_size": 8}}
    path = study_file(datasets={name: {**entry, "init_args": {**entry["init_args"], "max_length": length}}
                                for name, length in (("short", 16), ("long", 32))})
    shown = run(path, tmp_path, ScriptedEngine(play, slots=1))
    for name in ("short", "long"):
        assert f"{name} from bert: full is better than probe by" in shown
    results = read(load_study(path), Tracker(store(tmp_path))).directed().compared()
    kinds = [[pair.verdict.kind for pair in comparison.questions.values() if pair.verdict]
             for comparison in results.comparisons]
    assert kinds == [[verdict.kind for verdict in EXPECTED.verdicts.values()]] * 2


@pytest.mark.parametrize("kind, last, examples, more, said", [
    ("different", False, None, None, "a is better than b by 3 points (5 seeds)"),
    ("equal", False, None, None, "a equals b within 2 points (5 seeds, 3 points apart)"),
    ("undecidable", False, 9000, None, "undecidable on this test set of 400 examples"),
    ("undecided", False, None, 7, "about 7 more seeds would be expected to tell"),
    ("undecided", False, None, None, "no number of seeds is expected to tell"),
    ("undecided", True, None, 7, "had they been planned, which claims nothing"),
])
def test_verdicts__in_words(kind: Any, last: bool, examples: int | None, more: int | None, said: str
                            ) -> None:
    found = Evidence(0.03, 1e-4, 1e-5, 8.0, 5, 400, "t test")
    verdict = Verdict(kind, found, 0.02, more_seeds=more, examples=examples, last=last)
    assert said in words(("a", "b"), verdict, "test/accuracy", True)
    assert ("worse" in words(("a", "b"), verdict, "test/wer", False)) is (kind == "different")
