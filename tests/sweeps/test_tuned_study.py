"""The tuned study: it loads, holds what the best trials had, and says how that was found."""

import os
import random
from dataclasses import replace

import pytest
import yaml
from optuna.trial import TrialState, create_trial

from ftlab.errors import InputError
from ftlab.studies.seeds import UntilDecided
from ftlab.studies.study import load_study
from ftlab.studies.tuned import Tuned
from ftlab.sweeps.progress import CellProgress
from ftlab.sweeps.search_space import own_values, put
from ftlab.sweeps.sweep import load_sweep
from ftlab.sweeps.tuned_study import _nested, _seeds, write_tuned

NESTED = {"class_path": "DiscriminativeLR", "init_args": {"technique": "LoRA", "decay": 0.9}}
STUDY = {
    "name": "small", "question": "Which?",
    "backbones": {"bert": {"class_path": "HuggingFace", "init_args": {"source": "nowhere"}}},
    "datasets": {"reviews": {"class_path": "TextClassification",
                             "init_args": {"train": "reviews.csv"}}},
    "techniques": {"probe": {"class_path": "LinearProbe", "init_args": {"solver": None}},
                   "lora": {"class_path": "LoRA", "init_args": {"rank": 4}},
                   "graded": NESTED},
    "seeds": [0, 1], "trainer": {"max_epochs": 3},
}
SPACES = {"graded": {"technique.rank": {"choices": [2, 4, 8, 16]},
                     "technique.optim.weight_decay": {"low": 0.0, "high": 0.1}}}


def load(folder, **keys):
    """A sweep of a study file, whose keys may be given otherwise."""
    study = {**STUDY, **keys}
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({
        "study": str(folder / "study.yaml"), "trials": 5, "sampler": "RandomSampler",
        "spaces": {name: space for name, space in SPACES.items() if name in study["techniques"]}}))
    return load_sweep(path)


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """Read once: constructors are the schema, and reading them takes a second."""
    return load(tmp_path_factory.mktemp("usual"))


@pytest.fixture
def sweep(usual, tmp_path):
    """The usual sweep, its study file in a folder of the test's own."""
    path = tmp_path / "study.yaml"
    path.write_bytes(usual.study_path.read_bytes())
    return replace(usual, study_path=path)


def spent(sweep, value):
    """Every cell's budget: `value(technique, dataset, number)` is what a trial gave, None a failure."""
    found = []
    draw = random.Random(0)
    for cell in sweep.study.cells:
        space = sweep.spaces[cell.key.technique]
        trials = []
        for number in range(sweep.trials_of(cell)):
            params = {name: draw.choice(d.choices) if hasattr(d, "choices") else
                      draw.uniform(d.low, d.high) for name, d in space.items()}
            params = params if number else own_values(cell.technique, space)
            gave = value(cell.key.technique, cell.key.dataset, number)
            trials.append(create_trial(
                params=params, distributions=space, value=gave,
                state=TrialState.FAIL if gave is None else TrialState.COMPLETE))
            trials[-1].number = number
        found.append(CellProgress(cell, sweep.trials_of(cell), trials))
    return found


def write(sweep, standings, direction="maximize"):
    path = write_tuned(sweep, standings, direction, "ftlab sweep sweep.yaml")
    return path, load_study(path)


def best_of(sweep, standings, direction="maximize"):
    """By cell title: the values that should stand in the tuned study."""
    found = {}
    for standing in standings:
        best = standing.best(direction)
        space = sweep.spaces[standing.cell.key.technique]
        own = own_values(standing.cell.technique, space)
        found[standing.cell.key.title] = own if best is None else {**own, **best.params}
    return found


def held_by(study, sweep):
    """By cell title: what the study says of the hyperparameters that were searched."""
    return {cell.key.title: own_values(cell.technique, sweep.spaces[cell.key.technique])
            for cell in study.cells}


def rising(technique, dataset, number):
    return number / 10


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_write_tuned__each_cell_has_the_best_trials_values(sweep, direction):
    standings = spent(sweep, lambda technique, dataset, number: (number + 2) * 37 % 11 / 11)
    path, study = write(sweep, standings, direction)
    assert held_by(study, sweep) == best_of(sweep, standings, direction)
    assert study.name == "small.tuned" and study.seeds == (1, 2), "the sweep used 0"
    assert path.name == "study.tuned.yaml"
    for cell, old in zip(study.cells, sweep.study.cells, strict=True):
        assert (cell.data, cell.backbone, cell.trainer) == (old.data, old.backbone, old.trainer)
        own = own_values(old.technique, sweep.spaces[old.key.technique])
        assert put(cell.technique, own) == old.technique, "what was not searched is as it was"


def test_write_tuned__the_same_trials_give_the_same_bytes(sweep):
    path, _ = write(sweep, spent(sweep, rising))
    first = path.read_bytes()
    write(sweep, spent(sweep, rising))
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir() if "tmp" in p.name] == []


def test_write_tuned__without_a_complete_trial_a_cell_keeps_its_own(sweep):
    path, study = write(sweep, spent(
        sweep, lambda technique, dataset, number: None if technique == "lora" else number / 10))
    (lora,) = [cell for cell in study.cells if cell.key.technique == "lora"]
    (own,) = [cell for cell in sweep.study.cells if cell.key.technique == "lora"]
    assert lora.technique == own.technique
    text = path.read_text()
    assert "lora on reviews from bert: own setting kept, no trial completed (5 failed)" in text
    assert yaml.safe_load(text)["techniques"]["lora"] == STUDY["techniques"]["lora"]


def test_write_tuned__without_any_trial_it_is_the_study_itself(sweep):
    path, study = write(sweep, [CellProgress(c, 5, []) for c in sweep.study.cells])
    assert [c.technique for c in study.cells] == [c.technique for c in sweep.study.cells]
    assert path.read_text().count("no trial completed (no trial)") == 3
    assert yaml.safe_load(path.read_text()) == {
        **STUDY, "name": "small.tuned", "seeds": [1, 2], "tuned": {"trials": 5, "searches": 1, "seeds": [0]}}
    assert study.tuned == Tuned(5, 1, (0,))


def test_write_tuned__header_says_how_it_was_found(sweep):
    path, _ = write(sweep, spent(sweep, lambda technique, dataset, number: {
        0: 0.5, 3: 0.75 if technique == "lora" else 0.5}.get(number, 0.1)))
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert header == [
        "# Written by: ftlab sweep sweep.yaml",
        "# From study.yaml, at most 5 trials a cell, each of 1 seed, sampler RandomSampler.",
        "# Taken of each cell: the trial with the highest val/accuracy.",
        "# Its score and what it gained are optimistic: of many noisy scores the highest has most luck",
        "# (in simulations with a noise of 3 points, the best of 12 lay 3 to 4 points above its truth).",
        "# The seeds below are none of the sweep's, with which that luck would come again.",
        "#   probe on reviews from bert: 0.5000 with the own setting, which no trial beat (5 complete)",
        "#   lora on reviews from bert: 0.7500 in trial 3, own setting 0.5000 (5 complete)",
        "#   graded on reviews from bert: 0.5000 with the own setting, which no trial beat (5 complete)",
    ]


def test_write_tuned__numbers_are_exact_and_no_longer_than_need_be(sweep):
    standings = spent(sweep, rising)
    for standing in standings:
        if standing.cell.key.technique == "probe":
            standing.trials[4].params["lr"] = 1e-05  # YAML reads 1e-05 as a text
    path, study = write(sweep, standings)
    text = path.read_text()
    (lora,) = [s for s in standings if s.cell.key.technique == "lora"]
    assert f"lr: {lora.trials[4].params['lr']!r}\n" in text
    assert held_by(study, sweep)["probe on reviews from bert"]["lr"] == 1e-05
    assert "!!" not in text, "plain values, no Python objects"


def test_write_tuned__several_pairs_stand_under_on(tmp_path):
    data = {"reviews": STUDY["datasets"]["reviews"], "news": {
        "class_path": "TextClassification", "init_args": {"train": "news.csv"}}}
    sweep = load(tmp_path, datasets=data)
    standings = spent(sweep, lambda technique, dataset, number: (
        number * (3 if dataset == "news" else 1) % 5) / 9)
    path, study = write(sweep, standings)
    wanted = best_of(sweep, standings)
    assert held_by(study, sweep) == wanted
    assert wanted["lora on news from bert"] != wanted["lora on reviews from bert"]
    said = yaml.safe_load(path.read_text())["techniques"]
    assert set(said["lora"]["on"]) == {"reviews from bert", "news from bert"}
    assert said["lora"]["init_args"] == {"rank": 4}
    assert said["probe"]["class_path"] == "LinearProbe"


def test_write_tuned__a_trainer_of_its_own_stays(tmp_path):
    sweep = load(tmp_path, techniques={
        "probe": {"class_path": "LinearProbe", "trainer": {"max_epochs": 9}}})
    _, study = write(sweep, spent(sweep, rising))
    assert study.cells[0].trainer["max_epochs"] == 9


def test_write_tuned__a_class_of_another_package_keeps_its_full_name():
    inner = {"class_path": "theirs.methods.Theirs", "init_args": {"rank": 1}}
    ours = {"class_path": "ftlab.techniques.lora.LoRA", "init_args": {"technique": inner}}
    assert _nested({"technique.rank": 2}, ours) == {
        "technique": {"class_path": "theirs.methods.Theirs", "init_args": {"rank": 2}}}


def test_write_tuned__a_long_name_is_still_a_name(sweep):
    long = replace(sweep, study=replace(sweep.study, name="s" * 80))
    _, study = write(long, spent(long, rising))
    assert study.name == "s" * 74 + ".tuned"


def test_write_tuned__a_folder_that_cannot_be_written_is_said(sweep, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left") as caught:
        write(sweep, spent(sweep, rising))
    assert "repeats no trial" in caught.value.mend
    assert not list(sweep.study_path.parent.glob(".*tmp"))


# Several searches

def search_again(sweep, value):
    """Every cell's budget in every search: `value(technique, dataset, number, search)`."""
    return [replace(standing, search=search.search) for search in sweep.each for standing in spent(
        search, lambda *names, which=search.search: value(*names, which))]


def test_write_tuned__each_search_has_a_fresh_seed(sweep):
    sweep = replace(sweep, searches=3)
    standings = search_again(sweep, lambda technique, dataset, number, search:
                             0.1 * (number == search) if technique == "lora" else number / 10)
    path, study = write(sweep, standings)
    assert study.seeds == (3, 4, 5), "0, 1 and 2 are the searches' own"
    assert study.tuned == Tuned(5, 3, (0, 1, 2))
    cells = {cell.key.technique: cell for cell in study.cells}
    for standing in standings:
        cell = cells[standing.cell.key.technique]
        best = standing.best("maximize")
        said = study.specification(cell, 3 + standing.search)
        space = sweep.spaces[cell.key.technique]
        own = own_values(standing.cell.technique, space)
        assert own_values(said["technique"], space) == {**own, **best.params}
        assert "by_seed" not in said and said["seed"] == 3 + standing.search
    text = path.read_text()
    assert "Searched 3 times on the same validation split" in text
    assert "#   lora on reviews from bert, search 1 (seed 3): 0.1000 with the own setting" in text
    assert "#   lora on reviews from bert, search 3 (seed 5): 0.1000 in trial 2, own setting 0.0000" in text
    assert yaml.safe_load(text)["techniques"]["lora"]["by_seed"][3] == {}
    with pytest.raises(InputError, match="probe has no settings by_seed for seed 0") as caught:
        study.with_seeds([0])
    assert "3, 4 and 5" in caught.value.mend
    assert study.with_seeds([4]).seeds == (4,)


def test_write_tuned__several_searches_of_several_pairs(tmp_path):
    data = {"reviews": STUDY["datasets"]["reviews"], "news": {
        "class_path": "TextClassification", "init_args": {"train": "news.csv"}}}
    sweep = replace(load(tmp_path, datasets=data), searches=2)
    standings = search_again(sweep, lambda technique, dataset, number, search: (
        (number + search) * (3 if dataset == "news" else 1) % 5) / 9)
    _, study = write(sweep, standings)
    cells = {cell.key.title: cell for cell in study.cells}
    found = set()
    for standing in standings:
        cell = cells[standing.cell.key.title]
        said = study.specification(cell, study.seeds[standing.search])["technique"]
        space = sweep.spaces[cell.key.technique]
        own = own_values(standing.cell.technique, space)
        assert own_values(said, space) == {**own, **standing.best("maximize").params}
        found.add((cell.key.technique, str(own_values(said, space))))
    assert len(found) > 6, "settings differ"


def test_seeds__of_a_mapping(sweep):
    until = {"until": "decided", "margin": 2.0, "first": 4, "most": 20}
    adding = replace(sweep, study=replace(sweep.study, until=UntilDecided(2.0, 4, tuple(range(20)))))
    assert _seeds(until, (1, 2, 3, 4, 5), adding) == [1, 2, 3, 4]
    assert _seeds(until, (2, 3), replace(adding, searches=2)) == [2, 3]
    of = {"of": ["training", "split"]}
    assert _seeds({**of, "list": [0, 1]}, (1, 2), sweep) == {"list": [1, 2], **of}
    assert _seeds({**until, **of}, (1, 2, 3, 4, 5), adding) == {"list": [1, 2, 3, 4], **of}


def test_overrides__reach_the_sweep_and_its_study_and_stand_in_the_tuned_study(tmp_path):
    load(tmp_path)
    given = ["trials=3", "spaces.lora.rank.choices=[3, 5]", "trainer.max_epochs=7", "techniques.lora.init_args.rank=3"]
    sweep = load_sweep(tmp_path / "sweep.yaml", overrides=given)
    assert sweep.trials == 3
    assert sweep.spaces["lora"]["rank"].choices == (3, 5)
    tuned = load_study(write_tuned(sweep, spent(sweep, lambda *_: None), "maximize", "x"))
    lora = next(cell for cell in tuned.cells if cell.key.technique == "lora")
    assert lora.trainer["max_epochs"] == 7
    assert lora.technique["init_args"]["rank"] == 3


def test_only__the_others_get_no_trials_and_the_sweep_stays_the_same(sweep):
    part = sweep.only(["lora"])
    assert part.digest == sweep.digest  # so that the whole sweep finds these trials
    assert [part.trials_of(cell) for cell in part.study.cells] == [
        sweep.trials_of(cell) if cell.key.technique == "lora" else 0 for cell in sweep.study.cells]
    with pytest.raises(InputError, match="lorra"):
        sweep.only(["lorra"])


def test_seeds__make_another_sweep(sweep):
    other = sweep.with_seeds([5, 6])
    assert other.seeds == (5, 6) and other.digest != sweep.digest
    with pytest.raises(InputError, match="twice"):
        sweep.with_seeds([5, 5])
