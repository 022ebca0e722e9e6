"""Every process of a sweep is killed, again and again, and nothing shows it in the end.

Takes minutes: the trials sleep, and who is killed must import anew. `pytest -m slow` runs it.
"""

import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState
from processes import alive, begin, output_of, records, said, trials, wait_for
from scripted import write_sweep

UNRENDERED = True
KILLS = 15
STUDY = {
    "techniques": {
        "one": {"class_path": "faulty.Faulty"},
        "two": {"class_path": "faulty.Faulty", "trainer": {"devices": 2, "accelerator": "cpu"}},
    },
    "trainer": {"max_epochs": 10},
}
COMMAND = ("sweep", "sweep.yaml", "--allow", "faulty", "--workers", "2")


def sweep(folder: Path, backbone: Path, data: Path) -> None:
    folder.mkdir()
    rate = {"lr": {"low": 1e-5, "high": 1e-1, "log": True}}
    write_sweep(folder, backbone, data, STUDY, trials=6, spaces={"one": rate, "two": rate})


@pytest.mark.slow
def test_kill_storm__exactly_the_budget_and_the_same_best(
    tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    quiet, storm = tmp_path / "quiet", tmp_path / "storm"
    for folder in (quiet, storm):
        sweep(folder, tiny_bert, reviews)
    assert begin(quiet, *COMMAND).wait(900) == 0, said(quiet)
    killed = rage(storm, random.Random(4))
    print(f"killed: {dict(killed)}")
    assert killed.total() >= KILLS
    assert killed.keys() == {"coordinator", "server", "run", "rank"}

    wait_for(lambda: not alive(storm), 60)
    expected, found = trials(quiet), trials(storm)
    assert found.keys() == expected.keys()
    for title, done in found.items():
        assert [each.state for each in done] == [TrialState.COMPLETE] * 6
        assert [each.params for each in done] == [each.params for each in expected[title]]
        assert best(done) == best(expected[title])
    states = records(storm)
    assert states[("COMPLETE", "FINISHED")] == 12
    assert states.keys() <= {("COMPLETE", "FINISHED"), ("LOST", "KILLED")}
    assert records(storm, "sweep") == {("", "FINISHED"): 2}
    assert not (storm / "results" / "small" / ".work").exists()
    assert (storm / "study.tuned.yaml").read_bytes() == (quiet / "study.tuned.yaml").read_bytes()


def best(done: list[FrozenTrial]) -> tuple[int, float]:
    chosen = max(done, key=lambda each: (each.values[0], -each.number))
    return chosen.number, chosen.values[0]


def rage(folder: Path, draw: random.Random) -> Counter[str]:
    """Kill until the sweep is done, and give the command again whenever it was hit; who was hit."""
    hit: Counter[str] = Counter()
    lost: Counter[str] = Counter()  # attempts of a trial that count; it has three
    seen: set[str] = set()
    ended = 0  # trials, when the coordinator was last hit
    process = begin(folder, *COMMAND, NAP="0.5")
    while process.poll() is None or process.returncode != 0:
        if process.poll() is not None:
            assert process.returncode == -signal.SIGKILL, said(folder)
            process = begin(folder, *COMMAND, NAP="0.5")
        until = time.monotonic() + draw.uniform(2, 5)
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.05)
        members = kinds(folder, process.pid)
        going = {attempt for _, _, attempt in members if attempt}
        if going <= seen:
            continue  # who is hit before its first trial begins comes to nothing
        tired = {attempt for attempt in going if lost[trial_of(attempt)] == 2}
        members = [(kind, pid, attempt) for kind, pid, attempt in members if attempt not in tired
                   and not (kind == "server" and tired)]  # its death costs every trial an attempt
        if (done := over(folder)) == ended and hit["coordinator"]:
            # It would be hit for ever before the trials that it begins anew can end.
            members = [each for each in members if each[0] != "coordinator"]
        if not members:
            continue
        unhit = [each for each in members if each[0] not in hit]  # every kind has its turn
        kind, pid, attempt = draw.choice(unhit or members)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it ended by itself meanwhile
            continue
        hit[kind] += 1
        print(f"kill {hit.total()}: {kind} {attempt}")
        if kind != "coordinator":
            lost.update(map(trial_of, [attempt] if attempt else going))
        if not attempt:
            seen = going
        if kind == "coordinator":
            ended = done
    return hit


def over(folder: Path) -> int:
    return sum(each.state.is_finished() for done in trials(folder).values() for each in done)


def trial_of(attempt: str) -> str:
    return attempt.rpartition("-")[0]


def kinds(folder: Path, coordinator: int) -> list[tuple[str, int, str]]:
    """Our processes: kind, number, and of those of a trial which attempt at which trial."""
    found = [("coordinator", coordinator, "")]
    for pid, command in alive(folder).items():
        if "ftlab" not in command or output_of(pid).endswith("said.log"):  # a coordinator
            continue
        attempt = re.search(r"/((?:one|two)-\w+-\d+-\d+)-seed0/", output_of(pid))
        if attempt is None:
            found.append(("server", pid, ""))
        else:
            found.append(("run" if os.getpgid(pid) == pid else "rank", pid, attempt[1]))
    return found
