"""Diagnoses as a section of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftlab.reports.diagnoses.base import LEVELS, Diagnosis, Finding
from ftlab.reports.page.markup import Markup, folded, join, tag

NONE = "Nothing that is looked for was found."


def findings(found: Mapping[Diagnosis, Sequence[Finding]]) -> Markup:
    """The worst first; what was looked for, and by which thresholds, is folded below."""
    cards = sorted(((finding, diagnosis.title) for diagnosis, each in found.items()
                    for finding in each), key=lambda pair: LEVELS.index(pair[0].level))
    rules = [join([tag("dt", diagnosis.title), tag("dd", diagnosis.rule)]) for diagnosis in found]
    return join([
        *([_card(finding, title) for finding, title in cards] or [tag("p", NONE)]),
        folded("What is looked for", tag("dl", *rules)),
    ])


def _card(finding: Finding, title: str) -> Markup:
    seeds = finding.seeds
    many = f", seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else ""
    return tag(
        "div",
        tag("p", tag("span", finding.level, class_="level"), tag("strong", title), " ",
            tag("span", f"{finding.where}{many}", class_="where")),
        tag("p", f"Seen: {finding.seen}."),
        *([tag("p", f"Try: {finding.advice}.")] if finding.advice else []),
        class_=f"finding {finding.level}",
    )
