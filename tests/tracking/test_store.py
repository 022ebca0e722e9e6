import logging
import os
import sqlite3
import sys

import pytest

from ftlab.errors import InputError
from ftlab.tracking import store
from ftlab.tracking.tracker import Tracker

MADE = True  # stores as users have them


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/x", "mlruns", "ftp://h/x", "sqlite://"])
def test_resolve__what_cannot_hold_runs_is_refused_with_the_mend(uri):
    with pytest.raises(InputError) as caught:
        store.resolve(uri)
    assert "sqlite:///mlflow.db" in caught.value.mend


def test_resolve__a_password_is_not_repeated():
    with pytest.raises(InputError) as caught:
        store.resolve("weird://me:s3cr3t@host/x")
    assert "s3cr3t" not in str(caught.value)


def test_resolve__sqlite_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store.resolve(None) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert store.resolve(None) == f"sqlite:///{tmp_path}/other.db"
    assert os.listdir(tmp_path) == []


def test_tracker__missing_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        Tracker(f"sqlite:///{tmp_path}/no/mlflow.db")
    assert os.listdir(tmp_path) == []


def test_tracker__dead_server():
    with pytest.raises(InputError, match="does not answer"):
        Tracker("postgresql://me:s3cr3t@127.0.0.1:9/x")


def test_tracker__dead_http_server(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match="does not answer") as caught:
        Tracker("http://me:s3cr3t@127.0.0.1:9")
    assert "s3cr3t" not in str(caught.value)


def test_connect__a_file_that_is_no_database(tmp_path):
    (tmp_path / "mlflow.db").write_text("hello " * 500)
    with pytest.raises(InputError, match="not a database"):
        Tracker(f"sqlite:///{tmp_path}/mlflow.db").open_study("s", {})


def test_connect__optunas_database_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "optuna.db") as database:
        database.execute("CREATE TABLE trials (trial_id INTEGER)")
        database.execute("CREATE TABLE studies (study_id INTEGER)")
    database.close()
    with pytest.raises(InputError, match="Optuna"):
        Tracker(f"sqlite:///{tmp_path}/optuna.db").open_study("s", {})


def test_connect__a_kill_while_tables_are_made_leaves_no_half_store(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(engine):
        raise Killed

    path = tmp_path / "mlflow.db"
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.store.db.utils._upgrade_db", kill)
        with pytest.raises(Killed):
            store.connect(f"sqlite:///{path}")
    assert not list(tmp_path.iterdir())
    store.connect(f"sqlite:///{path}")
    assert [each.name for each in tmp_path.glob("*.db")] == ["mlflow.db"]


def test_quiet__silences_what_is_below_and_handlers_come_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger, below = logging.getLogger("mlflow"), logging.getLogger("mlflow.store.db.utils")
    monkeypatch.setattr(logger, "handlers", [logging.StreamHandler(sys.stderr)])
    before = logger.level, logger.handlers, logger.propagate
    with pytest.raises(KeyError), store.quiet():
        below.critical("of no use to anybody")
        raise KeyError
    assert capsys.readouterr() == ("", "")
    assert (logger.level, logger.handlers, logger.propagate) == before
    below.critical("heard again")
    assert capsys.readouterr().err == "heard again\n"
