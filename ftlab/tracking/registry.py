"""MLflow's model registry: models that load as `models:/NAME/VERSION`, with no pickle in them."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, infer_signature

from ftlab.errors import FtlabError, InputError
from ftlab.redaction import redact
from ftlab.tracking import store
from ftlab.tracking.mlflow_values import tag_values
from ftlab.tracking.outbox import OUTAGE, one_line
from ftlab.tracking.records import RunRecord
from ftlab.tracking.tracker import Tracker

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,99}")


@dataclass(frozen=True)
class Registrable:
    """A model on its way into the registry.

    Attributes:
        code: a Python file that calls `mlflow.models.set_model`; it reads the artifact `model`.
        folder: that artifact.
        example: of the input.
        given: what the model gives for it.
        requirements: what pip has to install for it.
        description: Markdown.
    """

    code: Path
    folder: Path
    example: pd.DataFrame
    given: pd.DataFrame
    requirements: Sequence[str]
    description: str


class Registry(Tracker):
    """Registers the models of runs.

    A model is code and files (MLflow's "models from code"): to load one runs the lines that
    its card shows, and unpickles nothing.
    """

    def check_name(self, name: str) -> None:
        """Refuse a name that no address could hold.

        Raises:
            InputError: with the rule.
        """
        if not _NAME.fullmatch(name):
            raise InputError(f"--register {name!r} is not a name for a model",
                             "letters, digits, '.', '_', '-' and spaces, at most 100, a letter or "
                             "digit first")

    def register(self, name: str, record: RunRecord, what: Registrable,
                 tags: Mapping[str, str]) -> str:
        """Make a version of a registered model, which the run then shows as its own.

        Args:
            name: of the registered model, made where there is none.
            record: the run that it comes from.
            what: the model.
            tags: of the version.

        Returns:
            `NAME/VERSION`.

        Raises:
            FtlabError: the store did not take it; a model half-logged is marked as failed.
        """
        try:
            with store.quiet():
                return self._register(name, record, what, dict(tag_values(tags)))
        except OUTAGE as error:
            raise FtlabError(f"the model registry at {redact(self.uri)} did not take {name}: "
                             f"{one_line(error)}", "mend the store and give the command again"
                             ) from error

    def _register(self, name: str, record: RunRecord, what: Registrable,
                  tags: dict[str, str]) -> str:
        client = self._client
        experiment = client.get_run(record.run_id).info.experiment_id
        logged = client.create_logged_model(
            experiment, name=name, source_run_id=record.run_id, model_type="pyfunc", tags=tags)
        try:
            with tempfile.TemporaryDirectory(prefix="ftlab-") as temporary:
                path = Path(temporary) / "model"
                self._save(path, record, what, logged)
                client.log_model_artifacts(logged.model_id, str(path))
            client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        except BaseException:
            client.finalize_logged_model(logged.model_id, LoggedModelStatus.FAILED)
            raise
        client.log_outputs(record.run_id, [LoggedModelOutput(logged.model_id, step=0)])
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # by its place: by its id the store would look it up where MLFLOW_TRACKING_URI points
        version = client.create_model_version(
            name, source=logged.artifact_location, run_id=record.run_id, tags=tags,
            description=what.description, model_id=logged.model_id)
        return f"{name}/{version.version}"

    def _save(self, path: Path, record: RunRecord, what: Registrable, logged: object) -> None:
        """MLflow's own layout of a model, in a folder."""
        model_id = getattr(logged, "model_id", None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own imports
            mlflow.pyfunc.save_model(
                path, python_model=str(what.code), artifacts={"model": str(what.folder)},
                signature=infer_signature(what.example, what.given), input_example=what.example,
                pip_requirements=list(what.requirements),
                mlflow_model=Model(run_id=record.run_id, model_uuid=model_id, model_id=model_id))
