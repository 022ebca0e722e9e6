"""A tracking store that is gone for good: what is kept, and how it arrives later, each value once."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from scripted import ScriptedEngine, ended

from ftlab.errors import FtlabError, InputError
from ftlab.studies.study import load_study
from ftlab.sweeps.study_runs import run_study
from ftlab.tracking import outbox
from ftlab.tracking.records import CellKey
from ftlab.tracking.spool import FOLDER, REFUSED, Spool
from ftlab.tracking.tracker import Tracker
from ftlab.tracking.writes import Write

UNRENDERED = True
Here = Callable[..., tuple[int, str, str]]
EPOCHS = 4


@pytest.fixture
def study(tmp_path: Path, tiny_bert: Path, reviews: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({
        "name": "small",
        "backbones": {"bert": {"class_path": "HuggingFace",
                               "init_args": {"source": str(tiny_bert), "pooling": "mean"}}},
        "datasets": {"reviews": {"class_path": "TextClassification", "init_args": {
            "train": str(reviews), "max_length": 32, "batch_size": 8}}},
        "techniques": {"probe": {"class_path": "LinearProbe", "init_args": {"solver": None}}, "head": {
            "class_path": "LinearProbe", "init_args": {"lr": 0.5, "solver": None}}},
        "seeds": [0, 1], "trainer": {"max_epochs": EPOCHS}}, sort_keys=False))
    return path


def score(specification: dict[str, Any]) -> float:
    rate = specification["technique"]["init_args"].get("lr", 0.0)
    return round(0.5 + rate / 4 + specification["seed"] / 100, 4)


def play(specification: dict[str, Any], folder: Path, before: Callable[[int], None]
         ) -> Iterator[dict[str, Any]]:
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "delta.bin").write_bytes(bytes(100))
    for epoch in range(1, EPOCHS + 1):
        before(epoch)
        yield {"event": "metrics", "step": epoch, "time": 1000 * epoch,
               "metrics": {"val/accuracy": epoch / 10, "train/loss": 1 / epoch}}
    yield {"event": "done", "metrics": {"val/accuracy": 0.4, "pruned": 0.0,
                                        "test/accuracy": score(specification)}}


def whole(uri: str, study: str = "small") -> None:
    """Each run is there once, with each of its values once, its files, and its cell's mean."""
    client = MlflowClient(uri)
    records = Tracker(uri).cells(study)
    assert [record.key.technique for record in records] == ["probe", "head"]
    experiment = client.get_experiment_by_name(study).experiment_id
    runs = client.search_runs([experiment], "tags.`ftlab.kind` = 'run'")
    assert len(runs) == 4
    for record in records:
        assert [run.seed for run in record.finished] == [0, 1]
        reached = []
        for run in record.finished:
            steps = [m.step for m in client.get_metric_history(run.run_id, "train/loss")]
            assert sorted(steps) == list(range(1, EPOCHS + 1))
            steps = [m.step for m in client.get_metric_history(run.run_id, "val/accuracy")]
            assert sorted(steps) == list(range(1, EPOCHS + 2))  # and the restored epoch's
            (tested,) = client.get_metric_history(run.run_id, "test/accuracy")
            reached.append(tested.value)
            names = {f.path for f in client.list_artifacts(run.run_id, "checkpoint")}
            assert names == {"checkpoint/delta.bin"}
        cell = client.get_run(record.cell_id)
        assert cell.info.status == "FINISHED"
        assert cell.data.metrics["test/accuracy.mean"] == pytest.approx(sum(reached) / 2)


def unsent(folder: Path) -> list[Path]:
    return sorted((folder / "results" / "small" / FOLDER).glob("*"))


@pytest.mark.parametrize("when", [(0, 1), (1, 1), (1, 3), (3, 4)])
def test_store_gone_for_good__all_is_kept_and_arrives_once(
    when: tuple[int, int], study: Path, store_uri: str, outage: Any, here: Here, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox.Outbox.__init__, "__defaults__", (None, "", None, 0.05))
    results, begun = tmp_path / "results", []

    def run(specification: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
        begun.append(folder)
        number = len(begun) - 1

        def before(epoch: int) -> None:
            outage.on = outage.on or (number, epoch) == when

        yield from play(specification, folder, before)

    with pytest.raises(FtlabError, match=r"\d+ writes wait in .*jsonl") as caught:
        run_study(load_study(study), store_uri, results, engine=ScriptedEngine(run, 1))
    assert "ftlab sync" in caught.value.mend
    assert not isinstance(caught.value, InputError)  # exit code 1
    assert len(begun) == 4  # the outage stopped none
    (kept,) = unsent(tmp_path)
    assert kept.name in caught.value.what
    lines = kept.read_text().splitlines()

    code, _, errors = here("sync", "--tracking-uri", store_uri)
    assert (code, len(errors.strip().splitlines())) == (2, 2)
    assert kept.read_text().splitlines() == lines

    for cut in (5, 1, 2):  # interrupted syncs
        outage.on, outage.after = False, cut + 3
        here("sync", "--tracking-uri", store_uri)
        outage.on, outage.after = False, None
    code, output, errors = here("sync", "--tracking-uri", store_uri)
    assert (code, errors) == (0, "")
    assert "writes stored" in output
    whole(store_uri)
    assert unsent(tmp_path) == []
    assert not list((results / "small" / ".work").glob("*/checkpoint"))
    code, output, errors = here("sync")
    assert (code, output.strip()) == (0, "Nothing waits below results.")

    engine = ScriptedEngine(run, 1)
    outcome = run_study(load_study(study), store_uri, results, engine=engine)
    assert (engine.started, outcome.finished) == ([], 4)
    whole(store_uri)


def test_same_command__sends_first_and_repeats_only_what_failed(
    study: Path, store_uri: str, outage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox.Outbox.__init__, "__defaults__", (None, "", None, 0.05))
    results, begun = tmp_path / "results", []

    def run(specification: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
        begun.append(specification["seed"])
        outage.on = len(begun) < 5
        yield from play(specification, folder, lambda epoch: None)
        if len(begun) == 3:
            yield ended(1, reason="no luck")

    apart = load_study(study).with_shortcuts(False)  # a process for each run
    with pytest.raises(FtlabError, match="writes wait"):
        run_study(apart, store_uri, results, engine=ScriptedEngine(run, 1))
    outage.on = False
    engine = ScriptedEngine(run, 1)
    outcome = run_study(apart, store_uri, results, engine=engine)
    assert len(engine.started) == 1
    assert (outcome.finished, outcome.failed) == (4, 0)
    client = MlflowClient(store_uri)
    experiment = client.get_experiment_by_name("small").experiment_id
    failed = client.search_runs([experiment], "tags.`ftlab.reason` = 'no luck'")
    assert [run.data.tags["ftlab.attempt"] for run in failed] == ["1"]
    assert [f.path for f in client.list_artifacts(failed[0].info.run_id)]
    assert unsent(tmp_path) == []


def write(number: int) -> Write:
    return Write(f"write {number}", "log", "r", ([["a", number / 7, 1000, number]], {"t": "ü"}))


def test_spool__cut_at_every_byte_of_its_last_line_keeps_the_others(tmp_path: Path) -> None:
    spool = Spool.new(tmp_path, "http://host")
    for number in range(3):
        spool.append(write(number))
    whole = spool.path.read_bytes()
    before = whole.rstrip(b"\n").rindex(b"\n") + 1
    os.close(spool._file)  # as a kill does
    for size in range(before, len(whole)):
        path = tmp_path / f"{size}.jsonl"
        path.write_bytes(whole[:size])
        again = Spool(path)
        assert (len(again), again.refused, again.store) == (2, [], "http://host")
        again.append(write(9))
        again.drop()
        assert again.first() == write(1)
        again.drop()
        assert again.first() == write(9)
        again.drop()
        again.close()
        assert not path.exists()


def test_spool__a_flipped_bit_is_refused_and_never_sent(tmp_path: Path) -> None:
    spool = Spool.new(tmp_path, "http://host")
    for number in range(3):
        spool.append(write(number))
    whole = spool.path.read_bytes()
    os.close(spool._file)
    draw, true = random.Random(0), [write(number) for number in range(3)]
    for trial in range(200):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path = tmp_path / f"{trial}.jsonl"
        path.write_bytes(bytes(damaged))
        again, read = Spool(path), []
        while len(again):
            read.append(again.first())
            again.drop()
        assert all(each in true for each in read)
        # all, or those that are not damaged and a word about the others
        assert len(read) == 3 or again.refused or not damaged.endswith(b"\n")
        again.close()


def test_a_run_of_an_earlier_outage__is_named_by_its_id_in_the_next_one(tmp_path: Path) -> None:
    """Our own id for it is known to nobody else."""
    out, sent = True, []

    def send(write: Write, run: str) -> str:
        if out:
            raise OSError("gone")
        sent.append((write.action, run))
        return "theirs" if write.makes else ""

    box = outbox.Outbox(send, tmp_path / FOLDER, "http://host", None, 0.0)
    run_id = box.create(Write("run", "open_run", "cell"))
    assert run_id.startswith("pending-")
    out = False
    assert box.deliver(now=True) and not unsent(tmp_path)
    out = True
    box.add(Write("metrics", "log", run_id, ([], {"a": "1"})))
    assert not box.deliver(now=True)
    with pytest.raises(FtlabError, match="1 writes wait in"):
        box.drain()
    (path,) = (tmp_path / FOLDER).glob("*.jsonl")
    assert Spool(path).first().run == "theirs"


def test_spool__is_one_process_s_alone(tmp_path: Path) -> None:
    spool = Spool.new(tmp_path, "http://host")
    spool.append(write(0))
    with pytest.raises(BlockingIOError):
        Spool(spool.path)
    spool.close()
    assert len(Spool(spool.path)) == 1


def open_run(uri: str, folder: Path) -> tuple[Tracker, str]:
    tracker = Tracker(uri, unsent=folder / "results" / "s" / FOLDER)
    tracker._outbox.patience = 0.05
    tracker.open_study("s", {})
    cell = tracker.open_cell(CellKey("s", "b", "d", "t", "c"), {"p": 1}, [0], 0)
    return tracker, tracker.open_run(cell, 0, {"seed": 0})


def test_sync__says_what_was_refused_and_sets_it_aside(
    store_uri: str, outage: Any, here: Here, tmp_path: Path
) -> None:
    tracker, run = open_run(store_uri, tmp_path)
    outage.on = True
    (tmp_path / "files").mkdir()
    tracker.log_artifacts(run, tmp_path / "files")
    tracker.log_metrics(run, {"a": 1.0}, 0, 0)
    tracker.end_run(run, "FINISHED")
    with pytest.raises(FtlabError, match="writes wait"):
        tracker.close()
    (tmp_path / "files").rmdir()
    outage.on = False
    code, _, errors = here("sync", "--tracking-uri", store_uri)
    assert code == 1
    assert "no folder" in errors
    (kept,) = (tmp_path / "results" / "s" / FOLDER).iterdir()
    assert kept.name.endswith(REFUSED)
    assert MlflowClient(store_uri).get_run(run).info.status == "FINISHED"
    assert MlflowClient(store_uri).get_run(run).data.metrics == {"a": 1.0}
    assert here("sync", "--tracking-uri", store_uri)[0] == 0


def test_sync__another_store_is_refused_and_no_password_is_kept(
    store_uri: str, outage: Any, here: Here, tmp_path: Path
) -> None:
    tracker, run = open_run(store_uri, tmp_path)
    tracker._outbox._store = "http://other:5000"
    outage.on = True
    tracker.log_dataset(run, "d", "f" * 64, "s3://me:s3cr3t@h/x", {"train": {}})
    tracker.end_run(run, "FAILED", "no https://me:s3cr3t@h")
    with pytest.raises(FtlabError):
        tracker.close()
    outage.on = False
    (kept,) = (tmp_path / "results" / "s" / FOLDER).iterdir()
    assert "s3cr3t" not in kept.read_text()
    code, _, errors = here("sync", "--tracking-uri", store_uri)
    assert code == 2
    assert "http://other:5000" in errors
    with pytest.raises(InputError, match="another store"):
        open_run(store_uri, tmp_path)


def test_no_room_for_the_file__waits_in_memory_and_says_so(
    store_uri: str, outage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker, run = open_run(store_uri, tmp_path)
    outage.on = True
    tracker.set_tags(run, {"a": "1"})
    with monkeypatch.context() as full:
        def no_room(*arguments: object) -> int:
            raise OSError(28, "No space left on device")
        full.setattr("ftlab.tracking.spool.os.write", no_room)
        tracker.set_tags(run, {"b": "2"})
    assert "cannot be kept on disk" in caplog.text
    tracker.set_tags(run, {"c": "3"})
    outage.on = False
    tracker.close()
    tags = MlflowClient(store_uri).get_run(run).data.tags
    assert [tags[name] for name in "abc"] == ["1", "2", "3"]
    assert not (tmp_path / "results" / "s" / FOLDER).exists()


def test_large_file__keeps_the_last_value_of_each_metric_and_says_so(
    store_uri: str, outage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(outbox, "LARGEST", 2000)
    tracker, run = open_run(store_uri, tmp_path)
    outage.on = True
    for step in range(300):
        tracker.log_metrics(run, {"train/loss": 1.0 / (step + 1)}, step, step)
        if step % 50 == 49:
            tracker.set_tags(run, {"t": str(step)})
    assert caplog.text.count("not every value is kept") == 1
    outage.on = False
    tracker.close()
    history = MlflowClient(store_uri).get_metric_history(run, "train/loss")
    assert 50 <= len(history) < 300
    assert max((m.step, m.value) for m in history) == (299, 1 / 300)


def test_write__of_an_unknown_action_is_refused(store_uri: str, here: Here, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "s" / FOLDER
    spool = Spool.new(folder, store_uri)
    spool.append(Write("evil", "__init__", "r", ()))
    os.close(spool._file)
    code, _, errors = here("sync")  # the store is the file's own
    assert code == 1
    assert "cannot '__init__'" in errors
    assert json.loads((next(folder.iterdir())).read_text().splitlines()[0])["store"] == store_uri
