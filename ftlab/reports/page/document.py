"""The page as one file that loads nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from ftlab.reports.page.markup import Markup, join, tag

POLICY = ("default-src 'none'; script-src 'none'; style-src 'unsafe-inline'; img-src data:; "
          "base-uri 'none'; form-action 'none'")
"""Content-Security-Policy: a script that a name in the store smuggled in would not run.

Images are those that stand in the page: matplotlib writes the cells of a matrix as one.
"""


def document(title: str, sections: Sequence[Markup]) -> str:
    """One HTML page.

    Args:
        title: of the window.
        sections: from top to bottom.
    """
    style = (resources.files("ftlab.reports.page") / "style.css").read_text(encoding="utf-8")
    return "\n".join([
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<meta name="referrer" content="no-referrer">',
        tag("title", title),
        f"<style>{style}</style></head>",
        f"<body><main>{join(sections, Markup(chr(10)))}</main>",
        "</body></html>\n",
    ])
