"""A run's files are held to the sha256 in its record: damage is named, and costs what it must."""

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mlflow import MlflowClient
from scipy import stats

from ftlab.reports.choice import grid
from ftlab.reports.comparison import Comparison
from ftlab.reports.sheet import Sheet, layout
from ftlab.reports.source import Source, gather
from ftlab.reports.table import write
from ftlab.tasks.classification import Classification
from ftlab.tracking.artifacts import DamagedArtifact, check, sha256_tags, whole
from ftlab.tracking.records import CellKey
from ftlab.tracking.tracker import Tracker
from ftlab.training.evaluate import write_predictions

EXAMPLES, SEEDS = 60, (0, 1, 2)
SKILL = {"full": 0.9, "probe": 0.8, "lora": 0.7}
SEED = 1  # whose predictions of lora are harmed
NAME = "predictions/test.parquet"

Kept = SimpleNamespace


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Kept:
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


@pytest.fixture(autouse=True)
def as_it_was(kept: Kept) -> Iterator[None]:
    content = kept.file.read_bytes()
    yield
    kept.file.write_bytes(content)


def source(kept: Kept) -> Source:
    tracker = Tracker(kept.uri)
    return Source("small", "test/accuracy", kept.keys,
                  {record.key: record for record in tracker.cells("small")},
                  {"bbc": Classification()}, tracker=tracker)


def told(kept: Kept) -> tuple[Sheet, Comparison]:
    """The table and the comparison that are made of what lies in the store now."""
    evidence, (comparison,) = gather(source(kept), True)
    return layout("small", evidence.rows, "test/accuracy", [comparison]), comparison


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
        assert was.pairs[other, "lora"].decides.test == "t test over seeds and examples"
        pair = now.pairs[other, "lora"]
        assert pair.examples is None
        expected = stats.ttest_rel(*([kept.scores[name, seed] for seed in SEEDS]
                                     for name in (other, "lora"))).pvalue
        assert pair.decides.p == pytest.approx(expected, rel=1e-6)
    said = (f"tested over seeds alone, for damaged predictions: {NAME} of run {kept.run.run_id}, "
            f"seed {SEED} (its sha256 is not the one that the run recorded)")
    assert before.notes == ()
    assert after.notes == (f"lora on bbc from bert: {said}",)
    assert dict(after.about).get("Incomplete", "") == ""
    assert [line.texts[0] for line in after.groups[0][1]] == ["full", "probe", "lora [1]"]
    assert grid([source(kept)], ["test/accuracy"]).sheet().notes == after.notes
    assert grid([source(kept)], ["datasets"]).sheet().notes == after.notes


def test_one_that_is_gone_is_named_in_the_table_and_where_a_figure_wants_it(
    kept: Kept, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept.file.unlink()
    report = write("small", kept.keys, Tracker(kept.uri), tmp_path, {},
                   tasks={"bbc": Classification()})
    assert "seed 1 (it is gone)" in report.sheet.notes[0]
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
