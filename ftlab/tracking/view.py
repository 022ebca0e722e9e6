"""What MLflow's UI shows of a study and of a sweep, prepared: columns, filter, charts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

KEY = "ftlab"
TAG = f"mlflow.sharedViewState.{KEY}"
"""The tag MLflow's UI itself writes when a person shares a view; kept as plain JSON."""

# Tells the UI that these are trainings; otherwise it opens as a tool for language agents.
KIND = {"mlflow.experimentKind": "custom_model_development"}


_NAME = "attributes.`Run Name`"
# Trials outnumber the runs of a study by far.
_STUDY = "tags.`ftlab.kind` != 'trial' AND tags.`ftlab.kind` != 'sweep'"


def state(metrics: Iterable[str], tags: Iterable[str]) -> str:
    """The study's view: cells in its order with their runs nested, no trials, and these columns.

    Sorted by anything but the time of creation, the UI would show a flat list.

    Args:
        metrics: names of metric columns.
        tags: names of tag columns.
    """
    columns = [f"metrics.`{name}`" for name in metrics] + [f"tags.`{name}`" for name in tags]
    return json.dumps(_page(columns, _STUDY, "attributes.start_time", ascending=True))


def path(experiment_id: str) -> str:
    """Where the view is, after `http://127.0.0.1:PORT`."""
    return _path(experiment_id, KEY)


def sweep_tag(sweep: str) -> str:
    """The tag that holds a sweep's view."""
    return f"{TAG}-{sweep}"


def sweep_path(experiment_id: str, sweep: str) -> str:
    """Where the sweep's charts are, after `http://127.0.0.1:PORT`."""
    return f"{_path(experiment_id, f'{KEY}-{sweep}')}&compareRunsMode=CHART"


def sweep_state(
    sweep: str, searched: Mapping[str, Sequence[str]], curves: Sequence[str],
    objectives: Sequence[str], higher_is_better: bool,
) -> str:
    """The sweep's view: its trials, best first, and charts.

    One chart of parallel coordinates a technique: it leaves out the trials that lack one of its
    params, which are those of the others. Sorted by the time of creation the UI would fold the
    trials into their parent runs, and charts show only what is unfolded.

    Args:
        sweep: its name.
        searched: by technique, the params that hold its hyperparameters.
        curves: metrics whose course over the epochs is shown, where they have one.
        objectives: metrics that hold what trials gave; the first one sorts.
        higher_is_better: of the first objective.
    """
    section = {"uuid": "sweep", "name": f"Sweep {sweep}", "display": True, "isReordered": False,
               "deleted": False, "isGenerated": False}
    charts = [
        _chart("PARALLEL", f"trials of {technique}", selectedParams=list(params),
               selectedMetrics=list(objectives), showAllRuns=True)
        for technique, params in searched.items()
    ]
    charts += [
        _chart("LINE", name, metricKey=name, selectedMetricKeys=[name], xAxisKey="step",
               lineSmoothness=0, scaleType="linear", xAxisScaleType="linear")
        for name in curves if name.startswith("val/")
    ]
    columns = [f"metrics.`{name}`" for name in objectives]
    columns += [f"params.`{name}`" for names in searched.values() for name in names]
    columns += [f"tags.`{name}`" for name in ("ftlab.state", "ftlab.reason")]
    wanted = f"tags.`ftlab.kind` = 'trial' AND tags.`ftlab.sweep` = '{sweep}'"
    return json.dumps(_page(columns, wanted, columns[0], ascending=not higher_is_better) | {
        "runsHiddenMode": "SHOW_ALL",  # else the charts hold ten trials
        "isAccordionReordered": True,  # else the sections that the UI adds come before ours
        "compareRunCharts": charts,
        "compareRunSections": [section],
    })


def _chart(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"uuid": f"ftlab {name}", "type": kind, "displayName": name, "metricSectionId": "sweep",
            "deleted": False, "isGenerated": False, "runsCountToCompare": 10} | more


def _page(columns: list[str], wanted: str, order: str, ascending: bool) -> dict[str, Any]:
    return {
        "selectedColumns": columns,
        "columnOrder": [_NAME, *columns],
        # Left alone, the UI cuts names and headings at about 15 letters.
        "columnWidths": {_NAME: 300} | {name: _width(name) for name in columns},
        "orderByKey": order,
        "orderByAsc": ascending,
        "searchFilter": wanted,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
    }


def _width(column: str) -> int:
    """Pixels for a heading such as `test/accuracy.mean`."""
    return min(200, max(90, 40 + 8 * len(column.partition("`")[2].rstrip("`"))))


def _path(experiment_id: str, key: str) -> str:
    query = f"workflowType=machine_learning&viewStateShareKey={key}"
    return f"/#/experiments/{experiment_id}/runs?{query}"
