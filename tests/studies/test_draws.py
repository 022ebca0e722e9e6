"""Seeds that draw the split: other training examples in each, the same test examples in all."""

import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scripted import HereEngine, ScriptedEngine

from ftlab.data.base import DataModule
from ftlab.errors import InputError
from ftlab.exports.restore_run import restore_run
from ftlab.reports.study_report import report
from ftlab.reports.study_table import chosen_table, table
from ftlab.reproduction import reproduce
from ftlab.studies.adding_seeds import AddingSeeds
from ftlab.studies.components import build
from ftlab.studies.dry_run import estimate
from ftlab.studies.engine import Event
from ftlab.studies.plan import plan
from ftlab.studies.run_process import built
from ftlab.studies.runtime_estimate import foresee
from ftlab.studies.shared_process import seeds_together
from ftlab.studies.study import Study, load_study
from ftlab.sweeps.study_runs import run_study
from ftlab.tracking.cell_hash import cell_hash
from ftlab.tracking.records import RunRecord
from ftlab.tracking.tracker import Tracker
from ftlab.training.shared_fit import execute_together
from ftlab.training.shortcuts.prefix_cache import activation_files, prefix_source
from ftlab.training.shortcuts.prefix_cache.cache_estimate import Forecast

UNRENDERED = True
Write = Callable[..., Path]
OF = {"of": ["training", "split"], "list": [0, 1, 2]}
PROBES = {name: {"class_path": "LinearProbe", "init_args": {"lr": lr, "solver": None}}
          for name, lr in (("slow", 0.003), ("fast", 0.03))}


def reviews_with(study: Path | Study, **arguments: Any) -> dict[str, Any]:
    made = study if isinstance(study, Study) else load_study(study)
    train = made.cells[0].data["init_args"]["train"]
    return {"reviews": {"class_path": "TextClassification", "init_args": {
        "train": train, "max_length": 32, "batch_size": 8, **arguments}}}


def data_of(study: Study, seed: int, cell: int = 0) -> DataModule:
    """The data of a run, as its process builds them."""
    data: DataModule = build(study.specification(study.cells[cell], seed)["data"])
    data.load()
    return data


def ids(data: DataModule) -> dict[str, set[str]]:
    return {name: set(examples.ids) for name, examples in data.splits.items()}


@pytest.mark.parametrize("arguments", [
    {}, {"subset": {"shots": 5}}, {"subset": {"limit": 0.4, "splits": ["train", "validation", "test"]}}])
def test_a_seed_draws_all_but_the_test_set_alike_for_all_techniques(write: Write, arguments: Any) -> None:
    drawn = load_study(write(datasets=reviews_with(write(), **arguments), seeds=OF))
    fixed = load_study(write(datasets=reviews_with(write(), **arguments), seeds=[0, 1, 2]))
    parts = [ids(data_of(drawn, seed)) for seed in drawn.seeds]
    own = ids(data_of(fixed, 0))
    for one in parts:
        assert one["test"] == own["test"]
        assert not one["test"] & (one["train"] | one["validation"])
        assert not one["train"] & one["validation"]
        assert {name: len(part) for name, part in one.items()} == {name: len(part) for name, part in own.items()}
    for name in ("train", "validation"):
        assert len({frozenset(one[name]) for one in parts}) == 3
    for seed, one in zip(drawn.seeds, parts, strict=True):
        assert ids(data_of(drawn, seed, 1)) == one
    assert [ids(data_of(fixed, seed)) for seed in fixed.seeds] == [own] * 3


def test_given_splits_stay_and_a_subset_is_drawn(write: Write, tmp_path: Path) -> None:
    path = Path(load_study(write()).cells[0].data["init_args"]["train"])
    rows = pd.read_csv(path)
    files = {"train": rows[:80], "validation": rows[80:100], "test": rows[100:], "phones": rows[60:80]}
    for name, part in files.items():
        part.to_csv(tmp_path / f"{name}.csv", index=False)
    given = {name: str(tmp_path / f"{name}.csv") for name in ("train", "validation", "test")}
    named = {"tests": {"phones": str(tmp_path / "phones.csv")}, "beside": {"more": given["test"]}}
    study = load_study(write(seeds=OF, datasets=reviews_with(
        write(), **given, **named, subset={"limit": 20})))
    parts = [ids(data_of(study, seed)) for seed in study.seeds]
    assert len({frozenset(one.pop("train")) for one in parts}) == 3
    assert parts == [parts[0]] * 3  # validation too, and what is named
    whole = load_study(write(seeds=OF, datasets=reviews_with(write(), **given)))
    with pytest.raises(InputError, match=r"datasets.reviews: seed 0: all 80 examples .* nothing is left"):
        plan(whole)
    kept = load_study(write(seeds=OF, datasets=reviews_with(write(), **given, subset={"limit": 1.0})))
    with pytest.raises(InputError, match="nothing is left to draw"):
        plan(kept)


def test_labels_of_few_examples_stay_known_and_the_test_set_the_same(write: Write, tmp_path: Path) -> None:
    """Without strata a draw may take all examples of a label out of train; they come back."""
    draw = np.random.default_rng(0)
    lines = [{"text": f"text {i}", "labels": ["a"] + ["rare"] * (i == 50) + ["b"] * int(draw.integers(2))}
             for i in range(90)]
    path = tmp_path / "labels.jsonl"
    path.write_text(pd.DataFrame(lines).to_json(orient="records", lines=True))
    study = load_study(write(seeds={**OF, "list": list(range(12))}, techniques=PROBES, datasets={"many": {
        "class_path": "TextClassification", "init_args": {
            "train": str(path), "label": "labels", "task": "MultiLabel", "max_length": 16, "split": {"validation": 0.4}}}}))
    drawn = [data_of(study, seed) for seed in study.seeds]
    assert len({frozenset(ids(data)["test"]) for data in drawn}) == 1
    assert all(any("rare" in label for label in data.splits["train"].labels) for data in drawn)


def test_cells_know_what_a_seed_draws(write: Write) -> None:
    fixed, same, drawn = (load_study(write(seeds=seeds)) for seeds in ([0, 1, 2], {"list": [0, 1, 2]}, OF))
    assert [cell.key for cell in fixed.cells] == [cell.key for cell in same.cells]
    assert {cell.key.config for cell in fixed.cells}.isdisjoint(cell.key.config for cell in drawn.cells)
    config = {**fixed.cells[0].config}
    arguments = config["data"]["init_args"]
    assert arguments["split"].pop("draw") is None  # as a version before it wrote them
    assert cell_hash(config) == same.cells[0].key.config
    first, second = (drawn.specification(drawn.cells[0], seed)["data"] for seed in (0, 1))
    assert [part["init_args"]["split"]["draw"] for part in (first, second)] == [0, 1]
    assert drawn.cells[0].data["init_args"]["split"]["draw"] is None


def test_a_draw_that_a_data_set_names_is_that_of_the_seed(write: Write) -> None:
    named, drawn = (load_study(write(seeds=seeds, datasets=reviews_with(write(), split=split)))
                    for seeds, split in (([0, 1], {"draw": 2}), (OF, {})))
    assert ids(data_of(named, 0)) == ids(data_of(drawn, 2))
    cell = plan(named).cells[0]
    assert not cell.draws and not cell.pool_fingerprint  # it is a data set of its own


def test_stages_draw_with_the_run(write: Write) -> None:
    corpus = reviews_with(write(), columns={"words": "text"})["reviews"]
    techniques = {"after": {"class_path": "FullFineTuning", "before": [
        {"technique": "FullFineTuning", "data": corpus}]}, "alone": "FullFineTuning"}
    study = load_study(write(seeds=OF, techniques=techniques))
    said = [study.specification(study.cells[0], seed) for seed in study.seeds]
    for specification in said:
        task, stage = (build(part) for part in (specification["data"], specification["before"][0]["data"]))
        task.load()
        stage.load()
        assert ids(task) == ids(stage)
    made = plan(study)
    after, alone = made.cells
    assert len({after.of_seed(seed).before_fingerprint for seed in study.seeds}) == 3
    assert {alone.of_seed(seed).before_fingerprint for seed in study.seeds} == {""}


@pytest.mark.parametrize(("arguments", "told"), [
    ({"split": {"draw": 3}}, "split has draw: 3, and the study's seeds draw it"),
    ({"subset": {"shots": 60}}, "60 shots"),
])
def test_a_study_that_cannot_draw_is_refused(write: Write, arguments: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        plan(load_study(write(datasets=reviews_with(write(), **arguments), seeds=OF)))


def test_every_seed_is_drawn_before_anything_runs(write: Write, tmp_path: Path) -> None:
    """With a draw of few texts without strata a class may be missing, in one seed and not in the first."""
    lines = [{"text": f"text {i}", "labels": ["a", *["b"] * (i % 9 == 0)]} for i in range(90)]
    path = tmp_path / "labels.jsonl"
    path.write_text(pd.DataFrame(lines).to_json(orient="records", lines=True))

    def study(seeds: list[int]) -> Study:
        return load_study(write(techniques=PROBES, seeds={**OF, "list": seeds}, datasets={"many": {
            "class_path": "TextClassification", "init_args": {
                "train": str(path), "label": "labels", "task": "MultiLabel", "max_length": 16,
                "subset": {"limit": 12}}}}))

    def fails(seed: int) -> bool:
        try:
            data_of(study([seed]), seed)
        except InputError:
            return True
        return False

    good, bad = (next(seed for seed in range(40) if fails(seed) is wanted) for wanted in (False, True))
    assert plan(study([good])).cells
    with pytest.raises(InputError, match=rf"datasets.many: seed {bad}: .*at least two labels"):
        plan(study([good, bad]))


def played(said: dict[str, Any], folder: Path) -> Iterator[Event]:
    """A run of which the numbers do not matter."""
    yield {"event": "done", "metrics": {"val/accuracy": 0.5, "test/accuracy": 0.5 + said["seed"] / 100}}


class Ran:
    """A small study that has run in this process."""

    def __init__(self, folder: Path, study: Study) -> None:
        folder.mkdir(exist_ok=True)
        self.study, self.results = study, folder / "results"
        self.store, self.engine = f"sqlite:///{folder}/mlflow.db", HereEngine()
        self.outcome = run_study(study, self.store, self.results, engine=self.engine)
        self.tracker = Tracker(self.store)

    def runs(self) -> dict[tuple[str, int], RunRecord]:
        return {(cell.key.technique, run.seed): run
                for cell in self.tracker.cells(self.study.name) for run in cell.runs}

    def examples(self, split: str) -> dict[tuple[str, int], tuple[str, ...]]:
        found = {}
        for key, run in self.runs().items():
            file = self.tracker.file(run, f"predictions/{split}.parquet")
            assert file is not None
            found[key] = tuple(pd.read_parquet(io.BytesIO(file))["id"])
        return found


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, reviews: Path) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("draws")
    shutil.copy(reviews, folder / "reviews.csv")
    backbone = {"class_path": "HuggingFace", "init_args": {"source": str(tiny_bert), "pooling": "mean"}}
    data = {"train": str(folder / "reviews.csv"), "max_length": 32, "batch_size": 8, "subset": {"limit": 0.25}}
    (folder / "small.yaml").write_text(yaml.safe_dump({
        "name": "small", "backbones": {"bert": backbone}, "techniques": PROBES, "seeds": OF,
        "datasets": {"reviews": {"class_path": "TextClassification", "init_args": data}},
        "trainer": {"max_epochs": 2}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTLAB_CACHE", str(folder / "cache"))
        patch.setattr(prefix_source, "foresee", lambda *_: Forecast(1, 2.0, 1.0, 0.0, 1000))
        yield Ran(folder, load_study(folder / "small.yaml"))


def test_runs__store_tables_and_page_know_the_draws(ran: Ran, write: Write, tmp_path: Path) -> None:
    assert ran.outcome.finished == 6, ran.outcome.failures
    tested, validated = ran.examples("test"), ran.examples("validation")
    assert len(set(tested.values())) == 1
    for seed in ran.study.seeds:
        assert validated["slow", seed] == validated["fast", seed]
    assert len(set(validated.values())) == 3

    runs = ran.runs()
    for tag, different in (("dataset", 3), ("pool", 1), ("backbone", 1)):
        assert len({run.tags[f"ftlab.{tag}_sha256"] for run in runs.values()}) == different
    # of 96 examples that the test split leaves, train has the quarter of the 84 that validation leaves
    profile = ran.tracker.data_sets(runs["slow", 0].run_id)["train"]
    share = float(runs["slow", 0].tags["ftlab.training_share"])
    assert share == profile["examples"] / 96 == 21 / 96

    # features of the test set are computed once, those of each draw by its first run
    files = list(activation_files.folder().glob("*.safetensors"))
    assert len(files) == 1 + 3 * 2
    for seed in ran.study.seeds:
        with restore_run(runs["fast", seed].run_id, ran.store) as restored:
            assert tuple(restored.run.data.splits["validation"].ids) == validated["fast", seed]

    made = table(ran.study, ran.store, ran.results)
    markdown = (ran.results / "small" / "table.md").read_text()
    assert "n = 3 draws of the training set, each with its own seed" in markdown
    assert "The claim is of another training set of this size" in markdown and "new data" not in markdown
    assert made.comparisons[0].overlap == share
    page = report(ran.study, ran.store, ran.results).read_text()
    assert re.search(r"3 draws of the training set, each with its own seed \(0, 1, 2\); the claim is of", page)
    assert "A seed draws which examples train" in page and "Splits belong to the data set" not in page

    # the same study with seeds of the other kind has cells of its own, and no table with these
    fixed = load_study(write(name="fixed", techniques=PROBES, datasets=reviews_with(write())))
    run_study(fixed, ran.store, ran.results, engine=ScriptedEngine(played))
    with pytest.raises(InputError, match="a seed of small draws the training set, and a seed of fixed"):
        chosen_table([ran.study, fixed], "test/accuracy", ran.store, ran.results)
    assert chosen_table([ran.study], "test/accuracy", ran.store, ran.results).table.about
    other = load_study(write(techniques=PROBES, datasets=reviews_with(write())))
    with pytest.raises(InputError, match="none with these settings"):
        table(other, ran.store, ran.results)


def test_runs__are_those_without_shortcuts(ran: Ran, tmp_path: Path) -> None:
    """Heads on cached features, and whole passes of each run by itself."""
    plain = Ran(tmp_path / "plain", ran.study.with_shortcuts(False))
    assert all("members" not in said for said in ran.engine.started)
    cached, whole = ran.runs(), plain.runs()
    for key, run in cached.items():
        assert "head is trained on cached features alone" in run.tags["ftlab.shortcut"]
        for name in ("val/loss", "test/loss", "test/accuracy"):
            assert run.metrics[name] == pytest.approx(whole[key].metrics[name], rel=1e-5), (key, name)
    assert len({run.metrics["test/loss"] for run in cached.values()}) == 6


def test_runs_of_several_draws_do_not_share_features(ran: Ran, tmp_path: Path) -> None:
    """A stack of heads stands on one set of examples."""
    runs, said = [], []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        specification = ran.study.specification(ran.study.cells[0], seed)
        runs.append(built(tmp_path / str(seed), specification))
    together = execute_together(runs, [said.append] * 2, None)
    for seed, found in zip((0, 1), together, strict=True):
        assert isinstance(found, dict), found
        known = ran.runs()[ran.study.cells[0].key.technique, seed].metrics
        for name in ("val/loss", "test/loss"):
            assert found[name] == pytest.approx(known[name], rel=1e-6)
    assert any("each seed has drawn examples of its own" in event.get("text", "") for event in said)
    assert seeds_together(ran.study.cells[0], [0, 1, 2]) == [[0], [1], [2]]


def test_runs__continue_and_refuse_other_data(ran: Ran, write: Write, tmp_path: Path) -> None:
    again = HereEngine()
    assert run_study(ran.study, ran.store, ran.results, engine=again).finished == 6
    assert not again.started
    train = Path(ran.study.cells[0].data["init_args"]["train"])
    lines = train.read_text().splitlines()
    drawn = data_of(ran.study, 2)
    place = int(re.findall(r"\d+", drawn.splits["train"].ids[0])[-1])
    before = train.read_text()
    try:
        text, label = lines[place].rsplit(",", 1)
        train.write_text("\n".join([*lines[:place], f"{text} more,{label}", *lines[place + 1:]]) + "\n")
        with pytest.raises(InputError, match="the dataset has changed since seed"):
            run_study(ran.study, ran.store, ran.results, engine=again)
        # seeds that are not asked for are known by what all draw from
        train.write_text("\n".join(lines[:-2]) + "\n")
        with pytest.raises(InputError, match=r"the (pool|dataset) has changed since seed 0"):
            run_study(ran.study.with_seeds([7]), ran.store, ran.results, engine=again)
    finally:
        train.write_text(before)


def test_reproduce__holds_the_data_to_what_all_seeds_draw_from(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(ran.study, ran.store, ran.results)
    engine = HereEngine()
    monkeypatch.setattr("ftlab.reproduction.run_study", lambda study, store, folder, *_, **more: run_study(
        study, store, folder, engine=engine, approve=more["approve"]))
    found = reproduce(ran.results / "small", tmp_path / "again", seeds=[0, 2])
    assert found.drift.equal
    assert len(engine.started) == 4


def test_dry_run__counts_a_cache_for_each_draw(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int | None] = []
    monkeypatch.setattr("ftlab.studies.dry_run.foresee", lambda study, cell, data, *rest, **more: (
        timed.append(data.split.draw), foresee(study, cell, data, *rest, **more))[1])
    seeds = (OF, OF["list"])
    drawn, fixed = (estimate(load_study(write(techniques=PROBES, seeds=each))) for each in seeds)
    made = drawn.plan.cells[0]
    assert timed == [0, 0, None, None]
    assert made.draws.keys() == {0, 1, 2} and not fixed.plan.cells[0].draws
    assert all(here.heads is None or here.heads.runs == 1 for here in drawn.foreseen.values())


def test_until_decided__knows_what_draws_have_in_common(write: Write) -> None:
    until = {"until": "decided", "margin": 2.0, "most": 4}
    for seeds, share in ((until | {"of": OF["of"]}, 0.875), (until, 0.0)):
        study = load_study(write(techniques=PROBES, seeds=seeds))
        cells = {cell.cell.key.technique: cell for cell in plan(study).cells}
        assert study.until is not None
        adding = AddingSeeds(study, study.until, cells, None, None)  # type: ignore[arg-type]  # not asked
        group, = adding.groups.values()
        assert adding._overlap(group) == share


def test_notes_are_of_the_draw(write: Write, tmp_path: Path) -> None:
    train = Path(load_study(write()).cells[0].data["init_args"]["train"])
    heading, *lines = train.read_text().splitlines()
    twice = tmp_path / "twice.csv"
    twice.write_text("\n".join([heading, *lines, *lines[:30]]) + "\n")
    study = load_study(write(techniques=PROBES, seeds=OF), [f"datasets.reviews.init_args.train={twice}"])
    cell = plan(study).cells[0]
    counted = [re.findall(r"\d+ of \d+ test inputs", " ".join(cell.of_seed(seed).notes)) for seed in study.seeds]
    assert len({tuple(found) for found in counted}) > 1
    for seed, found in zip(study.seeds, counted, strict=True):
        assert re.findall(r"\d+ of \d+ test inputs", " ".join(data_of(study, seed).notes)) == found
