"""The page as one file: it loads nothing, and a browser lets it run only what is written here."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from ftlab.reports.page.markup import Markup, join, tag, text

_ESCAPES = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}


def document(title: str, sections: Sequence[Markup], figures: Sequence[Mapping[str, Any]]) -> str:
    """One HTML page.

    Args:
        title: of the window.
        sections: from top to bottom.
        figures: plotly's `data` and `layout` of each element of the class `plot`, in order;
            plotly is in the page only where there is one.
    """
    scripts = [plotly(), _own("arrange.js") + _own("plots.js")] if figures else []
    return "\n".join([
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{text(policy(scripts))}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<meta name="referrer" content="no-referrer">',
        tag("title", title),
        f"<style>{_own('style.css')}</style></head>",
        f"<body><main>{join(sections, Markup(chr(10)))}</main>",
        *([f'<script type="application/json" id="drawn">{as_json(figures)}</script>']
          if figures else []),
        *(f"<script>{script}</script>" for script in scripts),
        "</body></html>\n",
    ])


def policy(scripts: Sequence[str]) -> str:
    """A Content-Security-Policy that lets these scripts run and nothing be loaded.

    Scripts by their hashes: one that a name in the store smuggled in would not run. plotly writes
    style sheets while it draws, so that styles cannot be told apart.
    """
    allowed = " ".join(f"'sha256-{_hash(script)}'" for script in scripts) or "'none'"
    return (f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
            "img-src data:; base-uri 'none'; form-action 'none'")


def as_json(value: Any) -> str:
    """JSON that ends no element: `<` and its like are escaped.

    Raises:
        ValueError: a number that is not finite, which JSON does not have.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True,
                      separators=(",", ":")).translate(_ESCAPES)


@cache
def plotly() -> str:
    """plotly.js as the package brings it; the whole of it, since it brings no smaller bundle."""
    source = resources.files("plotly") / "package_data" / "plotly.min.js"
    script = source.read_text(encoding="utf-8").replace("\r\n", "\n")
    if "</script" in script or "<!--" in script:
        raise RuntimeError("plotly.min.js cannot stand in a page: it holds the end of a script")
    return script


def _own(name: str) -> str:
    return (resources.files("ftlab.reports.page") / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
