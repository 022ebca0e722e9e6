"""From tracking to `results/<study>/sweeps/<sweep>/`: the budget curve and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ftlab.reports import budget_table, pareto_front
from ftlab.reports.csv_files import to_csv, write_file
from ftlab.reports.formats import escape_markdown, markdown
from ftlab.reports.sweep_figures import draw_budget, draw_front
from ftlab.reports.trial_scores import CellTrials, tried
from ftlab.sweeps.coordinator import directions
from ftlab.sweeps.sweep import Sweep
from ftlab.tracking.metric_facts import lookup, named
from ftlab.tracking.records import TrialRecord
from ftlab.tracking.tracker import Tracker


@dataclass(frozen=True)
class SweepReport:
    """A sweep's results, and the files written.

    Attributes:
        rows: its cells, as numbers.
        sentences: whether the ranking of techniques depends on the budget, one a group.
        paths: files written, in a fixed order.
        view: where MLflow's UI shows the trials, after `http://127.0.0.1:PORT`.
    """

    rows: tuple[CellTrials, ...]
    sentences: tuple[str, ...]
    paths: tuple[Path, ...]
    view: str


def report(sweep: Sweep, tracking_uri: str | None = None,
           results: str | Path = "results") -> SweepReport:
    """Write a sweep's tables and figures, and put them onto its parent runs in MLflow.

    The same store gives the same bytes.

    Args:
        sweep: from `load_sweep`.
        tracking_uri: MLflow's store; None as in `Tracker`.
        results: the folder above the study's own.

    Raises:
        InputError: nothing of the study is tracked, or the folder cannot be written.
    """
    tracker = Tracker(tracking_uri)
    study = sweep.study.name
    sweep = replace(sweep, study=sweep.study.as_stored(tracker.stored_params(study)))
    objectives, upwards = _objectives(sweep, tracker)
    rows = tried([cell.key for cell in sweep.study.cells], _records(sweep, tracker),
                 objectives, upwards[0],
                 [name for name, space in sweep.spaces.items() if not space],
                 type(sweep.make_sampler(0)).__name__)
    searched = {name: list(space) for name, space in sweep.spaces.items()}
    sentences = budget_table.ranking(rows, upwards[0])
    files = contents(title(sweep), rows, objectives, upwards, searched, sentences)
    folder = Path(results) / study / "sweeps" / sweep.name
    paths = tuple(write_file(folder / name, content) for name, content in files.items())
    for name in FILES:
        if name not in files:  # of an earlier store, it would contradict the others
            (folder / name).unlink(missing_ok=True)
    for search in sweep.each:
        parents = tracker.parents(study, search.name).values()
        for parent in parents:
            tracker.log_artifacts(parent, folder, "sweep")
        if parents or not search.search:
            tracker.set_sweep_view(study, search.name, searched, sweep.objectives, upwards[0])
    view = tracker.sweep_view_path(study, sweep.name)
    tracker.close()
    return SweepReport(tuple(rows), tuple(sentences), paths, view)


def _records(sweep: Sweep, tracker: Tracker) -> list[TrialRecord]:
    """The trials of all its searches."""
    return [replace(record, search=search.search) for search in sweep.each
            for record in tracker.trials(sweep.study.name, search.name)]


def _objectives(sweep: Sweep, tracker: Tracker) -> tuple[list[str], list[bool]]:
    """Objectives with the facts that the store holds of them, and whether more of each is better."""
    records = tracker.sweep_facts(sweep.study.name, sweep.name)
    facts = {name: fact for record in records for name, fact in record.items()}
    points = [lookup(name, facts) for name in sweep.objectives]
    if all(fact or name.startswith("cost/") for name, fact in zip(sweep.objectives, points, strict=True)):
        upwards = [fact is not None and fact.higher_is_better for fact in points]
    else:  # an earlier version began it
        upwards = [direction == "maximize" for direction in directions(sweep)]
    return [named(name, facts) for name in sweep.objectives], upwards


FILES = ("budget.md", "budget.csv", "budget.png", "front.md", "front.csv", "front.png")


def title(sweep: Sweep) -> str:
    """The sweep in one sentence."""
    seeds = f"{len(sweep.seeds)} seed{'s' * (len(sweep.seeds) > 1)}"
    mean = ", a trial's score is their mean" if len(sweep.seeds) > 1 else ""
    searches = f"{sweep.searches} searches, each of " if sweep.searches > 1 else ""
    return (f"Sweep {sweep.name} of study {sweep.study.name}: {searches}at most {sweep.trials} trials a "
            f"cell, each of {seeds}{mean}.")


def contents(
    caption: str, rows: Sequence[CellTrials], objectives: Sequence[str],
    higher_is_better: Sequence[bool], searched: Mapping[str, Sequence[str]],
    sentences: Sequence[str],
) -> dict[str, str | bytes]:
    """Name and content of every file; fronts only where there are several objectives.

    Args:
        caption: its first sentence, which says what was done.
        rows: from `tried`.
        objectives: of the sweep.
        higher_is_better: of each objective.
        searched: by technique, the names of its hyperparameters.
        sentences: from `ranking`.
    """
    above = "".join(f"{escape_markdown(sentence)}\n\n" for sentence in sentences)
    table = budget_table.lines(rows)
    files: dict[str, str | bytes | None] = {
        "budget.md": above + markdown(budget_table.layout(caption, rows, higher_is_better[0])),
        "budget.csv": to_csv(list(table[0]), table),
        "budget.png": draw_budget(rows, higher_is_better[0]),
    }
    if len(objectives) > 1:
        front = pareto_front.points(rows, higher_is_better)
        numbers = pareto_front.lines(front, objectives, searched)
        files |= {
            "front.md": markdown(pareto_front.layout(caption, front, objectives, searched)),
            "front.csv": to_csv(list(numbers[0]) if numbers else [], numbers),
            "front.png": draw_front(rows, front, objectives, higher_is_better),
        }
    return {name: content for name, content in files.items() if content is not None}
