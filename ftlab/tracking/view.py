"""The columns that a person wants first in MLflow's table of runs, whose own default is none."""

from __future__ import annotations

import json
from collections.abc import Iterable

KEY = "ftlab"
TAG = f"mlflow.sharedViewState.{KEY}"
"""The tag MLflow's UI itself writes when a person shares a view; kept as plain JSON."""

# Tells the UI that these are trainings; otherwise it opens as a tool for language agents.
KIND = {"mlflow.experimentKind": "custom_model_development"}


def state(metrics: Iterable[str], tags: Iterable[str]) -> str:
    """The view: cells in the study's order with their runs nested, and the columns given.

    Sorted by anything but the time of creation, the UI would show a flat list.

    Args:
        metrics: names of metric columns.
        tags: names of tag columns.
    """
    columns = [f"metrics.`{name}`" for name in metrics] + [f"tags.`{name}`" for name in tags]
    return json.dumps(
        {
            "selectedColumns": columns,
            "columnOrder": columns,
            "orderByKey": "attributes.start_time",
            "orderByAsc": True,
            "searchFilter": "",
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
        }
    )


def path(experiment_id: str) -> str:
    """Where the view is, after `http://127.0.0.1:PORT`."""
    query = f"workflowType=machine_learning&viewStateShareKey={KEY}"
    return f"/#/experiments/{experiment_id}/runs?{query}"
