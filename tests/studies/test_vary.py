"""`vary`: an entry for each level of a value, and what is made of the levels afterwards."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ftlab.errors import InputError
from ftlab.reports.levels import curves
from ftlab.reports.study_results import read
from ftlab.statistics.sample_efficiency import area, needed
from ftlab.studies.study import Study, load_study
from ftlab.studies.study_snapshot import record
from ftlab.tracking.tracker import Tracker

UNRENDERED = True
Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def study(tmp_path: Path, tiny_bert: Path, reviews: Path) -> Callable[..., Path]:
    def make(vary: Any = None, **keys: Any) -> Path:
        data = {
            "name": "few", "question": "How many?",
            "backbones": {"bert": {"class_path": "HuggingFace", "init_args": {"source": str(tiny_bert)}}},
            "datasets": {
                "films": {"class_path": "TextClassification", "init_args": {
                    "train": str(reviews), "max_length": 16, "subset": {"splits": ["train", "validation"]}}},
                "more": {"class_path": "TextClassification", "init_args": {
                    "train": str(reviews), "max_length": 12}}},
            "techniques": {"probe": {"class_path": "LinearProbe", "init_args": {"solver": None}},
                           "bitfit": "BitFit"},
            "seeds": [0, 1], "trainer": {"max_epochs": 1}, **keys}
        if vary is not None:
            data["vary"] = vary
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return path

    return make


SHOTS = "datasets.films.init_args.subset.shots"
DRAWS = "datasets.films.init_args.subset.seed"


def keys_of(loaded: Study) -> set[tuple[str, str]]:
    return {(cell.key.dataset, cell.key.technique) for cell in loaded.cells}


def test_entries__are_made_for_each_combination(study: Callable[..., Path]) -> None:
    loaded = load_study(study({SHOTS: [1, 4, None], DRAWS: [0, 7]}))
    names = [f"films.shots-{shots}.seed-{seed}" for shots in (1, 4) for seed in (0, 7)]
    names.append("films.shots-all.seed-0")  # of which every draw is the same
    assert keys_of(loaded) == {(d, t) for d in [*names, "more"] for t in ("probe", "bitfit")}
    subsets = {cell.key.dataset: cell.data["init_args"]["subset"] for cell in loaded.cells}
    assert subsets["films.shots-4.seed-7"] == {**subsets["films.shots-all.seed-0"], "shots": 4, "seed": 7}
    assert loaded.groups == {"films.shots-1": (names[0], names[1]), "films.shots-4": (names[2], names[3]),
                             "films.shots-all": (names[4],), "more": ("more",)}


def test_cells__are_those_written_by_hand(study: Callable[..., Path]) -> None:
    """The same hashes, so that what a study ran before is found again."""
    varied = {cell.key.config for cell in load_study(study({SHOTS: [2, None]})).cells}
    plain = load_study(study())
    by_hand = load_study(study(), [f"{SHOTS}=2"])
    assert varied == {cell.key.config for one in (plain, by_hand) for cell in one.cells}


def test_any_axis__and_names_of_ones_own(study: Callable[..., Path]) -> None:
    loaded = load_study(study({"techniques.bitfit.init_args.lr": {"slow": 1e-4, "fast": 1e-2},
                               "backbones.bert.init_args.pooling": ["mean", "first"]}))
    assert {cell.key.technique for cell in loaded.cells} == {"probe", "bitfit.lr-slow", "bitfit.lr-fast"}
    assert {cell.key.backbone for cell in loaded.cells} == {"bert.pooling-mean", "bert.pooling-first"}
    assert loaded.levels["techniques"]["bitfit.lr-fast"].values == {"lr": 1e-2}


def test_groups__name_the_entry_that_varies(study: Callable[..., Path]) -> None:
    loaded = load_study(study({SHOTS: [1, 2]}, groups={"few": ["films"], "many": ["more"]}))
    assert loaded.groups == {"few": ("films.shots-1", "films.shots-2"), "many": ("more",)}


def test_recorded_study__has_the_same_cells_and_levels(study: Callable[..., Path], tmp_path: Path) -> None:
    loaded = load_study(study({SHOTS: [1, None], DRAWS: [0, 1]}))
    (tmp_path / "again.yaml").write_text(record(loaded))
    again = load_study(tmp_path / "again.yaml")
    assert [cell.key for cell in again.cells] == [cell.key for cell in loaded.cells]
    assert (again.levels, again.groups) == (loaded.levels, loaded.groups)


@pytest.mark.parametrize(("vary", "what", "mend"), [
    ({"datasets.film.init_args.subset.shots": [1]}, "datasets has no entry of that name", "films"),
    ({"data.films.init_args.subset.shots": [1]}, "no value of an entry", "datasets"),
    ({"datasets.films": [1]}, "names an entry, and none of its values", "init_args"),
    ({SHOTS: []}, "expected a list of values", "[1, 2, 4]"),
    ({SHOTS: 3}, "expected a list of values", "[1, 2, 4]"),
    ({SHOTS: [1, 1]}, "a value stands twice", "once"),
    ({"datasets.films.init_args.train": ["a b.csv"]}, "cannot be part of a name", "few: 1"),
    ({}, "expected paths", "subset.shots"),
    ({"datasets.films.init_args.subset.shotz": [1]}, "shotz", ""),
    ({SHOTS: [0]}, "shots must be at least 1", ""),
    ({SHOTS: list(range(1, 2000))}, "more than 1,000 levels", "fewer"),
])
def test_wrong__is_refused(study: Callable[..., Path], vary: Any, what: str, mend: str) -> None:
    with pytest.raises(InputError) as caught:
        load_study(study(vary))
    assert what in caught.value.what and mend in caught.value.mend
    assert "\n" not in caught.value.what


def test_override__of_what_varies_is_refused_and_of_its_levels_taken(study: Callable[..., Path]) -> None:
    path = study({SHOTS: [1, 2]})
    with pytest.raises(InputError, match="the study varies it"):
        load_study(path, [f"{SHOTS}=null"])
    loaded = load_study(path, [f"vary.{SHOTS}=[3]"])
    assert {cell.key.dataset for cell in loaded.cells} == {"films.shots-3", "more"}


def test_only__takes_all_levels_of_a_technique(study: Callable[..., Path]) -> None:
    loaded = load_study(study({"techniques.bitfit.init_args.lr": [1e-4, 1e-2]})).only(["bitfit"])
    assert {cell.key.technique for cell in loaded.cells} == {"bitfit.lr-0.0001", "bitfit.lr-0.01"}


def test_recorded_part__has_the_levels_of_its_entries(study: Callable[..., Path], tmp_path: Path) -> None:
    loaded = load_study(study({"techniques.bitfit.init_args.lr": [1e-4, 1e-2]})).only(["probe"])
    (tmp_path / "part.yaml").write_text(record(loaded))
    assert load_study(tmp_path / "part.yaml").levels == {}


def test_near_levels__are_not_the_same(study: Callable[..., Path]) -> None:
    loaded = load_study(study({"techniques.bitfit.init_args.lr": [0.0012345678, 0.0012345679]}))
    assert len(loaded.cells) == 2 * 3


def test_level_without_a_draw__is_left_out(study: Callable[..., Path], here: Here) -> None:
    path = study({SHOTS: [1, 2, 4], DRAWS: [0, 1]}, seeds=[0])
    only = ("--only", "probe")
    assert here("run", path, *only, "--set", f"vary.{SHOTS}=[1, 2]")[0] == 0
    assert here("run", path, *only, "--set", f"vary.{SHOTS}=[4]", "--set", f"vary.{DRAWS}=[0]")[0] == 0
    tracker = Tracker("sqlite:///mlflow.db")
    found = curves(read(load_study(path), tracker).directed().compared())
    tracker.close()
    assert [curve.at for curve in found if any(curve.means)] == [(2, 4)]


def test_check__says_what_is_wrong_in_two_lines(study: Callable[..., Path], here: Here) -> None:
    code, _, errors = here("check", study({"datasets.films.init_args.subset.shotz": [1]}))
    assert code == 2 and len(errors.strip().splitlines()) == 2, errors


def test_sweep__over_techniques_that_vary_is_refused(study: Callable[..., Path], here: Here) -> None:
    path = study({"techniques.bitfit.init_args.lr": [1e-4, 1e-2]})
    (path.parent / "sweep.yaml").write_text("study: study.yaml\ntrials: 2\n")
    code, _, errors = here("check", path.parent / "sweep.yaml")
    assert code == 2 and "values of its techniques vary" in errors


def test_run__curves_are_of_the_stored_scores(study: Callable[..., Path], here: Here) -> None:
    path = study({SHOTS: [1, 8], DRAWS: [0, 1]}, trainer={"max_epochs": 1, "min_steps": 4})
    code, output, errors = here("run", path)
    assert code == 0, errors
    runs = list(csv.DictReader(Path("results/few/runs.csv").read_text().splitlines()))
    assert len(runs) == 2 * 2 * 5

    def score(technique: str, shots: int) -> float:
        values = [float(run["test/accuracy"]) for run in runs
                  if run["technique"] == technique and run["dataset"].startswith(f"films.shots-{shots}.")]
        assert len(values) == 4
        return sum(values) / 4

    tracker = Tracker("sqlite:///mlflow.db")
    found = {curve.name: curve for curve in curves(read(load_study(path), tracker).directed().compared())}
    tracker.close()
    assert list(found) == ["probe", "bitfit"]
    for name, curve in found.items():
        assert curve.panel == ("bert", "films", "training examples")
        assert curve.at == (2, 16) and curve.draws == 2 and all(s.n == 2 for s in curve.scores)
        assert curve.means == pytest.approx([score(name, shots) for shots in (1, 8)])
    rows = {row["curve"]: row for row in csv.DictReader(
        Path("results/few/figures/examples_needed.csv").read_text().splitlines())}
    for name, curve in found.items():
        assert float(rows[name]["area"]) == pytest.approx(area(curve.at, curve.means))
        for other in found.values():
            wanted = needed(curve.at, curve.means, other.means[-1])
            assert float(rows[name][f"for {other.name}"]) == pytest.approx(wanted)
    assert "From 2 to 16 training examples of films" in " ".join(output.split())
    assert "Mean ranks" not in output, "levels of one data set are no data sets"
    assert not Path("results/few/figures/critical_difference.png").exists()


def test_levels_of_a_technique__are_a_curve(study: Callable[..., Path], here: Here) -> None:
    path = study({"techniques.bitfit.init_args.lr": [1e-4, 1e-3, 1e-2]}, seeds=[0])
    assert here("run", path)[0] == 0
    rows = list(csv.DictReader(Path("results/few/figures/levels.csv").read_text().splitlines()))
    assert [(row["dataset"], row["over"], row["curve"], float(row["at"])) for row in rows] == [
        (data, "lr", "bitfit", lr) for data in ("films", "more") for lr in (1e-4, 1e-3, 1e-2)]


def test_few_that_many_choose_for__are_noted(study: Callable[..., Path], here: Here) -> None:
    path = study({"datasets.more.init_args.subset.shots": [2]})
    code, output, errors = here("check", path)
    assert code == 0 and "12 validation examples choose for 4 that train" in " ".join((output + errors).split())


@pytest.mark.parametrize("plain", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_min_steps__give_more_epochs_to_few_examples(
    study: Callable[..., Path], here: Here, plain: bool
) -> None:
    path = study({SHOTS: [2, None]}, trainer={"max_epochs": 2, "min_steps": 7}, seeds=[0])
    code, _, errors = here("run", path, *(["--plain"] * plain))
    assert code == 0, errors
    tracker = Tracker("sqlite:///mlflow.db")
    results = read(load_study(path), tracker).directed()
    # 4 texts are a batch; 84 are three of 32
    wanted = {"films.shots-2": 7, "films.shots-all": 3, "more": 3}
    for key in results.keys:
        (run,) = results.runs(key)
        epochs = [value for _, value in results.history(run, "epoch")]
        assert max(epochs) == wanted[key.dataset], key.title
    tracker.close()
