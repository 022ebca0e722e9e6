"""A sweep file, checked before anything is begun; every sampler and pruner of Optuna at work."""

import logging
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from ftlab.errors import InputError
from ftlab.sweeps.check_sampler import rehearse
from ftlab.sweeps.progress import Direction
from ftlab.sweeps.storage import Storage
from ftlab.sweeps.sweep import Sweep, load_sweep
from ftlab.sweeps.trial_queue import TrialQueue

Load = Callable[..., Sweep]
CHOICES = {"lora": {"lr": {"choices": [1e-3, 2e-3]}, "rank": {"choices": [4, 8]}}}
NUMBERS = {"lora": {"lr": {"low": 1e-4, "high": 1e-2, "log": True}, "rank": {"low": 2, "high": 32}}}


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """A sweep of one cell: `load(trials=3)`, `load(study={"seeds": [1]})`."""

    def run(study: dict[str, Any] | None = None, **keys: Any) -> Sweep:
        backbone = {"class_path": "HuggingFace", "init_args": {"source": "nowhere"}}
        data = {"class_path": "TextClassification", "init_args": {"train": "reviews.csv"}}
        (tmp_path / "study.yaml").write_text(yaml.safe_dump({
            "name": "small", "backbones": {"bert": backbone}, "datasets": {"reviews": data},
            "techniques": {"lora": "LoRA"}, "trainer": {"max_epochs": 4}, **(study or {})}))
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({"study": str(tmp_path / "study.yaml"), **keys}))
        return load_sweep(path)

    return run


def named(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": arguments}


# What a file says

def test_load__fills_in_what_is_left_out(load: Load) -> None:
    sweep = load()
    assert (sweep.name, sweep.trials, sweep.seeds) == ("sweep", 16, (0,))
    assert (sweep.objectives, sweep.storage, sweep.max_seconds) == (
        ("val/accuracy",), "optuna.journal", None)


def test_digest__changes_with_all_that_makes_trials_comparable(load: Load) -> None:
    digests = [load().digest]
    assert load(trials=99, max_seconds=5, storage="other.journal").digest == digests[0]
    for changed in (
        {"study": {"name": "other"}}, {"study": {"trainer": {"max_epochs": 5}}}, {"seeds": [1]},
        {"objective": "val/loss"}, {"spaces": NUMBERS}, {"spaces": {"lora": {"lr": None}}},
        {"sampler": "Random"}, {"sampler": named("Random", seed=1)}, {"pruner": "Median"},
    ):
        digests.append(load(**changed).digest)
    digests.append(load().on(["another file"]).digest)
    assert len(set(digests)) == len(digests)


def test_load__a_storage_of_nothing_is_no_file_called_none(load: Load) -> None:
    with pytest.raises(InputError, match="expected a file or an address, got None"):
        load(storage=None)


def test_space__holds_what_a_technique_says_on_other_pairs(load: Load) -> None:
    more = {"class_path": "HuggingFace", "init_args": {"source": "elsewhere"}}
    one = {"class_path": "HuggingFace", "init_args": {"source": "nowhere"}}
    sweep = load(study={
        "backbones": {"one": one, "more": more},
        "techniques": {"lora": {"class_path": "LoRA", "on": {"reviews from more": {"rank": 99}}}}})
    assert sweep.spaces["lora"]["rank"].choices == (4, 8, 16, 32, 99)


# Samplers

SAMPLERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "nothing said": (None, NUMBERS),
    "TPE": ("TPE", NUMBERS),
    "in full": (named("TPESampler", n_startup_trials=3, group=True, multivariate=True), NUMBERS),
    "Random": ("Random", NUMBERS),
    "GP": (named("GP", n_startup_trials=3), NUMBERS),
    "QMC": ("QMC", NUMBERS),
    "scrambled QMC": (named("QMC", scramble=True, qmc_type="halton"), NUMBERS),
    "NSGAII": (named("NSGAII", population_size=4), NUMBERS),
    "NSGAIII": (named("NSGAIII", population_size=4), NUMBERS),
    "BruteForce": ("BruteForce", CHOICES),
    "nested": (named("GP", independent_sampler="Random", n_startup_trials=3), CHOICES),
}
BETTER: list[Direction] = ["maximize"]


@pytest.mark.parametrize("which", SAMPLERS)
def test_sampler__works_by_its_short_name(which: str, load: Load, tmp_path: Path) -> None:
    sampler, spaces = SAMPLERS[which]
    sweep = load(sampler=sampler, spaces=spaces, trials=14)
    rehearse(sweep, BETTER)
    drawn = search(sweep, tmp_path / "a", score=lambda values: -abs(values["lr"] - 3e-3))
    assert len(drawn) == sweep.trials_of(sweep.study.cells[0])
    assert drawn[0] == {"lr": 1e-3, "rank": 8}, "the study's own setting first"
    if "NSGA" not in which and which != "nested":  # children may be twins, and four points few
        assert len({tuple(values.items()) for values in drawn}) == len(drawn)
    # asked again, anywhere, the same
    assert search(sweep, tmp_path / "b", score=lambda values: -abs(values["lr"] - 3e-3)) == drawn


def search(sweep: Sweep, journal: Path, score: Callable[[dict[str, Any]], float]) -> list[dict]:
    """All trials of a sweep without a run: their values, by number."""
    board, found = TrialQueue(sweep, Storage(str(journal)), BETTER), []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        while held := board.take():
            found.append(held.values)
            assert board.complete(held, [score(held.values)])
    assert board.over()
    return found


def test_sampler__a_seed_said_gives_other_draws_and_not_the_same_in_all_trials(
    load: Load, tmp_path: Path
) -> None:
    found = [search(load(sampler=named("Random", **more), trials=5, spaces=NUMBERS),
                    tmp_path / f"{more}", lambda values: 0.0) for more in ({}, {"seed": 7})]
    assert found[0][1:] != found[1][1:]
    for drawn in found:
        assert len({values["lr"] for values in drawn}) == 5


def test_qmc__is_one_low_discrepancy_sequence_over_all_trials(load: Load, tmp_path: Path) -> None:
    """Seeded anew for each trial a scrambled sequence would be no better than random numbers."""
    spaces = {"lora": {"lr": {"low": 1e-9, "high": 1.0}, "rank": None}}
    sweep = load(sampler=named("QMC", scramble=True), trials=1 + 16, spaces=spaces)
    drawn = search(sweep, tmp_path / "j", lambda values: 0.0)[1:]
    assert sorted(int(values["lr"] * 16) for values in drawn) == list(range(16))


def test_brute_force__has_as_many_trials_as_there_are_points(load: Load, tmp_path: Path) -> None:
    sweep = load(sampler="BruteForce", spaces=CHOICES, trials=99)
    assert sweep.trials_of(sweep.study.cells[0]) == 4
    assert load(sampler="BruteForce", spaces=CHOICES, trials=3).trials_of(sweep.study.cells[0]) == 3
    assert len(search(sweep, tmp_path / "j", lambda values: 0.0)) == 4


def test_several_objectives__give_a_front(load: Load, tmp_path: Path) -> None:
    sweep = load(sampler=named("NSGAII", population_size=4), spaces=NUMBERS, trials=12,
                 objective=["val/accuracy", "cost/trainable_parameters"])
    both: list[Direction] = ["maximize", "minimize"]
    rehearse(sweep, both)
    board = TrialQueue(sweep, Storage(str(tmp_path / "j")), both)
    while held := board.take():
        assert board.complete(held, [held.values["lr"], held.values["rank"]])
    assert all(len(trial.values) == 2 for trial in board.standing()[0].trials)


# Pruners

PRUNERS: dict[str, tuple[Any, list[int]]] = {
    "Nop": ("Nop", [0]),
    "Median": (named("Median", n_startup_trials=2), [0]),
    "Percentile": (named("Percentile", percentile=50.0, n_startup_trials=2), [0]),
    "SuccessiveHalving": (named("SuccessiveHalving", reduction_factor=2), [0]),
    "Hyperband": (named("Hyperband", max_resource=4, reduction_factor=2), [0]),
    "Patient": (named("Patient", patience=0,
                      wrapped_pruner=named("Median", n_startup_trials=2)), [0]),
    "Threshold": (named("Threshold", lower=0.3), [0]),
    "Wilcoxon": ("Wilcoxon", [0, 1, 2, 3, 4]),
}


@pytest.mark.parametrize("which", PRUNERS)
def test_pruner__stops_bad_trials_by_its_short_name(which: str, load: Load, tmp_path: Path) -> None:
    pruner, seeds = PRUNERS[which]
    sweep = load(pruner=pruner, seeds=seeds, trials=30, sampler="Random", spaces=NUMBERS)
    rehearse(sweep, BETTER)
    board, draw = TrialQueue(sweep, Storage(str(tmp_path / "j")), BETTER), random.Random(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        while held := board.take():
            level = draw.random()
            for step in range(1, 6):
                # bad ones fall from epoch to epoch, which Patient waits for
                if board.report(held, step, level - (0.01 * step if level < 0.5 else 0.0)):
                    assert board.prune(held)
                    break
            else:
                assert board.complete(held, [level])
    (standing,) = board.standing()
    pruned = [trial for trial in standing.trials if trial.state == TrialState.PRUNED]
    assert standing.ended == 30
    assert bool(pruned) == (which != "Nop")
    if pruned:
        best = standing.best("maximize")
        assert best is not None
        assert all(trial.values[0] < best.values[0] for trial in pruned)
        assert all(trial.values[0] == trial.intermediate_values[trial.last_step] for trial in pruned)


# What is refused

EPOCH = {"trainer": {"max_epochs": 1}}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"trails": 3}, "did you mean 'trials'"),
    "no study": ({"study_": 1, "study": None}, "unknown key"),
    "no trial": ({"trials": 0}, "a whole number above 0, got 0"),
    "half a trial": ({"trials": 1.5}, "a whole number above 0, got 1.5"),
    "a true trial": ({"trials": True}, "a whole number above 0, got True"),
    "no time": ({"max_seconds": 0}, "a number above 0, got 0"),
    "endless time": ({"max_seconds": float("inf")}, "a finite number, got .inf"),
    "no number of seconds": ({"max_seconds": float("nan")}, "a finite number, got .nan"),
    "seeds": ({"seeds": 3}, "a list of whole numbers, got 3"),
    "no seed": ({"seeds": []}, "a list of whole numbers"),
    "a name": ({"name": "a/b"}, "is not a name"),
    "objective of test": ({"objective": "test/accuracy"}, "cannot be an objective"),
    "objective unknown": ({"objective": "cost/joules"}, "cannot be an objective"),
    "objective twice": ({"objective": ["val/loss", "val/loss"]}, "a list of different ones"),
    "no objective": ({"objective": []}, "a list of different ones"),
    "a storage": ({"storage": 5}, "a file or an address, got 5"),
    "spaces": ({"spaces": []}, "expected a mapping of techniques"),
    "space of none": ({"spaces": {"lorra": {}}}, "no technique 'lorra'"),
    "space": ({"spaces": {"lora": None}}, "expected a mapping of hyperparameters"),
    "sampler": ({"sampler": "Ransom"}, "no sampler called 'Ransom'"),
    "sampler argument": ({"sampler": named("Random", sede=3)}, "no argument 'sede'"),
    "sampler value": ({"sampler": named("GP", deterministic_objective=1, seed="x")}, "whole number"),
    "sampler list": ({"sampler": ["Random"]}, "expected a class of optuna.samplers"),
    "sampler arguments": ({"sampler": {"class_path": "Random", "init_args": [1]}}, "a mapping of"),
    "sampler key": ({"sampler": {"class_path": "Random", "args": {}}}, "expected a class"),
    "grid": ({"sampler": named("Grid", search_space={})}, "BruteForce visits every point"),
    "partly fixed": ({"sampler": "PartialFixed"}, "keeps the study's value"),
    "grid of a line": ({"sampler": "BruteForce"}, "lr of lora has infinitely many"),
    "pruner": ({"pruner": "Medium"}, "did you mean 'Median'"),
    "pruner argument": ({"pruner": named("Median", n_startup=3)}, "no argument 'n_startup'"),
    "pruner value": ({"pruner": named("Percentile", percentile=200.0)}, "Percentile"),
    "pruner lacks": ({"pruner": "Percentile"}, "percentile"),
    "pruner number": ({"pruner": {"class_path": "Median", "init_args": {3: 4}}}, "no argument"),
    "nested pruner": ({"pruner": named("Patient", wrapped_pruner="Medium", patience=1)}, "Median"),
    "pruner of several": (
        {"pruner": "Median", "objective": ["val/accuracy", "val/loss"]}, "several objectives"),
    "pruner of a cost": (
        {"pruner": "Median", "objective": "cost/train_seconds"}, "known only at a trial's end"),
    "pruner of an epoch": ({"pruner": "Median", "study": EPOCH}, "no validation before its last"),
    "seeds of one": ({"pruner": "Wilcoxon"}, "of 1 it can save none"),
    "seeds too few": ({"pruner": "Wilcoxon", "seeds": [0, 1, 2, 3]}, "of 4 it can save none"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_load__refuses_in_one_line(case: str, load: Load) -> None:
    keys, said = REFUSED[case]
    with pytest.raises(InputError) as caught:
        load(**keys)
    what, mend = caught.value.what, caught.value.mend
    assert said in f"{what} {mend}"
    assert what
    assert mend
    assert "\n" not in what + mend


LATE: dict[str, tuple[Any, list[Direction], str]] = {
    "a package is missing": ("CmaEs", BETTER, "pip install cmaes"),
    "an argument is of no use": (named("TPE", n_ei_candidates=0), BETTER, "TPESampler"),
}


@pytest.mark.parametrize("case", LATE)
def test_rehearse__finds_what_only_work_shows(
    case: str, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    sampler, better, said = LATE[case]
    with caplog.at_level(logging.INFO), pytest.raises(InputError) as caught:
        rehearse(load(spaces=NUMBERS, sampler=sampler), better)
    assert said in f"{caught.value.what} {caught.value.mend}"
    assert "\n" not in caught.value.what
    assert not caplog.records


def test_rehearse__leaves_optuna_s_voice_as_it_was(load: Load) -> None:
    before = optuna.logging.get_verbosity()
    rehearse(load(), BETTER)
    assert optuna.logging.get_verbosity() == before
