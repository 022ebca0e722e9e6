"""The study's figures as sections of the page: every drawing that has data."""

from __future__ import annotations

from ftlab.reports.figures import all_figures
from ftlab.reports.page.markup import Markup, join, tag
from ftlab.reports.study_results import StudyResults

WIDTHS = {"desktop": 10.4, "phone": 3.8}
"""Inches of a page on a desktop and on a phone; CSS shows the one that fits."""


def plots(results: StudyResults) -> Markup:
    """The figures as HTML, each drawn for wide and for narrow pages."""
    sections = []
    for drawn in all_figures.drawn(results):
        images = [tag("div", Markup(drawn.svg(width)), class_=f"plot {name}", role="img",
                      aria_label=f"{drawn.title}. {drawn.caption}")
                  for name, width in WIDTHS.items()]
        caption = [tag("figcaption", drawn.caption)] if drawn.caption else []
        sections.append(tag("figure", tag("h3", drawn.title), *images, *caption))
    return join(sections)
