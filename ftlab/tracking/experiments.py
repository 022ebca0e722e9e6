"""A study's experiment in MLflow: made once, tagged, and where its views are."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from ftlab.errors import InputError
from ftlab.tracking import ui_layout


class Experiments:
    """Reads and writes experiments; every method may be called again after it failed half-way.

    Args:
        client: of the store; its errors pass through.
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._experiments: dict[str, str] = {}

    def open_experiment(self, study: str, root: str | None, tags: Mapping[str, str]) -> None:
        """Get or make the experiment; `root` is where its artifacts go (None: the server's)."""
        experiment = self._client.get_experiment_by_name(study)
        if experiment is not None and experiment.lifecycle_stage != "active":
            raise InputError(
                f"study {study}: its MLflow experiment was deleted",
                f"mlflow experiments restore --experiment-id {experiment.experiment_id}, "
                "or name the study otherwise",
            )
        if experiment is None:
            experiment = self._make_experiment(study, root)
        self._experiments[study] = experiment.experiment_id
        note = experiment.tags.get(ui_layout.NOTE, "")
        # the table that an earlier run put below the question stays until the next one
        kept = {ui_layout.NOTE} if note.startswith(tags.get(ui_layout.NOTE, "")) and note else set()
        self.tag_experiment(study, {k: v for k, v in tags.items() if k not in kept})

    def _make_experiment(self, study: str, root: str | None) -> Experiment:
        """Make the experiment, or find the one that another process has just made."""
        try:
            return self._client.get_experiment(
                self._client.create_experiment(study, artifact_location=root))
        except MlflowException as error:
            theirs = self._client.get_experiment_by_name(study)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or theirs is None:
                raise
            return theirs

    def tag_experiment(self, study: str, tags: Mapping[str, str]) -> None:
        """Set tags of a study's experiment."""
        for name, value in tags.items():
            self._client.set_experiment_tag(self.experiment(study), name, value)

    def experiment(self, study: str) -> str:
        """The id of a study's experiment.

        Raises:
            InputError: there is none.
        """
        if study not in self._experiments:
            experiment = self._client.get_experiment_by_name(study)
            if experiment is None or experiment.lifecycle_stage != "active":
                raise InputError(
                    f"study {study}: nothing is tracked of it", "run it first: ftlab run STUDY"
                )
            self._experiments[study] = experiment.experiment_id
        return self._experiments[study]

    def view_paths(self, study: str | None) -> dict[str, str]:
        """The paths of the prepared views of one study or of all; see `ui_layout.paths`."""
        chosen: dict[str, str] = {}
        token, names = None, []
        while True:
            page = self._client.search_experiments(page_token=token)
            for experiment in page:
                paths = ui_layout.paths(experiment.name, experiment.experiment_id, experiment.tags)
                names += [experiment.name] if paths else []
                if study in (None, experiment.name):
                    chosen |= paths
            token = page.token
            if not token:
                break
        if study is not None and study not in names:
            there = f"there are: {', '.join(names)}" if names else "run it first: ftlab run STUDY"
            raise InputError(f"study {study}: nothing is tracked of it", there)
        return chosen
