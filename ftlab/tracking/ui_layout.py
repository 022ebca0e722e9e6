"""The pages of a study and of a sweep in MLflow's UI, prepared: columns, filter, charts."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ftlab.tracking.mlflow_values import LONGEST_TAG

KEY = "ftlab"
TAG = f"mlflow.sharedViewState.{KEY}"
"""The tag MLflow's UI itself writes when a person shares a view; plain JSON where it is short."""

# Marks these as trainings; otherwise the UI opens as a tool for language agents.
KIND = {"mlflow.experimentKind": "custom_model_development"}

NOTE = "mlflow.note.content"
"""The tag that is a run's or an experiment's description, Markdown."""

RUN_NOTE = (
    "Seed {seed} of the cell that is its parent run, where the means over seeds are. `test/...` is "
    "measured once, with the epoch that was best on validation (`best_epoch`). Artifacts: "
    "`checkpoint` is what was trained, `predictions` has a row an example, `figures` what the run "
    "drew of itself, `run.json` its config. To use the model, with the Run ID beside this: "
    "`ftlab predict RUN INPUT`, `ftlab export RUN --out DIR`."
)
"""The description of a run, Markdown."""

RUNS_KEY = f"{KEY}.runs"
"""Of the view of the runs; a sweep's key has a dash, so that none is called like it."""

RUNS_TAG = f"mlflow.sharedViewState.{RUNS_KEY}"

COSTS = ("cost/trainable_parameters", "cost/train_seconds", "cost/peak_memory_bytes")
LR = "param/lr"  # MLflow sorts params as texts and metrics as numbers; see `plain.numbers`

_AS_CHARTS = "&compareRunsMode=CHART"
_NAME = "attributes.`Run Name`"
# Trials outnumber the runs of a study by far.
_CELLS = "tags.`ftlab.kind` != 'trial' AND tags.`ftlab.kind` != 'sweep'"
_RUNS = "tags.`ftlab.kind` = 'run'"


def study_tags(study: str, metric: str, names: Iterable[str] = ()) -> dict[str, str]:
    """The tags that hold a study's two views: its cells, and its runs as learning curves.

    Args:
        study: its name.
        metric: what the study compares, such as `test/accuracy`.
        names: of metrics that its runs have; the sections of charts that the UI makes of them, and
            of their aggregates, come folded.
    """
    sections = sorted({name.rpartition("/")[0] for name in [*names, LR]} - {""})
    return {TAG: _packed(_cells(study, metric, sections)),
            RUNS_TAG: _packed(_runs(study, metric, sections))}


def _cells(study: str, metric: str, sections: Sequence[str]) -> dict[str, Any]:
    """Cells in the study's order with their runs nested, no trials.

    Sorted by anything but the time of creation, the UI would show a flat list.
    """
    mean = f"{metric}.mean"
    metrics = ["rank", mean, f"{metric}.std", f"{metric}.n"]
    # the metric itself, which a cell lacks, last of what the first look at the page shows
    metrics += [metric, *(f"{name}.mean" for name in COSTS), LR]
    charts = [
        _bar(mean, f"{metric}: mean over seeds"),
        _chart("SCATTER", f"{metric} against training seconds", runsCountToCompare=100,
               xaxis={"key": f"{COSTS[1]}.mean", "type": "METRIC"},
               yaxis={"key": mean, "type": "METRIC"}),
        *(_bar(f"{name}.mean", f"{name}: mean over seeds") for name in COSTS),
    ]
    columns = _columns(metrics, tags=["ftlab.reason"])
    return _page(columns, _CELLS, "attributes.start_time", ascending=True) | _charts(
        f"{study}: what the table says", charts, sections)


def _runs(study: str, metric: str, sections: Sequence[str]) -> dict[str, Any]:
    """Every run by itself: how it learned, and what it reached.

    Sorted by name, since by the time of creation the UI would fold the runs into their cells, and
    charts show only what is unfolded.
    """
    course = "val/" + metric.removeprefix("test/")
    curves = list(dict.fromkeys([course, "val/loss", "train/loss"]))
    charts = [*map(_line, curves), _bar(metric, f"{metric}: each seed")]
    columns = _columns([metric, course, "best_epoch", *COSTS], tags=["ftlab.reason"])
    return _page(columns, _RUNS, "tags.`mlflow.runName`", ascending=True) | _charts(
        f"{study}: how its runs learned", charts, sections)


def path(experiment_id: str) -> str:
    """The path of the study's view, after `http://127.0.0.1:PORT`."""
    return _path(experiment_id, KEY)


def paths(study: str, experiment_id: str, tags: Mapping[str, str]) -> dict[str, str]:
    """The paths of an experiment's views: what each shows -> its path.

    Args:
        study: its name, for people.
        experiment_id: MLflow's.
        tags: of the experiment.
    """
    by_title = {}
    if TAG in tags:
        by_title[study] = path(experiment_id)
    if RUNS_TAG in tags:
        by_title[f"{study}, learning curves"] = _path(experiment_id, RUNS_KEY) + _AS_CHARTS
    prefix = f"{TAG}-"
    for tag in sorted(tags):
        if tag.startswith(prefix):
            sweep = tag.removeprefix(prefix)
            by_title[f"{study}, sweep {sweep}"] = sweep_path(experiment_id, sweep)
    return by_title


def sweep_tag(sweep: str) -> str:
    """The tag that holds a sweep's view."""
    return f"{TAG}-{sweep}"


def sweep_path(experiment_id: str, sweep: str) -> str:
    """The path of the sweep's charts, after `http://127.0.0.1:PORT`."""
    return _path(experiment_id, f"{KEY}-{sweep}") + _AS_CHARTS


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
    charts = [
        _chart("PARALLEL", f"trials of {technique}", selectedParams=list(params),
               selectedMetrics=list(objectives), showAllRuns=True)
        for technique, params in searched.items()
    ]
    charts += [_line(name) for name in curves if name.startswith("val/")]
    columns = _columns(objectives, [name for names in searched.values() for name in names],
                       ["ftlab.state", "ftlab.reason"])
    wanted = f"tags.`ftlab.kind` = 'trial' AND tags.`ftlab.sweep` = '{sweep}'"
    page = _page(columns, wanted, columns[0], ascending=not higher_is_better)
    return _packed(page | _charts(f"Sweep {sweep}", charts))


def _bar(metric: str, name: str) -> dict[str, Any]:
    return _chart("BAR", name, metricKey=metric)


def _line(metric: str) -> dict[str, Any]:
    return _chart("LINE", metric, metricKey=metric, selectedMetricKeys=[metric], xAxisKey="step",
                  lineSmoothness=0, scaleType="linear", xAxisScaleType="linear")


def _chart(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"uuid": f"ftlab {name}", "type": kind, "displayName": name, "metricSectionId": "ftlab",
            "deleted": False, "isGenerated": False, "runsCountToCompare": 10} | more


def _charts(name: str, charts: Sequence[dict[str, Any]], folded: Iterable[str] = ()
            ) -> dict[str, Any]:
    """Our charts first, and those that the UI makes by itself, a section a folder of metrics."""
    def section(uuid: str, title: str, display: bool) -> dict[str, Any]:
        return {"uuid": uuid, "name": title, "display": display, "isReordered": False,
                "deleted": False, "isGenerated": not display}

    return {
        "runsHiddenMode": "SHOW_ALL",  # else the charts hold ten runs
        "isAccordionReordered": True,  # else the sections that the UI adds come before ours
        "compareRunCharts": list(charts),
        "compareRunSections": [section("ftlab", name, True),
                               *(section(f"folded {folder}", folder, False) for folder in folded)],
    }


def _columns(metrics: Iterable[str], params: Iterable[str] = (), tags: Iterable[str] = ()
             ) -> list[str]:
    named = {"metrics": metrics, "params": params, "tags": tags}
    return [f"{kind}.`{name}`" for kind, names in named.items() for name in names]


def _packed(page: Mapping[str, Any]) -> str:
    """As plain JSON, or as the UI itself packs what is long for a tag."""
    text = json.dumps(page)
    if len(text) <= LONGEST_TAG:
        return text
    return "deflate;" + base64.b64encode(zlib.compress(text.encode())).decode()


def _page(columns: Sequence[str], wanted: str, order: str, ascending: bool) -> dict[str, Any]:
    return {
        "selectedColumns": list(columns),
        "columnOrder": [_NAME, *columns],
        # Left alone, the UI cuts names and headings at about 15 letters.
        "columnWidths": {_NAME: 260} | {name: _width(name) for name in columns},
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
    return min(270, max(90, 40 + 8 * len(column.partition("`")[2].rstrip("`"))))


def _path(experiment_id: str, key: str) -> str:
    query = f"workflowType=machine_learning&viewStateShareKey={key}"
    return f"/#/experiments/{experiment_id}/runs?{query}"
