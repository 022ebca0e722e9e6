"""Who does which trial, whatever becomes of coordinators and storages; nothing is trained."""

import collections
import os
import signal
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from optuna.distributions import CategoricalDistribution

from ftlab.errors import InputError
from ftlab.sweeps import liveness as owner_module
from ftlab.sweeps import storage as storage_module
from ftlab.sweeps.liveness import LivenessWatch, Owner
from ftlab.sweeps.search_space import own_values
from ftlab.sweeps.trial_queue import ATTEMPTS, TrialQueue

UNRENDERED = True


def trials(board):
    return [t for standing in board.standing() for t in standing.trials]


def finish(board, value=0.5):
    """Do what is left; the held."""
    done = []
    while held := board.take():
        board.report(held, 0, value)
        assert board.complete(held, [value])
        done.append(held)
    return done


def vanish(board):
    """Make the board's coordinator one whose process is gone."""
    board.owner.process = f"{os.getpid()} 1"
    board.beat(now=True)


def elsewhere(board):
    """Make the board's coordinator one of another machine."""
    board.owner.machine = "elsewhere"
    board.beat(now=True)


class Crash(BaseException):
    """The process ends here."""


def throw(error):
    raise error


# What a board gives


def test_take__the_own_setting_first_and_cells_in_turn(make_board, tmp_path):
    board = make_board(str(tmp_path / "j"), trials=3)
    done = finish(board)
    assert [held.number for held in done] == [0, 0, 1, 1, 2, 2]
    for held in done[:2]:
        space = board.sweep.spaces[held.cell.key.technique]
        assert held.values == own_values(held.cell.technique, space)
    assert board.over() and board.take() is None


def test_take__the_same_values_whoever_asks(make_board, tmp_path):
    alone = finish(make_board(str(tmp_path / "a"), trials=4, sampler="TPE"))
    boards = [make_board(str(tmp_path / "b"), trials=4, sampler="TPE") for _ in range(3)]
    shared = []
    while held := boards[len(shared) % 3].take():
        assert boards[len(shared) % 3].complete(held, [0.5])
        shared.append(held)
    assert [held.values for held in alone] == [held.values for held in shared]


def test_take__no_new_ones_unless_more(make_board, tmp_path):
    board = make_board(str(tmp_path / "j"))
    held = board.take()
    assert board.take(more=False) is None
    board.release(held)
    assert board.take(more=False).number == held.number


def test_complete__a_value_that_is_no_number_fails_the_trial(make_board, tmp_path):
    board = make_board(str(tmp_path / "j"), trials=1)
    assert board.complete(board.take(), [float("nan")])
    (trial,) = trials(board)
    assert trial.state.name == "FAIL" and "val/accuracy is nan" in trial.user_attrs["ftlab.reason"]


@pytest.mark.parametrize("last", [0.25, float("nan")])
def test_prune__the_last_report_counts(make_board, address, last):
    board = make_board(address, trials=1)
    held = board.take()
    board.report(held, 0, 0.5)
    board.report(held, 1, last)
    assert board.prune(held)
    (trial,) = trials(board)
    assert trial.state.name == "PRUNED" and trial.values == ([0.25] if last == 0.25 else None)


def test_report__prunes_what_is_worse_at_the_same_step(make_board, tmp_path):
    pruner = {"class_path": "Median", "init_args": {"n_startup_trials": 1}}
    board = make_board(str(tmp_path / "j"), trials=2, pruner=pruner)
    good, _, bad = board.take(), board.take(), board.take()
    assert good.cell == bad.cell
    for step in range(3):
        assert not board.report(good, step, 0.9)
    assert board.complete(good, [0.9])
    assert board.report(bad, 0, 0.1)


def test_report__an_attempt_after_another_is_judged_where_that_one_stood(make_board, tmp_path):
    pruner = {"class_path": "Threshold", "init_args": {"lower": 0.5}}
    board = make_board(str(tmp_path / "j"), trials=1, pruner=pruner)
    held = board.take()
    assert [board.report(held, *each) for each in ((0, 0.6), (1, 0.7), (2, 0.1))] == [0, 0, 1]
    board.release(held, attempted=True)  # its process vanished before it was told
    again = board.take()
    assert [board.report(again, *each) for each in ((0, 0.6), (1, 0.7), (2, 0.1))] == [0, 0, 1]


def test_tell__a_sampler_that_has_tried_everything_is_no_failure(make_board, tmp_path):
    spaces = {"probe": {}, "lora": {"rank": CategoricalDistribution([4, 8, 16])}}
    board = make_board(str(tmp_path / "j"), trials=3, sampler="BruteForce", spaces=spaces)
    assert [held.values.get("rank") for held in finish(board)].count(None) == 1
    assert board.over()


# Sweeps of one name


@pytest.mark.parametrize("change", ["spaces", "cells", "objectives", "directions"])
def test_board__a_changed_sweep_of_the_same_name_is_refused(make_board, tmp_path, change):
    first = make_board(str(tmp_path / "j"))
    sweep, direction = first.sweep, "maximize"
    if change == "spaces":
        sweep = replace(sweep, spaces={**sweep.spaces, "probe": {}})
    elif change == "cells":  # no cell in common, so that no title is
        cells = tuple(replace(c, key=replace(c.key, technique=f"{c.key.technique}2"))
                      for c in sweep.study.cells)
        spaces = {f"{name}2": space for name, space in sweep.spaces.items()}
        sweep = replace(sweep, study=replace(sweep.study, cells=cells), spaces=spaces)
    elif change == "objectives":
        sweep = replace(sweep, objectives=("val/loss",))
    else:
        direction = "minimize"
    before = len((tmp_path / "j").read_bytes())
    with pytest.raises(InputError, match="another sweep called sweep"):
        TrialQueue(sweep, first.storage, [direction])
    assert len((tmp_path / "j").read_bytes()) == before


def test_board__more_trials_are_the_same_sweep(make_board, tmp_path):
    finish(make_board(str(tmp_path / "j"), trials=1))
    assert len(finish(make_board(str(tmp_path / "j"), trials=2))) == 2


# Coordinators that end, stop and come back


def _hold(make_board, address, lease, say):
    board = make_board(address, lease=lease)
    held = board.take()
    say((held.cell.key.technique, held.number))
    while True:
        board.beat()
        time.sleep(lease / 20)


def _stubborn(make_board, address, lease, say):
    """Hold a trial without a beat until told by a signal, then tell it."""
    go = []
    signal.signal(signal.SIGUSR1, lambda *_: go.append(True))
    board = make_board(address, lease=lease)
    held = board.take()
    say((held.cell.key.technique, held.number))
    while not go:
        board.beat()
        time.sleep(0.01)
    say((board.report(held, 0, 0.1), board.complete(held, [0.1])))


def test_killed__its_trial_is_taken_over_at_once(address, make_board, crowd):
    pid = crowd.start(_hold, make_board, address, 60.0)
    first = crowd.hear()
    board = make_board(address)
    other = board.take()
    assert (other.cell.key.technique, other.number) != first
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while (held := board.take(more=False)) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (held.cell.key.technique, held.number) == first
    assert (held.token, held.attempts) == (2, 1)  # its own process did nothing wrong
    assert board.complete(held, [0.5]) and board.complete(other, [0.5])


def test_gone_elsewhere__its_trial_is_taken_over_after_the_lease(address, make_board):
    lost, board = make_board(address, lease=1.0), make_board(address, lease=1.0)
    elsewhere(lost)
    held, begin = lost.take(), time.monotonic()
    while (taken := board.take(more=False)) is None:
        board.beat()
        time.sleep(0.02)
    assert time.monotonic() - begin >= 1.0
    assert taken.number == held.number and taken.token == 2


def test_alive_elsewhere__keeps_its_trial(make_board, tmp_path):
    alive, board = (make_board(str(tmp_path / "j"), lease=0.4) for _ in "ab")
    elsewhere(alive)
    alive.take()
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        alive.beat()
        board.beat()
        assert board.take(more=False) is None
        time.sleep(0.01)


def test_stopped__done_once_and_the_late_result_is_refused(address, make_board, crowd):
    pid = crowd.start(_stubborn, make_board, address, 0.5)
    first = crowd.hear()
    os.kill(pid, signal.SIGSTOP)
    board = make_board(address, lease=0.5)
    while (held := board.take(more=False)) is None:
        board.beat()
        time.sleep(0.02)
    assert (held.cell.key.technique, held.number) == first
    os.kill(pid, signal.SIGUSR1)
    os.kill(pid, signal.SIGCONT)
    assert crowd.hear() == (True, False)  # to be stopped, and refused
    assert board.complete(held, [0.9])
    (trial,) = [t for t in trials(board) if t.state.is_finished()]
    assert trial.values == [0.9] and not trial.intermediate_values


def test_stopped__late_after_the_end_is_refused_as_well(make_board, tmp_path):
    zombie, board = (make_board(str(tmp_path / "j")) for _ in "ab")
    held = zombie.take()
    vanish(zombie)
    taken = board.take()
    assert taken.number == held.number and board.complete(taken, [0.9])
    assert zombie.report(held, 5, 0.1)
    assert not zombie.complete(held, [0.1]) and not zombie.fail(held, "late")
    assert not zombie.release(held)
    (trial,) = [t for t in trials(board) if t.state.is_finished()]
    assert trial.values == [0.9] and "ftlab.reason" not in trial.user_attrs


def test_attempts__count_where_the_trials_own_process_vanished(make_board, address):
    board = make_board(address, trials=1)
    seen = []
    for _ in range(ATTEMPTS):
        held = board.take()
        seen.append(held.attempts)
        board.release(held)  # an interruption does not count
        held = board.take()
        seen.append(held.attempts)
        board.release(held, attempted=True)
    assert seen == [1, 1, 2, 2, 3, 3]


def test_clock__a_shift_changes_nothing(make_board, tmp_path, monkeypatch):
    real = time.time
    boards = [make_board(str(tmp_path / "j"), lease=30.0, trials=3) for _ in "ab"]
    held = boards[0].take()
    elsewhere(boards[0])
    for shift in (86400.0, -86400.0, 3600.0):
        monkeypatch.setattr(time, "time", lambda shift=shift: real() + shift)
        boards[1].beat(now=True)
        taken = boards[1].take()
        assert (taken.cell, taken.number) != (held.cell, held.number)
        assert boards[1].complete(taken, [0.5])
    assert boards[0].complete(held, [0.5])


# Watching


def _ticking(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(owner_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def record(beat):
    return {"beat": beat, "machine": "elsewhere", "process": "1 1"}


def test_watch__a_lease_of_silence(monkeypatch):
    clock, watch = _ticking(monkeypatch), LivenessWatch(60.0)
    for _ in range(5):
        assert not watch.gone("a", record(1))
        clock.now += 15
    assert watch.gone("a", record(1))
    assert not watch.gone("a", record(2))  # back again


@pytest.mark.parametrize("away", [70.0, 600.0, 86400.0])
def test_watch__what_it_did_not_see_shows_little(monkeypatch, away):
    clock, watch = _ticking(monkeypatch), LivenessWatch(60.0)
    watch.look("a", record(1))
    clock.now += 15
    watch.look("a", record(1))
    clock.now += away  # an outage, or our own SIGSTOP
    assert not watch.gone("a", record(1))
    clock.now += 15
    assert not watch.gone("a", record(1))  # time to beat again
    clock.now += 15
    assert watch.gone("a", record(1))


def test_watch__an_owner_that_never_beat(monkeypatch):
    clock, watch = _ticking(monkeypatch), LivenessWatch(1.0)
    assert not watch.gone("a", None)
    for _ in range(4):
        clock.now += 0.3
        watch.look("a", None)
    assert watch.gone("a", None)


def test_watch__a_process_hidden_by_its_user_counts_as_alive(monkeypatch):
    here = Owner.this()
    watch = LivenessWatch(60.0)
    gone = {**here.record(1), "process": "1 1"}
    assert watch.gone("a", gone)  # number 1 was started at another time
    monkeypatch.setattr(owner_module, "_started", lambda pid: "")

    def refuse(pid, number):
        raise PermissionError

    monkeypatch.setattr(owner_module.os, "kill", refuse)
    assert not watch.gone("b", gone)


# Crashes and outages between any two writes


def test_crash__between_any_two_writes(make_board, tmp_path, at_write, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    number, ended = 0, False
    while not ended:
        number += 1
        for after in (False, True):
            path = tmp_path / f"{number} {after}"
            board = make_board(str(path), trials=2)
            count = at_write(board, number, lambda: throw(Crash()), after)
            try:
                finish(board)
                ended = True
            except Crash:
                vanish(board)
            other = make_board(str(path), trials=2)
            finish(other)
            _check_all_done(other, number)
            assert {t.user_attrs["ftlab.lease"]["attempts"] for t in trials(other)} == {1}, number
    assert count.left >= 0 and number > 20


def _check_all_done(board, number):
    assert collections.Counter(t.state.name for t in trials(board)) == {"COMPLETE": 4}, number
    for standing in board.standing():
        space = board.sweep.spaces[standing.cell.key.technique]
        assert standing.trials[0].params == own_values(standing.cell.technique, space), number
        assert all(t.params.keys() == space.keys() for t in standing.trials), number


@pytest.mark.parametrize("after", [False, True])
def test_outage__at_any_write(make_board, tmp_path, monkeypatch, at_write, after):
    """`finish` asserts that each is told; a write may have succeeded and only seemed to fail."""
    monkeypatch.setattr(storage_module, "PAUSE", 0.0)
    monkeypatch.setattr(os, "fsync", lambda file: None)
    number, left = 0, 0
    while left <= 0:
        number += 1
        board = make_board(str(tmp_path / str(number)), trials=2)
        count = at_write(board, number, lambda: throw(OSError("gone")), after)
        finish(board)
        _check_all_done(board, number)
        left = count.left
    assert number > 20
