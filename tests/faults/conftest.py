from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

_ASKS = ("log_batch", "log_param", "log_artifacts", "log_artifact", "log_inputs", "log_text",
         "create_run", "update_run", "set_terminated", "set_experiment_tag", "delete_tag", "get_run",
         "search_runs", "search_experiments", "get_experiment_by_name", "get_metric_history")


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Set `outage.on = True`, and the store answers nothing; `outage.after` counts down to it."""
    state = SimpleNamespace(on=False, after=None)

    def faulty(name: str) -> Any:
        real = getattr(MlflowClient, name)

        def method(self: MlflowClient, *arguments: Any, **named: Any) -> Any:
            if state.after is not None:
                state.after -= 1
                state.on = state.on or state.after < 0
            if state.on:
                raise MlflowException("connection refused")
            return real(self, *arguments, **named)

        return method

    for name in _ASKS:
        monkeypatch.setattr(MlflowClient, name, faulty(name))
    monkeypatch.setattr("ftlab.tracking.outbox.time.sleep", lambda seconds: None)
    yield state


@pytest.fixture
def store_uri(tmp_path: Path, empty_store: Path) -> str:
    """A store of the test's own, with MLflow's tables."""
    import sqlite3

    with sqlite3.connect(empty_store) as source, sqlite3.connect(tmp_path / "mlflow.db") as copy:
        source.backup(copy)
    source.close()
    copy.close()
    return f"sqlite:///{tmp_path}/mlflow.db"
