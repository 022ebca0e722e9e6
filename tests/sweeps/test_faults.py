"""Faults injected into real sweeps through the command line."""

import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState
from processes import alive, begin, records, said, trials, wait_for
from scripted import write_sweep

from ftlab.sweeps.leases import Lease

UNRENDERED = True
FAULTY = {"techniques": {"faulty": {"class_path": "faulty.Faulty"}}, "trainer": {"max_epochs": 2}}


@pytest.mark.slow
def test_faults__fail_their_trials_alone_each_with_its_reason(
    tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    """Out of memory of both kinds, a NaN loss, a hang, an exception: half of the trials."""
    spaces = {"faulty": {"x": {"low": 0, "high": 9}}}
    write_sweep(tmp_path, tiny_bert, reviews, FAULTY, trials=10, sampler="BruteForce", spaces=spaces)
    command = ("sweep", "sweep.yaml", "--allow", "faulty", "--workers", "2", "--timeout", "30")
    assert begin(tmp_path, *command).wait(900) == 1, said(tmp_path)
    ((title, done),) = trials(tmp_path).items()
    assert title == "sweep: faulty on reviews from bert"
    found = {each.params["x"]: each.user_attrs.get("ftlab.reason", "") for each in done}
    assert "killed by SIGKILL, out of memory perhaps, in 3 attempts" in found[1]
    assert found[2].startswith("OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB")
    assert found[3] == "non-finite loss at or before step 11" or "non-finite loss" in found[3]
    assert re.match(r"no sign of life for 3\d s", found[4])
    assert found[5] == "RuntimeError: no luck"
    assert "3" in found[6]
    assert [each.state.name for each in sorted(done, key=lambda t: t.params["x"])] == [
        "COMPLETE", *["FAIL"] * 6, *["COMPLETE"] * 3]
    listed = said(tmp_path)
    for x, reason in found.items():  # the table of failures, at the end
        (number,) = (each.number for each in done if each.params["x"] == x)
        line = f"faulty on reviews from bert, trial {number}: {reason} (output: "
        assert (line in listed) == bool(reason), line
    assert records(tmp_path) == {
        ("COMPLETE", "FINISHED"): 4, ("FAIL", "FAILED"): 6, ("LOST", "KILLED"): 2}
    assert not alive(tmp_path)


MOMENTS = 20


@pytest.mark.slow
def test_signals__at_any_moment_leave_everything_in_order(
    tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    write_sweep(tmp_path, tiny_bert, reviews, FAULTY | {"trainer": {"max_epochs": 4}}, trials=500,
                spaces={"faulty": {"lr": {"low": 1e-3, "high": 1e-1, "log": True}}})
    seed = 20_261_122
    draw, longest = random.Random(seed), begun(tmp_path)
    for moment in range(MOMENTS):
        number = draw.choice([signal.SIGINT, signal.SIGTERM])
        # as often while it imports and reads as while trials go on
        after = draw.uniform(0.5, 2 * longest)
        print(f"seed {seed}, moment {moment}: {number.name} after {after:.2f} s")
        process = begin(tmp_path, "sweep", "sweep.yaml", "--allow", "faulty", "--workers", "2",
                        NAP="0.2")
        time.sleep(after)
        process.send_signal(number)
        assert process.wait(120) == 128 + number, said(tmp_path)
        in_order(tmp_path)
    assert "Traceback" not in said(tmp_path)
    assert said(tmp_path).count("the same command continues") == MOMENTS + 1


def begun(folder: Path) -> float:
    """Seconds until the first trial has ended; the sweep is stopped then."""
    start = time.monotonic()
    process = begin(folder, "sweep", "sweep.yaml", "--allow", "faulty", "--workers", "2", NAP="0.2")
    wait_for(lambda: "trial 0: val/accuracy" in said(folder))
    seconds = time.monotonic() - start
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143, said(folder)
    in_order(folder)
    return seconds


def in_order(folder: Path) -> None:
    """No process, no folder of a trial, no lease, and nothing that says RUNNING."""
    wait_for(lambda: not alive(folder))
    assert not list(folder.glob("results/small/.work/*/*"))
    assert not [status for _, status in records(folder) if status == "RUNNING"]
    assert {status for _, status in records(folder, "sweep")} == {"KILLED"}
    for each in (trial for found in trials(folder).values() for trial in found):
        assert each.state in (TrialState.COMPLETE, TrialState.RUNNING)
        assert each.state == TrialState.COMPLETE or Lease.of(each).owner is None


def test_second_ctrl_c__leaves_nothing_behind(tmp_path: Path, tiny_bert: Path, reviews: Path) -> None:
    """A run that is deep in a computation gets five seconds to end; whoever cannot wait, need not."""
    write_sweep(tmp_path, tiny_bert, reviews, FAULTY, trials=2)
    process = begin(tmp_path, "sweep", "sweep.yaml", "--allow", "faulty", NAP="3600")
    wait_for(lambda: any(tmp_path.glob("results/small/.work/sweep/*/events.jsonl")))
    deaf = [pid for pid in alive(tmp_path) if pid != process.pid][-1]
    os.kill(deaf, signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 130, said(tmp_path)
    wait_for(lambda: not alive(tmp_path))
    assert {status for _, status in records(tmp_path)} == {"KILLED"}


@pytest.mark.slow
def test_two_commands__share_the_trials_and_a_killed_one_s_go_to_the_other(
    tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    write_sweep(tmp_path, tiny_bert, reviews, FAULTY | {"trainer": {"max_epochs": 4}}, trials=8,
                spaces={"faulty": {"lr": {"low": 1e-3, "high": 1e-1, "log": True}}})
    command = ("sweep", "sweep.yaml", "--allow", "faulty", "--workers", "1")
    one, other = begin(tmp_path, *command, NAP="0.5"), begin(tmp_path, *command, NAP="0.5")

    def both() -> bool:
        running = [each for found in trials(tmp_path).values() for each in found
                   if each.state == TrialState.RUNNING]
        owners = {Lease.of(each).owner for each in running} - {None}
        return len(owners) == 2 and records(tmp_path)["", "RUNNING"] == 2  # it knows of both

    wait_for(lambda: (tmp_path / "optuna.journal").exists() and both())
    one.kill()
    assert other.wait(900) == 0, said(tmp_path)
    one.wait()
    (done,) = trials(tmp_path).values()
    assert [each.state for each in done] == [TrialState.COMPLETE] * 8
    assert max(Lease.of(each).token for each in done) == 2
    assert records(tmp_path) == {("COMPLETE", "FINISHED"): 8, ("LOST", "KILLED"): 1}
    wait_for(lambda: not alive(tmp_path))


@pytest.mark.slow
def test_storage__may_be_gone_for_a_minute(tmp_path: Path, tiny_bert: Path, reviews: Path) -> None:
    write_sweep(tmp_path, tiny_bert, reviews, FAULTY | {"trainer": {"max_epochs": 4}}, trials=6,
                spaces={"faulty": {"lr": {"low": 1e-3, "high": 1e-1, "log": True}}})
    process = begin(tmp_path, "sweep", "sweep.yaml", "--allow", "faulty", "--workers", "2",
                    NAP="0.3")
    wait_for(lambda: "trial 0: val/accuracy" in said(tmp_path))
    journal, away = tmp_path / "optuna.journal", tmp_path / "away"
    journal.rename(away)
    time.sleep(60)
    assert process.poll() is None
    assert not journal.exists()  # nobody began another one
    away.rename(journal)
    assert process.wait(300) == 0, said(tmp_path)
    assert "does not answer" in said(tmp_path)
    (done,) = trials(tmp_path).values()
    assert [each.state for each in done] == [TrialState.COMPLETE] * 6
    assert max(Lease.of(each).token for each in done) == 1  # what went on kept its lease
    assert records(tmp_path) == {("COMPLETE", "FINISHED"): 6}


@pytest.mark.parametrize("devices", [1, 2])
def test_bad_trials__stop_early_on_all_ranks(
    devices: int, tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    """Pruned by a threshold that no probe with such a rate reaches after its first epoch."""
    study = FAULTY | {"trainer": {"max_epochs": 30, "devices": devices, "accelerator": "cpu"}}
    write_sweep(tmp_path, tiny_bert, reviews, study, trials=2, objective="val/loss",
                spaces={"faulty": {"lr": {"choices": [1e-9, 2e-9]}}},
                pruner={"class_path": "Threshold", "init_args": {"upper": 0.05}})
    command = ("sweep", "sweep.yaml", "--allow", "faulty", "--workers", "1")
    assert begin(tmp_path, *command, NAP="0.3").wait(900) == 0, said(tmp_path)
    (done,) = trials(tmp_path).values()
    for each in done:
        assert each.state == TrialState.PRUNED
        assert each.last_step < 30
        assert each.values == [each.intermediate_values[each.last_step]]
    assert records(tmp_path) == {("PRUNED", "KILLED"): 2}
