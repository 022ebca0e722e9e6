"""The report of a study file: one HTML page from what the tracking store holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ftlab.reports.csv_files import write_file
from ftlab.reports.default_columns import default_table
from ftlab.reports.diagnoses.run_histories import diagnose, observe
from ftlab.reports.formats import html_lines
from ftlab.reports.page.costs import costs
from ftlab.reports.page.diagnoses import findings
from ftlab.reports.page.document import document
from ftlab.reports.page.federation import federation
from ftlab.reports.page.groups import groups
from ftlab.reports.page.markup import Markup, join, tag
from ftlab.reports.page.plots import plots
from ftlab.reports.page.provenance import again, origin
from ftlab.reports.page.sequences import sequences
from ftlab.reports.page.summary import head, tests
from ftlab.reports.quantized import quantized
from ftlab.reports.study_results import StudyResults, read
from ftlab.reports.table import Table
from ftlab.studies import provenance
from ftlab.studies.study import Study
from ftlab.tracking.tracker import Tracker


def report(study: Study, tracking_uri: str | None = None, results: str | Path = "results",
           out: str | Path | None = None, command: Sequence[str] = ()) -> Path:
    """Write a study's page; the same store gives the same bytes.

    Args:
        study: from `load_study`; cells that the store lacks show as missing.
        tracking_uri: MLflow's store; None as in `Tracker`.
        results: the folder above the study's own.
        out: the file; None means `report.html` in the study's folder of `results`.
        command: what runs the study, for the page's section on how to reproduce it.

    Returns:
        The file.

    Raises:
        InputError: nothing of the study is tracked, no run has the metric, or the file cannot be
            written.
    """
    tracker = Tracker(tracking_uri)  # figures show the study's sweeps
    stored = read(study, tracker).directed().compared()
    html = render(study, stored, command or ("ftlab", "run", f"{study.name}.yaml"))
    tracker.close()
    path = Path(results) / study.name / "report.html" if out is None else Path(out)
    return write_file(path, html)


def render(study: Study, results: StudyResults, command: Sequence[str]) -> str:
    """The page's HTML."""
    observed = observe(results, results.named(study.select_by), results.upwards(study.select_by))
    environments = provenance.collect(study.name, study.question, results.records.values())
    parts = {
        "Table": (_scrolling(default_table(results)), tests(results.comparisons)),
        "Quantised afterwards": (_quantised(results),),
        "Groups": (groups(results),),
        "Sequences": (sequences(results),),
        "Federation": (federation(results, study.select_by),),
        "Figures": (plots(results),),
        "Diagnoses": (findings(diagnose(observed), observed.curves),),
        "Costs": (costs(results),),
        "Provenance": (origin(study, environments),),
        "Reproduce": (again(study, environments, command),),
    }
    shown = {title: contents for title, contents in parts.items() if any(contents)}
    links = [tag("a", title, href=f"#{_anchor(title)}") for title in shown]
    sections = [tag("section", tag("h2", title), *contents, id=_anchor(title))
                for title, contents in shown.items()]
    top = head(results, study.seeds, study.select_by)
    return document(f"{study.name}: ftlab report", [top, tag("nav", *links), *sections])


def _quantised(results: StudyResults) -> Markup:
    """The table of models that were measured again with quantised weights, and its tests, folded."""
    found = quantized(results)
    return Markup("") if found is None else join([_scrolling(found.table), tests(found.comparisons)])


def _scrolling(table: Table) -> Markup:
    return tag("div", Markup("\n".join(html_lines(table))), class_="scroll")


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
