"""Writes to the store as plain data, so that they can wait on disk, and what carries them out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, RunTag

from ftlab.errors import InputError
from ftlab.tracking import sweep_runs
from ftlab.tracking.mlflow_runs import MlflowRuns
from ftlab.tracking.records import CellKey

_TAGS = 100  # in one log_batch, MLflow's limit


@dataclass(frozen=True)
class Write:
    """One write to the store; JSON holds all of it.

    Attributes:
        what: for people, should it fail for good.
        action: a method of `Writer`.
        run: the run it is about, by MLflow's id or one of ours; of an experiment its study.
        values: further arguments of the action.
        path: a file or folder that it reads, absolute; empty where there is none.
        makes: our id of the run that it makes; empty where it makes none.
    """

    what: str
    action: str
    run: str = ""
    values: Sequence[Any] = ()
    path: str = ""
    makes: str = ""


class Writer:
    """Carries writes out; each may be repeated, and the store is as after one.

    Args:
        client: of the store; its errors pass through.
        runs: of the same store.
    """

    def __init__(self, client: MlflowClient, runs: MlflowRuns) -> None:
        self._client, self._runs = client, runs
        self._incomplete: set[str] = set()  # runs whose files the store did not take
        self._actions: dict[str, Callable[..., object]] = {
            "open_cell": self._open_cell, "open_run": runs.open_run, "log": self._log,
            "data_set": self._data_set, "data_sets": runs.log_dataset,
            "end": runs.end, "end_cell": runs.end_cell,
            "artifacts": self._artifacts, "file": self._file, "text": client.log_text,
            "tag_experiment": runs.tag_experiment, "discard": self._discard,
            "open_sweep": self._open_sweep, "open_trial": self._open_trial,
            "end_sweep": self._end_sweep, "set_metrics": runs.set_metrics,
        }

    def send(self, write: Write, run: str) -> str:
        """Carry a write out.

        Args:
            write: the write.
            run: MLflow's id of its run.

        Returns:
            The id of the run that it made; empty where it made none.

        Raises:
            InputError: there is no such action.
            FileNotFoundError: its file or folder is gone.
        """
        action = self._actions.get(write.action)
        if action is None:
            raise InputError(f"{write.what}: this version of ftlab cannot {write.action!r}",
                             "use the version that kept it")
        path = (write.path,) if write.path else ()
        made = action(run, *path, *write.values)
        return str(made) if write.makes else ""

    def _open_cell(self, run: str, key: Sequence[str], params: Mapping[str, str],
                   seeds: Sequence[int], order: int, place: int, facts: str = "") -> str:
        return self._runs.open_cell(CellKey(*key), params, seeds, order, place, facts)

    def _data_set(self, run: str, name: str, digest: str, source: str, context: str,
                  profile: Mapping[str, Any]) -> None:
        """One split of a data set, as versions up to 0.1.0 kept it on disk."""
        self._runs.log_dataset(run, name, digest, source, {context: profile})

    def _log(self, run: str, metrics: Sequence[Sequence[Any]], tags: Mapping[str, str]) -> None:
        named = [RunTag(name, value) for name, value in tags.items()]
        self._client.log_batch(run, metrics=[Metric(*metric) for metric in metrics],
                               tags=named[:_TAGS])
        for start in range(_TAGS, len(named), _TAGS):
            self._client.log_batch(run, tags=named[start : start + _TAGS])

    def _artifacts(self, run: str, path: str, artifact_path: str) -> None:
        self._incomplete.add(run)
        self._runs.log_artifacts(run, Path(path), artifact_path)
        self._incomplete.discard(run)

    def _file(self, run: str, path: str, artifact_path: str) -> None:
        self._client.log_artifact(run, path, artifact_path)

    def _discard(self, run: str, path: str) -> None:
        if run not in self._incomplete:
            shutil.rmtree(path, ignore_errors=True)

    def _open_sweep(self, run: str, key: Sequence[str], sweep: str, facts: str = "") -> str:
        return sweep_runs.open_sweep(self._runs, self._client, CellKey(*key), sweep, facts)

    def _open_trial(self, run: str, *values: Any) -> str:
        return sweep_runs.open_trial(self._runs, self._client, run, *values)

    def _end_sweep(self, run: str, metrics: Sequence[Sequence[Any]], tags: Mapping[str, str],
                   status: str, ended: int) -> None:
        self._runs.set_metrics(run, {name: value for name, value, *_ in metrics}, ended)
        self._log(run, (), tags)
        self._client.set_terminated(run, status, ended)
