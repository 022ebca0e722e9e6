"""What is PostgreSQL's own; what holds of every storage is in test_storage.py and test_board.py."""

import collections
import os
import signal
import threading
import time

import pytest
from postgresql_server import USER

from ftlab.errors import FtlabError, InputError
from ftlab.sweeps import storage as module
from ftlab.sweeps.postgresql import LockLost
from ftlab.sweeps.storage import Storage

UNRENDERED = True


@pytest.fixture
def database(postgresql):
    return postgresql.database()


def name_of(address):
    return address.rpartition("/")[2]


def cut(server, address):
    """End every connection to a database, as a restart does."""
    server.sql("select pg_terminate_backend(pid) from pg_stat_activity "
               f"where datname = '{name_of(address)}'")


def finish(board):
    while held := board.take():
        board.report(held, 0, 0.5)
        assert board.complete(held, [0.5])


def states(board):
    return collections.Counter(t.state.name for s in board.standing() for t in s.trials)


def test_server__a_coordinator_has_one_connection(postgresql, database, make_board):
    board = make_board(database, trials=2, sampler="TPE")
    finish(board)
    assert postgresql.sql("select count(*) from pg_stat_activity "
                          f"where datname = '{name_of(database)}'") == [(1,)]
    assert board.over()


@pytest.mark.parametrize("after", [False, True])
def test_server__cut_off_at_any_write(postgresql, database, make_board, at_write, monkeypatch, after):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    board = make_board(database, trials=5)
    for number in range(1, 8):  # more than a trial has writes
        count = at_write(board, number, lambda: cut(postgresql, database), after)
        while count.left > 0:
            held = board.take()
            board.report(held, 0, 0.5)
            assert board.complete(held, [0.5])
    finish(board)
    assert states(board) == {"COMPLETE": 10}


def test_server__crashes_in_the_middle(postgresql, database, make_board, crowd, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.1)

    def work(say):
        board, done = make_board(database, trials=12), 0
        say("begun")
        while held := board.take():
            for step in range(3):
                board.report(held, step, 0.5)
            assert board.complete(held, [0.5])
            done += 1
        say(done)

    for _ in range(3):
        crowd.start(work)
    for which in range(3):
        crowd.hear(which)
    for _ in range(2):
        time.sleep(0.3)
        postgresql.stop("immediate")
        postgresql.start()
    assert sum(crowd.hear(which) for which in range(3)) == 24
    board = make_board(database, trials=12)
    assert states(board) == {"COMPLETE": 24}
    assert all(len(t.intermediate_values) == 3 for s in board.standing() for t in s.trials)


def test_lock__lost_with_the_connection_nothing_is_written(postgresql, database, make_board):
    board = make_board(database)
    storage, tries = board.storage, []

    def act():
        tries.append(board.standing)
        if len(tries) == 1:
            cut(postgresql, database)
            with pytest.raises(module.OUTAGE):
                storage.backend.get_all_studies()  # notices that the connection is gone
            with pytest.raises(LockLost):  # and no other takes its place
                board._searches[board.sweep.study.cells[0].key.config].set_user_attr("a", 1)
            raise LockLost
        return "done"

    assert storage.exclusively(act) == "done"
    assert all("a" not in s.user_attrs for s in board._searches.values())


@pytest.mark.parametrize("inside", [False, True])
def test_lock__the_server_takes_it_from_a_stopped_holder(database, make_board, crowd, inside):
    """Stopped between two transactions, or inside one."""
    def hold(say):
        board = make_board(database, hold=2.0, trials=2)
        first = []

        def act():
            if not first:
                first.append(True)
                with board.storage.backend._backend.engine.connect() as connection:
                    if inside:
                        connection.exec_driver_sql("select 1")
                    say("locked")
                    os.kill(os.getpid(), signal.SIGSTOP)  # until the test continues it
            return board._take(True, lambda cell: 1)

        (held,) = board.storage.exclusively(act)
        say((held.cell.key.technique, held.number))

    make_board(database).storage.close()  # makes the tables, which may take longer than the hold
    pid = crowd.start(hold)
    assert crowd.hear() == "locked"
    board, begin = make_board(database, trials=2), time.monotonic()
    held = board.take()
    assert time.monotonic() - begin < 30  # not our patience of 60
    os.kill(pid, signal.SIGCONT)
    assert crowd.hear() != (held.cell.key.technique, held.number)
    assert states(board) == {"RUNNING": 2}


def test_lock__patience_has_an_end(database, make_board, crowd):
    def hold(say):
        with make_board(database).storage._lock(lambda: None):
            say("locked")
            time.sleep(60)

    board = make_board(database, patience=0.1)
    crowd.start(hold)
    crowd.hear()
    with pytest.raises(FtlabError, match="locked"):
        board.take()


def test_server__down_for_longer_than_our_patience(postgresql, database, make_board, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.1)
    board, said = make_board(database, patience=0.5), []
    board.storage.note = said.append
    postgresql.stop("fast")
    try:
        with pytest.raises(FtlabError, match="refused") as caught:
            board.standing()
    finally:
        postgresql.start()
    assert USER not in str(caught.value) and len(said) == 1
    back = threading.Timer(0.5, postgresql.start)
    board.storage.patience = 30.0
    postgresql.stop("fast")
    back.start()
    board.standing()
    back.join()
    assert len(said) == 3 and "answers again" in said[-1]


def test_server__a_database_of_something_else_is_refused(postgresql, database):
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(database) as connection:
        connection.execute("create table alembic_version (version_num text)")
        connection.execute("insert into alembic_version values ('c0ffee')")
    with pytest.raises(InputError, match="Optuna a database of its own"):
        Storage(database)


def test_server__an_address_with_other_characters(postgresql, database):
    odd = database.replace(f"{USER}@", f"{USER}:a%7B%25{{b}}@") + "?application_name=a%20b"
    Storage(odd).close()
    Storage(odd.replace("postgresql://", "postgresql+psycopg://")).close()
