"""How a run's technique compares with the others of its study, for a model card."""

from __future__ import annotations

from ftlab.exports.restore_run import Restored
from ftlab.reports import verdicts
from ftlab.reports.default_columns import default_table
from ftlab.reports.formats import escape_markdown, markdown
from ftlab.reports.study_results import StudyResults
from ftlab.tracking.tracker import Tracker


def comparison(restored: Restored, tracking_uri: str | None) -> str:
    """The study's table on the run's backbone and data set, and a verdict for each pair, in Markdown.

    Args:
        restored: the run.
        tracking_uri: as in `Tracker`.
    """
    tags = restored.record.tags
    tracker = Tracker(tracking_uri)
    records = {record.key: record for record in tracker.cells(tags["ftlab.study"])
               if (record.key.backbone, record.key.dataset) == (tags["ftlab.backbone"], tags["ftlab.dataset"])
               and record.finished}
    metric = "test/" + restored.spec["select_by"].removeprefix("val/")
    results = StudyResults(tags["ftlab.study"], metric, list(records), records, {}, tracker=tracker)
    results = results.directed().compared()
    sentences = [line for found in results.comparisons for line in verdicts.between(found, results.metric)]
    return "\n\n".join([markdown(default_table(results)),
                        "\n".join(f"- {escape_markdown(line)}" for line in sentences)])
