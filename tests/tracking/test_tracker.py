import logging
import math
import sqlite3

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from scipy import stats
from scipy.special import expit, logit

from ftlab.errors import FtlabError, InputError
from ftlab.tracking.election import VERDICT
from ftlab.tracking.metric_facts import MetricFacts, from_tag, to_tag
from ftlab.tracking.palette import COLOURS
from ftlab.tracking.tracker import Tracker
from ftlab.tracking.writes import Write

MADE = True  # stores as users have them


def run(tracker, cell, seed, status="FINISHED", reason="", **metrics):
    run_id = tracker.open_run(cell, seed, {"seed": seed})
    tracker.log_metrics(run_id, {f"test/{k}": v for k, v in metrics.items()}, 7, 1000)
    tracker.end_run(run_id, status, reason)
    return run_id


def only(tracker, study):
    (cell,) = tracker.cells(study)
    return cell


def test_open_cell__idempotent_and_seeds_grow(tracker, study, key):
    cell = tracker.open_cell(key("lora's"), {"init_args": {"rank": 8}}, [0, 1], 0)
    assert tracker.open_cell(key("lora's"), {"init_args": {"rank": 8}}, [1, 2], 3) == cell
    record = only(tracker, study)
    assert (record.cell_id, record.key, record.seeds) == (cell, key("lora's"), (0, 1, 2))
    assert tracker.open_cell(key("full"), {}, [0], 1) != cell
    assert [c.key.technique for c in tracker.cells(study)] == ["full", "lora's"]


FACTS = {"slips": MetricFacts(False, "share"), "f1/<class>": MetricFacts(True, "share")}


def test_open_cell__facts_about_metrics_are_kept_and_come_to_older_cells(tracker, study, key):
    cell = tracker.open_cell(key("lora"), {}, [0], 0)
    assert only(tracker, study).facts == {}
    assert tracker.open_cell(key("lora"), {}, [0], 0, facts=to_tag(FACTS)) == cell
    assert only(tracker, study).facts == FACTS
    tracker.open_cell(key("lora"), {}, [1], 0)
    assert only(tracker, study).facts == FACTS


def test_open_cell__facts_about_many_metrics_fit_into_the_tags_of_every_store(
        tracker, uri, study, key):
    many = {f"recall_at_a_precision_of_{n}": MetricFacts(True, "share") for n in range(300)}
    cell = tracker.open_cell(key("lora"), {}, [0], 0, facts=to_tag(many))
    assert only(tracker, study).facts == many
    tags = MlflowClient(uri).get_run(cell).data.tags
    assert max(map(len, tags.values())) <= 5000 < len(to_tag(many))
    search = tracker.open_sweep(key("lora"), "lr", to_tag(many))
    assert tracker.sweep_facts(study, "lr") == [many]
    trial = MlflowClient(uri).get_run(tracker.open_trial(search, 0, 0, {}, {}))
    assert not [name for name in trial.data.tags if name.startswith("ftlab.metrics")]
    tracker.open_cell(key("lora"), {}, [0], 0, facts=to_tag(FACTS))
    assert only(tracker, study).facts == FACTS, "where tags of a longer record are left"


@pytest.mark.parametrize("text", ["{", "[1]", '{"a":1}', '{"a":[true,"parsec"]}', '{"a":[1,"share"]}'])
def test_facts__of_another_hand_are_none(text):
    assert from_tag(text) == {}


def test_end_cell__intervals_keep_to_the_range_that_the_record_states(tracker, uri, study, key):
    cell = tracker.open_cell(key("lora"), {}, [0, 1], 0, facts=to_tag(FACTS))
    for seed, value in enumerate((0.01, 0.2)):
        run = tracker.open_run(cell, seed, {})
        tracker.log_metrics(run, {"test/slips": value, "test/skids": value}, 0, 0)
        tracker.end_run(run, "FINISHED")
    tracker.end_cell(cell)
    metrics = only(tracker, study).metrics
    assert metrics["test/slips.ci_low"] >= 0 > metrics["test/skids.ci_low"]


def test_open_study__idempotent_with_artifacts_beside_the_store(tracker, uri, study):
    Tracker(uri).open_study(study, {"question": "again?"})
    experiment = MlflowClient(uri).get_experiment_by_name(study)
    assert experiment.tags["question"] == "again?"
    root = uri.removeprefix("sqlite:///").replace("mlflow.db", "mlartifacts")
    assert experiment.artifact_location == f"file://{root}"


def test_open_study__wal(tracker, uri):
    database = sqlite3.connect(uri.removeprefix("sqlite:///"))
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


def test_open_study__a_deleted_experiment(tracker, uri, study):
    client = MlflowClient(uri)
    client.delete_experiment(client.get_experiment_by_name(study).experiment_id)
    with pytest.raises(InputError, match="deleted"):
        tracker.open_study(study, {})


def test_runs__lie_under_their_cell_with_truthful_tags(tracker, uri, study, key):
    cell = tracker.open_cell(key("lora"), {"init_args": {"rank": 8}}, [0], 4)
    child = run(tracker, cell, 0, accuracy=0.5)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study).experiment_id
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{cell}'")
    assert [r.info.run_id for r in found] == [child]
    tags = found[0].data.tags
    assert {k: v for k, v in tags.items() if k.startswith("ftlab.") and k != "ftlab.id"} == {
        "ftlab.kind": "run",
        "ftlab.study": study,
        "ftlab.backbone": "minilm",
        "ftlab.dataset": "bbc",
        "ftlab.technique": "lora",
        "ftlab.config": "c0ffee",
        "ftlab.seed": "0",
        "ftlab.order": "4",
        "ftlab.attempt": "1",
    }
    assert tags["mlflow.user"] == tags["mlflow.source.name"] == "ftlab"
    assert tags["mlflow.runName"] == "lora seed 0"
    parent = client.get_run(cell)
    assert parent.data.tags["ftlab.kind"] == "cell"
    assert parent.data.tags["mlflow.runName"] == "lora on bbc from minilm"
    assert parent.data.params == {"init_args.rank": "8", VERDICT: "yes"}


def test_open_run__what_a_kill_left_becomes_killed_and_attempts_stay_visible(
    tracker, uri, study, key
):
    cell = tracker.open_cell(key("lora"), {}, [0], 0)
    left = tracker.open_run(cell, 0, {})
    again = Tracker(uri)  # another process, after the kill
    again.open_study(study, {})
    assert again.open_cell(key("lora"), {}, [0], 0) == cell
    failed = run(again, cell, 0, "FAILED", "non-finite loss")
    assert again.finished(cell) == set()
    done = run(again, cell, 0)
    client = MlflowClient(uri)
    told = {r: client.get_run(r) for r in (left, failed, done)}
    assert [r.info.status for r in told.values()] == ["KILLED", "FAILED", "FINISHED"]
    assert [r.data.tags["ftlab.attempt"] for r in told.values()] == ["1", "2", "3"]
    assert told[failed].data.tags["ftlab.reason"] == "non-finite loss"
    assert again.finished(cell) == {0}
    assert [r.run_id for r in only(again, study).runs] == [done]


def test_finished__wins_over_a_later_failure(tracker, study, key):
    cell = tracker.open_cell(key("lora"), {}, [0], 0)
    done = run(tracker, cell, 0)
    run(tracker, cell, 0, "FAILED")
    assert [r.run_id for r in only(tracker, study).runs] == [done]


def test_end_cell__aggregates_the_finished_and_says_the_truth(tracker, uri, key):
    cell = tracker.open_cell(key("lora"), {}, [0, 1, 2], 0)
    values = [0.5, 0.7]
    for seed, value in enumerate(values):
        run(tracker, cell, seed, accuracy=value)
    run(tracker, cell, 2, "FAILED", "oom", accuracy=0.1)
    client = MlflowClient(uri)
    tracker.end_cell(cell)
    assert client.get_run(cell).info.status == "FAILED"
    tracker.end_cell(cell, interrupted=True)
    parent = client.get_run(cell)
    assert parent.info.status == "KILLED"
    assert parent.data.tags["ftlab.reason"] == "2 of 3 seeds finished"
    # a share's half width is Student's on the logit scale at the mean
    half = stats.t.ppf(0.975, 1) * stats.sem(values) / (0.6 * 0.4)
    low, high = expit(logit(0.6) - half), expit(logit(0.6) + half)
    measured = {k.split(".")[-1]: v for k, v in parent.data.metrics.items()}
    assert measured == pytest.approx(
        {"mean": 0.6, "std": math.sqrt(0.02), "n": 2, "ci_low": low, "ci_high": high}
    )
    tracker.open_cell(key("lora"), {}, [], 0)
    assert client.get_run(cell).info.status == "RUNNING"
    run(tracker, cell, 2, accuracy=0.9)
    tracker.end_cell(cell)
    parent = client.get_run(cell)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["test/accuracy.mean"] == pytest.approx(0.7)
    assert "ftlab.reason" not in parent.data.tags
    tracker.open_cell(key("lora"), {}, [], 0)
    assert client.get_run(cell).info.status == "FINISHED"


def test_end_cell__hyperparameters_become_metrics_after_what_was_tested(tracker, uri, key):
    order = {}
    for technique, rank in (("lora", 4), ("lora16", 16), ("lora8", 8)):
        params = {"technique": {"class_path": "ftlab.techniques.lora.LoRA",
                                "init_args": {"rank": rank, "lr": 5e-5}}}
        cell = tracker.open_cell(key(technique), params, [0], 0)
        run(tracker, cell, 0, accuracy=0.5)
        tracker.end_cell(cell)
        order[cell] = rank
    client = MlflowClient(uri)
    assert next(iter(client.get_run(cell).data.metrics)) == "test/accuracy.mean"
    assert client.get_run(cell).data.params["technique.class_path"] == "LoRA"
    (experiment,) = {client.get_run(cell).info.experiment_id for cell in order}
    found = client.search_runs([experiment], "metrics.`param/rank` > 4",
                               order_by=["metrics.`param/rank` ASC"])
    assert [order[each.info.run_id] for each in found] == [8, 16]
    assert {each.data.metrics["param/lr"] for each in found} == {5e-5}


def test_open_run__has_the_colour_of_its_technique(tracker, uri, key):
    cells = [tracker.open_cell(key(name), {}, [0], n, n % 12) for n, name in enumerate("abb")]
    runs = [tracker.open_run(cell, 0, {}) for cell in cells]
    client = MlflowClient(uri)
    colours = [client.get_run(each).data.tags["mlflow.runColor"] for each in runs]
    assert colours == [*COLOURS[:2], COLOURS[1]]


def test_open_study__keeps_the_table_below_the_question(tracker, uri, study):
    def note():
        return MlflowClient(uri).get_experiment_by_name(study).tags["mlflow.note.content"]

    tracker.open_study(study, {"mlflow.note.content": "which?"})
    assert note() == "which?"
    tracker.describe_study(study, "which?\n\n| table |")
    tracker.open_study(study, {"mlflow.note.content": "which?"})
    assert note() == "which?\n\n| table |"
    tracker.open_study(study, {"mlflow.note.content": "why?"})
    assert note() == "why?"


def test_log_metrics__sent_in_batches_whole_and_in_order(tracker, uri, key, monkeypatch):
    cell = tracker.open_cell(key("lora"), {}, [0], 0)
    run_id = tracker.open_run(cell, 0, {})
    sizes = []
    real = MlflowClient.log_batch

    def spy(self, run_id, metrics=(), **rest):
        sizes.append(len(metrics))
        return real(self, run_id, metrics=metrics, **rest)

    monkeypatch.setattr(MlflowClient, "log_batch", spy)
    for step in range(1200):
        tracker.log_metrics(run_id, {"train/loss": 1.0 / (step + 1)}, step, 1000 + step)
    assert sizes == [500, 500]
    tracker.end_run(run_id, "FINISHED")
    history = MlflowClient(uri).get_metric_history(run_id, "train/loss")
    assert sorted((m.step, m.value) for m in history) == [(s, 1.0 / (s + 1)) for s in range(1200)]


def test_log_metrics__due_after_five_seconds(tracker, uri, key, monkeypatch):
    run_id = tracker.open_run(tracker.open_cell(key("lora"), {}, [0], 0), 0, {})
    now = [0.0]
    monkeypatch.setattr("ftlab.tracking.metrics.time.monotonic", lambda: now[0])
    tracker.flush()
    tracker.log_metrics(run_id, {"a": 1.0}, 0, 0)
    assert "a" not in MlflowClient(uri).get_run(run_id).data.metrics
    now[0] = 5.0
    tracker.log_metrics(run_id, {"b": 1.0}, 0, 0)
    assert {"a", "b"} <= MlflowClient(uri).get_run(run_id).data.metrics.keys()


def test_log_metrics__nan_stays_nan_and_infinity_is_not_a_number(tracker, study, key):
    cell = tracker.open_cell(key("lora"), {}, [0], 0)
    run(tracker, cell, 0, a=math.nan, b=math.inf, c=0.5, **{"odd(name)": 1.0})
    (record,) = only(tracker, study).runs
    assert math.isnan(record.metrics["test/a"])
    assert math.isnan(record.metrics["test/b"])
    assert record.metrics["test/c"] == 0.5
    assert record.metrics["test/odd_name_"] == 1.0
    assert record.tags["ftlab.infinite"] == "test/b"


def test_log__secrets_never_reach_the_store(tracker, uri, key, tmp_path):
    cell = tracker.open_cell(key("lora"), {"hub": {"token": "s3cr3t"}}, [0], 0)
    run_id = tracker.open_run(cell, 0, {"source": "https://me:s3cr3t@host/x"})
    tracker.log_dataset(run_id, "bbc", "d" * 64, "s3://me:s3cr3t@h/x", {"train": {"n": 3}})
    tracker.set_tags(run_id, {"api_key": "s3cr3t", "origin": "git+https://me:s3cr3t@h/r"})
    tracker.end_run(run_id, "FAILED", "could not fetch https://me:s3cr3t@host/x")
    database = sqlite3.connect(uri.removeprefix("sqlite:///"))
    dump = "\n".join(database.iterdump())
    database.close()
    assert "https://host/x" in dump
    assert "s3cr3t" not in dump


def test_log__a_data_set_as_earlier_versions_kept_it_on_disk_is_stored(tracker, key):
    run_id = tracker.open_run(tracker.open_cell(key("lora"), {}, [0], 0), 0, {})
    kept = Write("data set", "data_set", run_id, ("bbc", "d" * 64, "package:x", "train", {"rows": 3}))
    tracker._writer.send(kept, run_id)
    assert tracker.data_sets(run_id) == {"train": {"rows": 3, "fingerprint": "d" * 64}}


def test_log__every_split_of_a_data_set_is_an_input(tracker, uri, key):
    run_id = tracker.open_run(tracker.open_cell(key("lora"), {}, [0], 0), 0, {})
    splits = {"train": {"rows": 3}, "validation": {"rows": 1}, "test": {"rows": 2}}
    for _ in range(2):  # again after an outage
        tracker.log_dataset(run_id, "bbc", "d" * 64, "package:x", splits)
    assert tracker.data_sets(run_id) == {
        split: profile | {"fingerprint": "d" * 64} for split, profile in splits.items()}
    digests = {data.dataset.digest for data in MlflowClient(uri).get_run(run_id).inputs.dataset_inputs}
    assert digests == {"d" * 36, "d" * 25 + "-validation", "d" * 31 + "-test"}


def test_log__data_set_artifacts_and_text(tracker, uri, key, tmp_path):
    run_id = tracker.open_run(tracker.open_cell(key("lora"), {}, [0], 0), 0, {})
    tracker.log_dataset(run_id, "bbc", "d" * 64, "package:x", {"train": {"rows": 3}})
    (tmp_path / "a.txt").write_text("a")
    tracker.log_artifacts(run_id, tmp_path, "files")
    tracker.log_text(run_id, "| row |", "table_row.md")
    client = MlflowClient(uri)
    (data,) = client.get_run(run_id).inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("bbc", "d" * 36)
    assert "d" * 64 in data.dataset.profile
    assert tracker.data_sets(run_id) == {"train": {"rows": 3, "fingerprint": "d" * 64}}
    assert [f.path for f in client.list_artifacts(run_id, "files")] == ["files/a.txt"]
    assert "table_row.md" in [f.path for f in client.list_artifacts(run_id)]
    with pytest.raises(FileNotFoundError):
        tracker.log_artifacts(run_id, tmp_path / "no")


def test_open_run__more_params_than_one_batch_takes(tracker, uri, key):
    cell = tracker.open_cell(key("lora"), {f"p{i}": i for i in range(250)}, [0], 0)
    assert len(MlflowClient(uri).get_run(cell).data.params.keys() - {VERDICT}) == 250


def test_cells__no_such_study_or_store(tracker, tmp_path):
    with pytest.raises(InputError, match="nothing is tracked"):
        tracker.cells("no such study")
    with pytest.raises(InputError, match="no tracking store"):
        Tracker(f"sqlite:///{tmp_path}/mlflow.db").cells("s")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def outage(monkeypatch):
    """Set `outage.on = True`, and every write and read of the store fails."""

    class Outage:
        on = False

    state = Outage()
    for name in ("log_batch", "create_run", "set_terminated", "get_run", "search_runs"):
        real = getattr(MlflowClient, name)

        def method(self, *args, real=real, **kwargs):
            if state.on:
                raise MlflowException("connection refused")
            return real(self, *args, **kwargs)

        monkeypatch.setattr(MlflowClient, name, method)
    monkeypatch.setattr("ftlab.tracking.outbox.time.sleep", lambda seconds: None)
    return state


def test_outage__nothing_stops_and_nothing_is_lost(tracker, uri, study, key, outage, caplog):
    cell = tracker.open_cell(key("lora"), {}, [0, 1], 0)
    run_id = tracker.open_run(cell, 0, {})
    caplog.set_level(logging.WARNING, "ftlab.tracking")
    outage.on = True
    for step in range(600):
        tracker.log_metrics(run_id, {"train/loss": float(step)}, step, step)
    tracker.end_run(run_id, "FINISHED")
    assert tracker.finished(cell) == {0}
    second = tracker.open_run(cell, 1, {"x": 1})
    assert second.startswith("pending-")
    tracker.log_metrics(second, {"test/accuracy": 0.5}, 0, 0)
    tracker.end_run(second, "FINISHED")
    tracker.end_cell(cell)
    other = tracker.open_cell(key("full"), {}, [0], 1)
    tracker.end_cell(other)
    assert [r.message.split(",")[0] for r in caplog.records] == ["tracking store does not answer"]
    outage.on = False
    tracker.close()
    first, later = tracker.cells(study)
    assert len(MlflowClient(uri).get_metric_history(run_id, "train/loss")) == 600
    assert [(r.seed, r.status) for r in first.runs] == [(0, "FINISHED"), (1, "FINISHED")]
    assert first.runs[1].metrics == {"test/accuracy": 0.5}
    assert first.runs[1].params == {"x": "1"}
    assert MlflowClient(uri).get_run(cell).info.status == "FINISHED"
    assert MlflowClient(uri).get_run(later.cell_id).info.status == "FAILED"


def test_outage__tried_again_after_a_pause_not_at_every_call(tracker, key, outage, monkeypatch):
    run_id = tracker.open_run(tracker.open_cell(key("lora"), {}, [0], 0), 0, {})
    now = [100.0]
    monkeypatch.setattr("ftlab.tracking.outbox.time.monotonic", lambda: now[0])
    outage.on = True
    tracker.set_tags(run_id, {"a": "1"})
    outage.on = False
    tracker.flush()
    assert len(tracker._outbox) == 1
    now[0] += 1.0
    tracker.flush()
    assert len(tracker._outbox) == 0


def test_outage__close_says_what_was_not_stored(uri, study, key, outage):
    tracker = Tracker(uri)
    tracker.open_study(study, {})
    run_id = tracker.open_run(tracker.open_cell(key("lora"), {}, [0], 0), 0, {})
    tracker._outbox.patience = 0.05
    outage.on = True
    tracker.log_metrics(run_id, {"a": 1.0, "b": 2.0}, 0, 0)
    tracker.end_run(run_id, "FINISHED")
    with pytest.raises(FtlabError, match=f"2 metrics of {run_id}; FINISHED of {run_id}"):
        tracker.close()
    with pytest.raises(FtlabError, match="does not answer"):
        Tracker(uri).finished("unknown")
    outage.on = False
    tracker.close()


def test_outage__a_run_made_before_the_answer_was_lost_is_not_made_twice(
    tracker, study, key, monkeypatch
):
    cell = tracker.open_cell(key("lora"), {}, [0], 0)
    real = MlflowClient.create_run

    def lost(self, *args, **kwargs):
        real(self, *args, **kwargs)
        monkeypatch.setattr(MlflowClient, "create_run", real)
        raise ConnectionError("reset by peer")

    monkeypatch.setattr(MlflowClient, "create_run", lost)
    run_id = tracker.open_run(cell, 0, {})
    tracker.end_run(run_id, "FINISHED")
    tracker.close()
    (record,) = only(tracker, study).runs
    assert (record.attempt, record.status) == (1, "FINISHED")


def test_refusal__does_not_block_what_follows(uri, study, key):
    tracker = Tracker(uri)
    tracker.open_study(study, {})
    cell = tracker.open_cell(key("lora"), {}, [0], 0)
    tracker.set_tags("0" * 32, {"a": "1"})
    run(tracker, cell, 0)
    assert tracker.finished(cell) == {0}
    with pytest.raises(FtlabError, match="tags a of 0000"):
        tracker.close()
    with pytest.raises(FtlabError, match="refused"):
        tracker.open_run("0" * 32, 0, {})


def test_first_use__prints_nothing(tmp_path, capfd):
    tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db")
    tracker.open_study("s", {})
    tracker.close()
    assert capfd.readouterr() == ("", "")


def test_refusal__artifacts_that_are_gone_do_not_block_what_follows(
    uri, study, key, outage, tmp_path
):
    tracker = Tracker(uri)
    tracker.open_study(study, {})
    run_id = tracker.open_run(tracker.open_cell(key("lora"), {}, [0], 0), 0, {})
    (tmp_path / "files").mkdir()
    outage.on = True
    tracker.set_tags(run_id, {"a": "1"})
    tracker.log_artifacts(run_id, tmp_path / "files")
    tracker.end_run(run_id, "FINISHED")
    (tmp_path / "files").rmdir()
    outage.on = False
    with pytest.raises(FtlabError, match="1 writes: artifacts"):
        tracker.close()
    assert MlflowClient(uri).get_run(run_id).info.status == "FINISHED"


def test_open_cell__params_cut_off_half_way_are_completed(tracker, uri, key, monkeypatch):
    real, calls = MlflowClient.log_batch, []

    def cut(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise ConnectionError("reset by peer")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "log_batch", cut)
    tracker.open_cell(key("lora"), {f"p{i}": i for i in range(150)}, [0], 0)
    tracker.close()
    cell = tracker.open_cell(key("lora"), {}, [0], 0)
    assert len(MlflowClient(uri).get_run(cell).data.params.keys() - {VERDICT}) == 150
