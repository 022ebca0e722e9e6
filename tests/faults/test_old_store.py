"""A store whose tables are of another version of MLflow."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from mlflow.store.db import utils

from ftlab.errors import InputError
from ftlab.tracking import store

UNRENDERED = True
Here = Callable[..., tuple[int, str, str]]


def revisions(count: int) -> list[str]:
    """The newest schemas, newest first."""
    script = ScriptDirectory.from_config(utils._get_alembic_config(""))
    return [revision.revision for revision in script.walk_revisions()][:count]


def set_revision(path: Path, revision: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (revision,))


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())


@pytest.mark.parametrize("lacking", ["", "online_scoring_configs"])
def test_older_tables__are_named_and_not_touched(
    lacking: str, store_uri: str, here: Here, tmp_path: Path
) -> None:
    path = tmp_path / "mlflow.db"
    newest, older = revisions(2)
    set_revision(path, older)
    with closing(sqlite3.connect(path)) as database, database:
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
        if lacking:  # MLflow alone would now migrate, unasked
            assert lacking in tables
            database.execute(f"DROP TABLE {lacking}")
    before = dump(path)
    code, output, _ = here("doctor", "--tracking-uri", store_uri)
    assert code == 1
    (line,) = (line for line in output.splitlines() if line.startswith("BAD"))
    assert f"schema {older}, the installed one needs {newest}" in line
    assert "stop all that writes to it and back it up" in line
    assert f"mlflow db upgrade {store_uri}" in line
    with pytest.raises(InputError, match="older MLflow") as caught:
        store.connect(store_uri)
    assert "back it up" in caught.value.mend
    assert dump(path) == before
    set_revision(path, newest)
    if not lacking:
        assert here("doctor", "--tracking-uri", store_uri)[0] == 0


def test_newer_tables__want_a_newer_mlflow_not_an_upgrade_of_the_store(
    store_uri: str, here: Here, tmp_path: Path
) -> None:
    set_revision(tmp_path / "mlflow.db", "f" * 12)
    code, output, _ = here("doctor", "--tracking-uri", store_uri)
    assert code == 1
    assert "newer MLflow" in output
    assert "db upgrade" not in output


def test_doctor__makes_no_store(here: Here, tmp_path: Path) -> None:
    assert here("doctor", "--tracking-uri", f"sqlite:///{tmp_path}/new.db")[0] == 0
    assert not list(tmp_path.iterdir())
