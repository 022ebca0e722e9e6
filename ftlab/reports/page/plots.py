"""The study's figures as sections of the page: every drawing that has data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ftlab.redaction import redact
from ftlab.reports.figures import all_figures
from ftlab.reports.page.markup import Markup, join, tag
from ftlab.reports.study_results import StudyResults

_MARKS = re.compile(r"<(?!(?:br ?/?|/?(?:b|i|sub|sup|extra))>)")
"""The beginning of any element but those that only lay a text out; plotly reads links, too."""


def plots(evidence: StudyResults) -> tuple[Markup, list[dict[str, Any]]]:
    """The figures' HTML, and what plotly draws into them, in the same order."""
    parts, figures = [], []
    for drawn in all_figures.drawn(evidence):
        caption = drawn.caption
        figure: dict[str, Any] = _safe(drawn.plot())
        figures.append({"data": figure["data"], "layout": figure["layout"]})
        place = tag("div", class_="plot", role="img", aria_label=f"{drawn.title}. {caption}",
                    style=f"height: {int(figure['layout'].get('height', 450))}px")
        said = [tag("figcaption", caption)] if caption else []
        parts.append(tag("figure", tag("h3", drawn.title),
                         tag("div", place, class_="drawn"), *said))
    return join(parts), figures


def _safe(value: Any) -> Any:
    """A figure whose texts hold no links and no secrets, whoever named what is drawn."""
    if isinstance(value, str):
        return _MARKS.sub("&lt;", redact(value))
    if isinstance(value, Mapping):
        return {str(name): _safe(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_safe(inner) for inner in value]
    return value
