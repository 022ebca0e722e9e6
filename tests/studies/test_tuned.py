"""What a tuned study says of its search, and settings by seed."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftlab.errors import InputError
from ftlab.reports.sentences import tuning
from ftlab.studies.plan import plan
from ftlab.studies.seeds import DRAWS, Seeds, UntilDecided
from ftlab.studies.study import Study, load_study
from ftlab.studies.study_snapshot import record, settings
from ftlab.studies.tuned import Tuned, check_tuned
from ftlab.studies.yaml_file import Place

TWO = {"3": {"init_args": {"lr": 0.5}}, "4": {}}
PLACE = Place("study.yaml")


def load(folder: Path, techniques: dict[str, Any] | None = None, **keys: Any) -> Study:
    data = {"class_path": "TextClassification", "init_args": {"train": "reviews.csv"}}
    (folder / "study.yaml").write_text(yaml.safe_dump({
        "name": "small", "backbones": {"bert": {"class_path": "HuggingFace", "init_args": {"source": "nowhere"}}},
        "datasets": {"reviews": data, "news": {**data, "init_args": {"train": "news.csv"}}},
        "techniques": techniques or {"probe": {"class_path": "LinearProbe", "init_args": {"lr": 0.1}}},
        "seeds": [3, 4], **keys}, sort_keys=False))
    return load_study(folder / "study.yaml")


def probe(**keys: Any) -> dict[str, Any]:
    return {"probe": {"class_path": "LinearProbe", "init_args": {"lr": 0.1}, **keys}}


def rates(study: Study) -> dict[tuple[str, int], float]:
    return {(cell.key.dataset, seed): study.specification(cell, seed)["technique"]["init_args"]["lr"]
            for cell in study.cells for seed in study.seeds}


# By seed

def test_by_seed__each_seed_runs_its_own_settings(tmp_path: Path) -> None:
    study = load(tmp_path, probe(by_seed=TWO))
    assert rates(study) == {(d, s): {3: 0.5, 4: 0.1}[s] for d in ("reviews", "news") for s in (3, 4)}
    assert [len(cell.single) for cell in study.cells] == [2, 2]


def test_by_seed__lies_upon_on(tmp_path: Path) -> None:
    study = load(tmp_path, probe(
        on={"news from bert": {"lr": 0.2}},
        by_seed={"3": {"init_args": {"lr": 0.5}}, "4": {"on": {"reviews from bert": {"lr": 0.7}}}}))
    assert rates(study) == {("reviews", 3): 0.5, ("news", 3): 0.2, ("reviews", 4): 0.7, ("news", 4): 0.2}


def test_by_seed__is_all_in_the_hash_and_tuned_is_not(tmp_path: Path) -> None:
    plain = load(tmp_path)
    assert load(tmp_path, tuned={"trials": 12}).cells == plain.cells
    hashes = {load(tmp_path, probe(by_seed=by)).cells[0].key.config for by in (
        None, TWO, {"3": {"init_args": {"lr": 0.6}}, "4": {}}, {"3": {}, "4": {"init_args": {"lr": 0.5}}})}
    assert len(hashes) == 4 and plain.cells[0].key.config in hashes


def test_by_seed__a_recorded_study_reads_back(tmp_path: Path) -> None:
    study = load(tmp_path, probe(by_seed={"3": {"init_args": {"lr": 0.5}}, "4": {
        "on": {"news from bert": {"lr": 0.7}}}}), tuned={"trials": 12, "searches": 2, "seeds": [0, 1]})
    (tmp_path / "recorded.yaml").write_text(record(study))
    again = load_study(tmp_path / "recorded.yaml")
    assert [cell.key for cell in again.cells] == [cell.key for cell in study.cells]
    assert (again.tuned, rates(again)) == (study.tuned, rates(study))
    assert "tuned" not in settings(yaml.safe_load(record(study)))


def test_by_seed__every_setting_is_checked_before_anything_runs(
    tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    parts = {
        "backbones": {"bert": {"class_path": "HuggingFace", "init_args": {
            "source": str(tiny_bert), "pooling": "mean"}}},
        "datasets": {"reviews": {"class_path": "TextClassification", "init_args": {
            "train": str(reviews), "max_length": 32}}}}

    def lora(**keys: Any) -> dict[str, Any]:
        return {"lora": {"class_path": "LoRA", "init_args": {"rank": 4}, **keys}}

    wrong = lora(by_seed={"3": {"init_args": {"rank": 2}}, "4": {"init_args": {"targets": ["nowhere"]}}})
    with pytest.raises(InputError, match="nowhere"):
        plan(load(tmp_path, wrong, **parts))
    right = lora(by_seed={"3": {"init_args": {"rank": 2}}, "4": {"init_args": {"rank": 8}}})
    (planned,) = plan(load(tmp_path, right, **parts)).cells
    (two,) = plan(load(tmp_path, lora(init_args={"rank": 2}), **parts)).cells
    assert planned.trainable == two.trainable, "of the first seed"


@pytest.mark.parametrize(("techniques", "what"), [
    (probe(by_seed={"3": {"init_args": {"lr": 0.5}}}), "seeds: probe has no settings by_seed for seed 4"),
    (probe(by_seed={"x": {}}), "techniques.probe.by_seed.x: 'x' is no seed"),
    (probe(by_seed={"3": {"lr": 0.5}, "4": {}}), "by_seed.3.lr: unknown key"),
    (probe(by_seed={"3": {"init_args": {"rate": 1}}, "4": {}}), "LinearProbe has no argument 'rate'"),
    (probe(by_seed={"3": {"on": {"films from bert": {}}}, "4": {}}), "the study has no such pair"),
    (probe(by_seed=[1]), "by_seed: expected a mapping"),
    (probe(by_seed={"3": 0.5, "4": {}}), "by_seed.3: expected a mapping"),
])
def test_by_seed__refuses(tmp_path: Path, techniques: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=re.escape(what)) as caught:
        load(tmp_path, techniques)
    assert caught.value.mend and "\n" not in caught.value.what


# Tuned

@pytest.mark.parametrize(("written", "what"), [
    (12, "tuned: expected a mapping, got 12"),
    ({"trails": 12}, "tuned.trails: unknown key"),
    ({}, "tuned.trials: expected a whole number above 0, got None"),
    ({"trials": 0}, "tuned.trials: expected a whole number above 0, got 0"),
    ({"trials": True}, "tuned.trials: expected a whole number above 0, got True"),
    ({"trials": 12, "searches": "3"}, "tuned.searches: expected a whole number above 0, got 3"),
    ({"trials": 12, "seeds": [0, -1]}, "tuned.seeds: expected a list of whole numbers"),
    ({"trials": 12, "seeds": 0}, "tuned.seeds: expected a list of whole numbers, got 0"),
])
def test_tuned__refuses(tmp_path: Path, written: Any, what: str) -> None:
    with pytest.raises(InputError, match=re.escape(what)) as caught:
        load(tmp_path, tuned=written)
    assert caught.value.what.startswith(str(tmp_path / "study.yaml"))
    assert caught.value.mend and "\n" not in caught.value.mend


def test_tuned__old_files_load_without(tmp_path: Path) -> None:
    assert load(tmp_path).tuned is None
    assert load(tmp_path, tuned={"trials": 12}).tuned == Tuned(12, 1, ())


def test_until_decided__is_refused_of_one_search() -> None:
    until, listed = Seeds((0, 1, 2, 3, 4), UntilDecided(2.0, 3, tuple(range(5)))), Seeds((0, 1))
    with pytest.raises(InputError, match="one search found the settings") as caught:
        check_tuned({"trials": 12}, until, PLACE)
    assert "searches: 3 in the sweep" in caught.value.mend
    with pytest.raises(InputError, match="most: 5 seeds, but 3 searches") as caught:
        check_tuned({"trials": 12, "searches": 3}, until, PLACE)
    assert caught.value.mend.startswith("most: 3")
    assert check_tuned({"trials": 12, "searches": 5}, until, PLACE) == Tuned(12, 5)
    assert check_tuned({"trials": 12}, listed, PLACE) == Tuned(12)
    assert check_tuned({"trials": 12}, replace(listed, of=DRAWS), PLACE) == Tuned(12, splits=True)
    assert check_tuned(None, until, PLACE) is None


def test_until_decided__is_refused_by_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one search found the settings"):
        load(tmp_path, seeds={"until": "decided", "margin": 2.0}, techniques={
            **probe(), "lora": "LoRA"}, tuned={"trials": 12})


# The note

def test_tuning__says_of_what_the_claim_is() -> None:
    assert tuning(None, [0]) == ""
    one = tuning(Tuned(12, 1, (0,)), [1, 2])
    assert one == ("These settings, each the best of 12 trials on one validation split; not what another "
                   "search would find.")
    assert tuning(Tuned(12, 1, (0,)), [0, 1]).endswith(
        "Seed 0 chose them too, and keeps the luck of the choice: take seeds that the search did not use.")
    three = tuning(Tuned(12, 3, (0, 1, 2)), [3, 4, 5])
    assert three.startswith("n = 3 searches, each of 12 trials, its winner tested with one fresh seed")
    assert "same validation split" in three
    assert tuning(Tuned(12, 3, (0, 1, 2), True), [3]).endswith("Each chose on a validation split of its own.")
    drawn = check_tuned({"trials": 12, "searches": 3}, Seeds((3, 4, 5), None, ("training", "split")), PLACE)
    assert drawn is not None and drawn.splits
