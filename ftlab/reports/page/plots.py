"""The study's figures as sections of the page: every drawing that has data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ftlab.reports.evidence import Evidence
from ftlab.reports.figures.base import Drawing
from ftlab.reports.page.markup import Markup, join, tag
from ftlab.studies.discover import members
from ftlab.tracking.plain import redact

_MARKS = re.compile(r"<(?!(?:br ?/?|/?(?:b|i|sub|sup|extra))>)")
"""The beginning of any element but those that only lay a text out; plotly reads links, too."""


def drawings() -> list[Drawing]:
    """Every drawing there is, in its order: the room is walked."""
    found: list[Drawing] = [made() for made in members(Drawing).values()]
    return sorted(found, key=lambda each: (getattr(each, "order", 100), each.name))


def plots(evidence: Evidence, all_drawings: Sequence[Drawing]
          ) -> tuple[Markup, list[dict[str, Any]]]:
    """The figures' HTML, and what plotly draws into them, in the same order."""
    parts, figures = [], []
    for drawing in all_drawings:
        data = drawing.data(evidence)
        if data is None or data.empty:
            continue
        caption = drawing.caption(data, evidence)
        figure: dict[str, Any] = _safe(drawing.plot(data, evidence))
        figures.append({"data": figure["data"], "layout": figure["layout"]})
        place = tag("div", class_="plot", role="img", aria_label=f"{drawing.title}. {caption}",
                    style=f"height: {int(figure['layout'].get('height', 450))}px")
        said = [tag("figcaption", caption)] if caption else []
        parts.append(tag("figure", tag("h3", drawing.title),
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
