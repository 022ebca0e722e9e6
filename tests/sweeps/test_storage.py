"""Many processes, outages and torn ends; on each kind of storage."""

import collections
import errno
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from ftlab.errors import FtlabError, InputError
from ftlab.sweeps import storage as module
from ftlab.sweeps.journal_storage import FileLock
from ftlab.sweeps.storage import Storage


def _work(make_board, address, trials, most, steps, say):
    """Do at most so many trials; says which."""
    os.fsync = lambda file: None  # what is tested is who writes, not the disk
    board, done = make_board(address, trials=trials), []
    while len(done) < most and (held := board.take()):
        board.beat()  # as the coordinator's loop does; a slow machine may need a lease's length
        for step in range(steps):
            board.report(held, step, step / held.token)
        assert board.complete(held, [1.0])
        done.append((held.cell.key.technique, held.number))
    say(done)


def test_storage__eight_processes_lose_nothing(address, make_board, crowd):
    for _ in range(8):
        crowd.start(_work, make_board, address, 20, 5, 5)
    assert [len(crowd.hear(which)) for which in range(8)] == [5] * 8
    trials = [t for s in make_board(address, trials=20).standing() for t in s.trials]
    assert collections.Counter(t.state.name for t in trials) == {"COMPLETE": 40}
    assert sum(len(t.intermediate_values) for t in trials) == 200
    assert all(t.user_attrs["ftlab.lease"]["token"] == 1 for t in trials)


def test_storage__ten_processes_take_each_trial_once(address, make_board, crowd):
    board = make_board(address, trials=25)
    for _ in range(12):  # a part of them waits in the queue, the rest is new
        board._searches[board.sweep.study.cells[0].key.config].enqueue_trial({"lr": 0.001})
    board.storage.close()
    for _ in range(10):
        crowd.start(_work, make_board, address, 25, 50, 0)
    done = [each for which in range(10) for each in crowd.hear(which)]
    assert len(done) == len(set(done)) == 50


def test_exclusively__one_at_a_time_and_who_waits_beats(address, make_board, crowd):
    def hold(say):
        with make_board(address).storage._lock(lambda: None):
            say("ours")
            time.sleep(2.5)
            say("done")

    board, waited = make_board(address), []
    board.storage.close()
    crowd.start(hold)
    crowd.hear()
    board.storage.waiting = lambda: waited.append(time.monotonic())
    board.take()
    assert crowd.hear(seconds=0.5) == "done"
    assert waited


def test_patiently__an_outage_is_said_once_and_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.001)
    storage, said, fails = Storage(str(tmp_path / "j")), [], [OSError("gone")] * 3
    storage.note = said.append

    def act():
        if fails:
            raise fails.pop()
        return "done"

    assert storage.patiently(act) == "done"
    assert len(said) == 2 and "does not answer: gone" in said[0] and "again" in said[1]


def test_patiently__gives_up_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.001)
    storage = Storage(str(tmp_path / "j"), patience=0.01)
    os.remove(tmp_path / "j")
    with pytest.raises(FtlabError, match="No such file"):
        storage.exclusively(lambda: storage.backend.get_all_studies())


def test_patiently__a_refused_write_is_no_outage(tmp_path):
    storage = Storage(str(tmp_path / "j"))

    def act():
        raise PermissionError(13, "Permission denied", "j")

    with pytest.raises(InputError, match="Permission denied"):
        storage.exclusively(act)


@pytest.mark.parametrize(("address", "said"), [
    ("sqlite:///optuna.db", "neither"), ("postgres://h/d", "neither"),
    ("postgresql+pg8000://me:s3cr3t@h/d", "driver"), ("nowhere/optuna.journal", "No such file"),
    ("postgresql://me:s3cr3t@127.0.0.1:9/d", "refused|extra|driver"), (".", "directory"),
])
def test_storage__what_cannot_be_opened(address, said):
    with pytest.raises(InputError, match=said) as caught:
        Storage(address)
    assert "s3cr3t" not in str(caught.value) and "\n" not in caught.value.what


@pytest.mark.parametrize("text", ['{"a": 1}\n', "[1]\n[2]\n", "1\n", "a\nb\n", '{"op_code": 99}\n'])
def test_journal__a_file_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "j").write_text(text)
    with pytest.raises(InputError, match="journal"):
        Storage(str(tmp_path / "j")).exclusively(lambda: None)
    assert (tmp_path / "j").read_text() == text


def test_journal__a_line_that_no_crash_left_is_not_cut(tmp_path, make_board):
    (tmp_path / "j").write_text("my only note")
    with pytest.raises(InputError, match="no record"):
        make_board(str(tmp_path / "j"))
    assert (tmp_path / "j").read_text() == "my only note"


def test_journal__torn_at_every_byte_it_opens_and_goes_on(tmp_path, make_board):
    path = tmp_path / "j"
    board = make_board(str(path), trials=2)
    board.complete(board.take(), [0.5])
    board.take()
    whole = path.read_bytes()
    begin = whole.rstrip(b"\n").rfind(b"\n") + 1
    for length in range(begin, len(whole) + 1):
        path.write_bytes(whole[:length])
        other = make_board(str(path), trials=2)
        other.beat(now=True)
        records = [json.loads(line) for line in path.read_bytes().splitlines()]
        assert len(records) == whole[:length].count(b"\n") + 4  # two opened, two beats
        states = [t.state.name for s in make_board(str(path)).standing() for t in s.trials]
        assert states == ["COMPLETE", "RUNNING"]


def test_journal__zeros_at_the_end_are_cut(tmp_path, make_board):
    path = tmp_path / "j"
    make_board(str(path))
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 5000)  # what a file system may leave of an unflushed end
    make_board(str(path))
    assert path.read_bytes().startswith(whole) and b"\0" not in path.read_bytes()


def test_journal__moved_away_and_back_nothing_is_lost(tmp_path, make_board, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.02)
    path, away = tmp_path / "j", tmp_path / "away"
    board, other = (make_board(str(path), lease=0.6, trials=3) for _ in "ab")
    held = other.take()
    path.rename(away)
    back = threading.Timer(1.2, lambda: away.rename(path))
    back.start()
    board.beat(now=True)  # lasts until it is back, twice the lease
    taken = board.take()
    back.join()
    assert (taken.number, taken.cell) != (held.number, held.cell)
    assert not path.with_name("away").exists()
    assert other.complete(held, [0.5]) and board.complete(taken, [0.5])


def test_journal__another_in_its_place_is_an_outage(tmp_path, make_board, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.01)
    path = tmp_path / "j"
    board = make_board(str(path), patience=0.05)
    path.write_bytes(b"")
    with pytest.raises(FtlabError, match="shorter than it was"):
        board.standing()


def test_journal__keeps_no_place_of_old_records(tmp_path, make_board):
    board = make_board(str(tmp_path / "j"))
    for _ in range(50):
        board.beat(now=True)
    assert len(board.storage.backend._backend._log_number_offset) <= 3


def test_journal__one_flush_for_what_is_done_under_the_lock(tmp_path, make_board, monkeypatch):
    board, flushed = make_board(str(tmp_path / "j")), []
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append(flush(file)))
    held = board.take()
    assert len(flushed) == 1
    board.complete(held, [0.5])
    assert len(flushed) == 2
    board.beat(now=True)
    assert len(flushed) == 3


def test_lock__a_stopped_holder_is_named_in_the_end(tmp_path, crowd):
    def hold(say):
        with FileLock(tmp_path / "lock", 1.0).held():
            say("ours")
            time.sleep(60)

    pid = crowd.start(hold)
    crowd.hear()
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(FtlabError, match=f"locked for 0 s by process {pid} on "), \
            FileLock(tmp_path / "lock", 0.1).held():
        pass
    os.kill(pid, signal.SIGKILL)
    with FileLock(tmp_path / "lock", 5.0).held():  # death releases it
        assert Path(tmp_path / "lock").read_text() == (
            f"process {os.getpid()} on {os.uname().nodename}")


@pytest.mark.parametrize(("number", "mend"), [
    (errno.ENOSPC, "free space"), (errno.EDQUOT, "free space"), (errno.EROFS, "another file"),
    (errno.ENOLCK, "can be locked"), (errno.EOPNOTSUPP, "can be locked"),
])
def test_patiently__what_time_does_not_mend_is_said_at_once(tmp_path, number, mend):
    storage, tries = Storage(str(tmp_path / "j")), []

    def act():
        tries.append(1)
        raise OSError(number, os.strerror(number))

    with pytest.raises(FtlabError, match=os.strerror(number)) as told:
        storage.exclusively(act)
    assert mend in told.value.mend and len(tries) == 1
