"""A run's files are held to the sha256 in its record: damage is named, and costs what it must."""

import hashlib
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from scipy import stats
from tracked_study import write

from ftlab.backbones import cache_folder
from ftlab.errors import InputError
from ftlab.reports.columns import grid
from ftlab.reports.comparison import Comparison
from ftlab.reports.default_columns import default_table
from ftlab.reports.study_results import StudyResults
from ftlab.reports.table import Table
from ftlab.statistics.moderated import SeedScores, evidence
from ftlab.statistics.two_studies import step
from ftlab.studies import run_process
from ftlab.studies.check_cache import remembered
from ftlab.tasks.classification import Classification
from ftlab.tracking.artifacts import DamagedArtifact, check, sha256_tags, whole
from ftlab.tracking.records import CellKey
from ftlab.tracking.tracker import Tracker
from ftlab.training import checkpoint
from ftlab.training.evaluate import write_predictions
from ftlab.training.manifest import MANIFEST

EXAMPLES, SEEDS = 60, (0, 1, 2)
SKILL = {"full": 0.9, "probe": 0.8, "lora": 0.7}
SEED = 1  # whose predictions of lora are harmed
NAME = "predictions/test.parquet"

Kept = SimpleNamespace


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Kept:
    """Three techniques of three seeds in a store, with predictions, as a study leaves them."""
    root = tmp_path_factory.mktemp("kept")
    (root / "mlflow.db").write_bytes(empty_store.read_bytes())
    tracker, draw = Tracker(f"sqlite:///{root}/mlflow.db"), np.random.default_rng(0)
    tracker.open_study("small", {})
    keys, scores = [], {}
    for order, (technique, skill) in enumerate(SKILL.items()):
        keys.append(CellKey("small", "bert", "bbc", technique, "c0ffee"))
        cell = tracker.open_cell(keys[-1], {}, SEEDS, order, order)
        for seed in SEEDS:
            folder = root / "work" / f"{technique}{seed}"
            (folder / "predictions").mkdir(parents=True)
            right = draw.uniform(size=EXAMPLES) < skill
            target = ["ab"[n % 2] for n in range(EXAMPLES)]
            write_predictions(folder / NAME, {
                "id": [f"row {n}" for n in range(EXAMPLES)], "target": target,
                "prediction": [name if hit else "ba"["ab".index(name)]
                               for name, hit in zip(target, right, strict=True)]})
            run = tracker.open_run(cell, seed, {})
            scores[technique, seed] = float(right.mean())
            tracker.log_metrics(run, {"test/accuracy": scores[technique, seed]}, 0, 1)
            tracker.set_tags(run, sha256_tags(folder))
            tracker.log_artifacts(run, folder)
            tracker.end_run(run, "FINISHED")
        tracker.end_cell(cell)
    tracker.close()
    (lora,) = (run for cell in tracker.cells("small") if cell.key.technique == "lora"
               for run in cell.runs if run.seed == SEED)
    file = next(root.glob(f"mlartifacts/**/{lora.run_id}/artifacts/{NAME}"))
    return SimpleNamespace(root=root, uri=tracker.uri, keys=keys, scores=scores, run=lora, file=file)


@pytest.fixture
def kept(study: Kept) -> Iterator[Kept]:
    """The study, whose harmed file is whole again afterwards."""
    content = study.file.read_bytes()
    yield study
    study.file.write_bytes(content)


def source(kept: Kept) -> StudyResults:
    tracker = Tracker(kept.uri)
    return StudyResults("small", "test/accuracy", kept.keys,
                  {record.key: record for record in tracker.cells("small")},
                  {"bbc": Classification()}, tracker=tracker)


def told(kept: Kept) -> tuple[Table, Comparison]:
    """The table and the comparison that are made of what lies in the store now."""
    compared = source(kept).compared()
    return default_table(compared), compared.comparisons[0]


HARM: dict[str, Callable[[bytes], bytes]] = {
    "a bit": lambda content: content[:50] + bytes([content[50] ^ 1]) + content[51:],
    "torn": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "another file": lambda content: b"PAR1 nonsense PAR1",
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_one_is_named_and_its_pairs_are_decided_by_seeds_alone(
    harm: str, kept: Kept
) -> None:
    before, was = told(kept)
    kept.file.write_bytes(HARM[harm](kept.file.read_bytes()))
    after, now = told(kept)
    assert now.pairs["full", "probe"].decides == was.pairs["full", "probe"].decides
    for other in ("full", "probe"):
        assert was.pairs[other, "lora"].decides.test == "moderated t test over seeds and examples"
        pair = now.pairs[other, "lora"]
        assert pair.examples is None
        assert pair.decides.test == "moderated t test over seeds"
        alone = stats.ttest_rel(*([kept.scores[name, seed] for seed in SEEDS]
                                  for name in (other, "lora"))).pvalue
        assert pair.seeds.p == pytest.approx(alone, rel=1e-6)
        study = {name: SeedScores(np.array([kept.scores[name, seed] for seed in SEEDS]))
                 for name in ("full", "probe", "lora")}
        expected = evidence(study, [(other, "lora")], step(kept.scores.values()))[other, "lora"]
        assert pair.decides.p == pytest.approx(expected.p_differs, rel=1e-6)
    said = (f"tested over seeds alone, for damaged predictions: {NAME} of run {kept.run.run_id}, "
            f"seed {SEED} (its sha256 is not the one that the run recorded)")
    assert before.notes == ()
    assert after.notes == (f"lora on bbc from bert: {said}",)
    assert dict(after.about).get("Incomplete", "") == ""
    assert [line.texts[0] for line in after.groups[0][1]] == ["full", "probe", "lora [1]"]
    assert grid([source(kept)], ["test/accuracy"]).table().notes == after.notes
    assert grid([source(kept)], ["datasets"]).table().notes == after.notes


def test_one_that_is_gone_is_named_in_the_table_and_where_a_figure_wants_it(
    kept: Kept, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept.file.unlink()
    report = write("small", kept.keys, Tracker(kept.uri), tmp_path, {},
                   tasks={"bbc": Classification()})
    assert "seed 1 (it is gone)" in report.table.notes[0]
    assert "seed 1 (it is gone)" in report.frame["note"][2]
    assert sorted(report.frame["rank"]) == [1, 2, 3]
    said = [record.getMessage() for record in caplog.records]
    assert said == [(f"run {kept.run.run_id}: {NAME} is damaged: it is gone; "
                    "figures and diagnoses go without it")]


def test_a_run_from_before_there_was_a_record_is_read_as_it_was(kept: Kept) -> None:
    client = MlflowClient(kept.uri)
    tag = f"ftlab.sha256.{NAME}"
    recorded = client.get_run(kept.run.run_id).data.tags[tag]
    assert recorded == hashlib.sha256(kept.file.read_bytes()).hexdigest()
    expected = told(kept)
    client.delete_tag(kept.run.run_id, tag)
    try:
        assert told(kept) == expected
        kept.file.write_bytes(HARM["torn"](kept.file.read_bytes()))  # that shows without a record
        assert "for damaged predictions" in told(kept)[0].notes[0]
        kept.file.unlink()  # a run that never had any
        assert told(kept)[0].notes == ()
    finally:
        client.set_tag(kept.run.run_id, tag, recorded)


@pytest.mark.parametrize("count", [100, pytest.param(4000, marks=pytest.mark.slow)])
def test_no_flipped_bit_is_read_as_other_content(count: int, kept: Kept) -> None:
    content, draw, tracker = kept.file.read_bytes(), random.Random(0), Tracker(kept.uri)
    assert whole(tracker, kept.run, NAME) == content
    for _ in range(count):
        bit = draw.randrange(8 * len(content))
        harmed = bytearray(content)
        harmed[bit // 8] ^= 1 << bit % 8
        kept.file.write_bytes(harmed)
        with pytest.raises(DamagedArtifact, match=r"its sha256 is not the one"):
            whole(tracker, kept.run, NAME)


def test_copies_are_held_to_the_record(kept: Kept, tmp_path: Path) -> None:
    copy = tmp_path / NAME
    copy.parent.mkdir()
    copy.write_bytes(kept.file.read_bytes())
    check(kept.run, tmp_path, NAME)
    check(kept.run, tmp_path, "predictions")
    copy.write_bytes(HARM["a bit"](copy.read_bytes()))
    for below in (NAME, "predictions"):
        with pytest.raises(DamagedArtifact, match=rf"run {kept.run.run_id}: {NAME} is damaged"):
            check(kept.run, tmp_path, below)
    check(kept.run, tmp_path, "predict")  # another folder
    copy.unlink()
    with pytest.raises(DamagedArtifact, match="it is gone"):
        check(kept.run, tmp_path, "predictions")


@pytest.mark.parametrize("count", [10, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, MANIFEST])
def test_a_torn_checkpoint_is_never_loaded(name: str, count: int, tmp_path: Path) -> None:
    """Cut anywhere, or with a bit turned: two lines say so, and the model stays as it was."""
    model, draw = torch.nn.Linear(20, 20), random.Random(count)
    checkpoint.save(tmp_path, {"weight": torch.ones(20, 20)}, {"config": {"lr": 0.1}})
    content, before = (tmp_path / name).read_bytes(), model.weight.clone()
    for _ in range(count):
        at = draw.randrange(len(content) - 2)  # at the last two the manifest is whole
        (tmp_path / name).write_bytes(content[:at])
        with pytest.raises(InputError) as caught:
            checkpoint.load(tmp_path, model)
        assert str(tmp_path) in caught.value.what
        assert caught.value.mend
        assert model.weight.equal(before)
        flipped = bytes([content[at] ^ 1 << draw.randrange(8)])
        (tmp_path / name).write_bytes(content[:at] + flipped + content[at + 1:])
        if name == checkpoint.WEIGHTS:
            with pytest.raises(InputError, match="is damaged"):
                checkpoint.load(tmp_path, model)
    (tmp_path / name).write_bytes(content)
    checkpoint.load(tmp_path, model)
    assert model.weight.equal(torch.ones(20, 20))


@pytest.mark.parametrize("harm", [*HARM.values(), lambda content: content.replace(b"7", b"8")])
def test_what_is_remembered_of_classes_is_asked_again(
    harm: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path))
    answer = {"numbers": [7] * 40}
    asked: list[int] = []

    def ask() -> dict[str, list[int]]:
        asked.append(1)
        return answer

    for _ in range(2):
        assert remembered("what?", ask) == answer
    assert len(asked) == 1
    (path,) = (tmp_path / "checks").iterdir()
    content = path.read_bytes()
    path.write_bytes(harm(content))
    assert remembered("what?", ask) == answer
    assert len(asked) == 2
    assert path.read_bytes() == content
    assert [record.getMessage() for record in caplog.records] == [
        f"damaged cache, made again: {path}"]


def test_a_run_takes_a_note_of_damage_that_its_output_would_lose(tmp_path: Path) -> None:
    events: list[dict[str, str]] = []
    handlers = logging.getLogger(cache_folder.LOGGER).handlers
    before = [*handlers]
    run_process._note_caches([events.append])
    try:
        cache_folder.damaged("x.safetensors: torn")
    finally:
        handlers[:] = before
    assert events == [{"event": "note", "text": "damaged cache, made again: x.safetensors: torn"}]
