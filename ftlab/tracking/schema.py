"""The version of a store's tables. MLflow alone would migrate some stores at the first look."""

from __future__ import annotations

from functools import cache

import sqlalchemy
from alembic.script import ScriptDirectory
from mlflow.store.db import utils

from ftlab.errors import InputError
from ftlab.redaction import redact


def check_schema(uri: str) -> None:
    """Refuse a database whose tables are not those of the MLflow that is installed.

    An upgrade cannot be taken back, and breaks processes of the older version that still write:
    it is a person's decision. A database without tables is none of these.

    Args:
        uri: of a database that exists; nothing is written to it.

    Raises:
        InputError: with what to do.
        sqlalchemy.exc.SQLAlchemyError: the database does not answer.
    """
    engine = utils.create_sqlalchemy_engine(uri)
    try:
        version = utils._get_schema_version(engine)
    finally:
        engine.dispose()
    newest, revisions = _revisions()
    if version in (None, newest):
        return
    if version in revisions:
        raise InputError(
            f"tracking store {redact(uri)}: its tables are those of an older MLflow "
            f"(schema {version}, the installed one needs {newest})",
            "stop all that writes to it and back it up, then: mlflow db upgrade " + redact(uri))
    raise InputError(
        f"tracking store {redact(uri)}: its tables are those of a newer MLflow (schema {version}, "
        f"the installed one has {newest})", "install that version: pip install --upgrade mlflow")


@cache
def _revisions() -> tuple[str, frozenset[str]]:
    """The newest schema of the installed MLflow, and all of them."""
    script = ScriptDirectory(str(utils._get_alembic_config("").get_main_option("script_location")))
    return (utils._get_latest_schema_revision(),
            frozenset(revision.revision for revision in script.walk_revisions()))


UNREACHABLE = sqlalchemy.exc.SQLAlchemyError
"""What a database that does not answer raises."""
