"""Diagnoses as a section of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ftlab.reports.diagnoses.base import LEVELS, Diagnosis, Finding, Level
from ftlab.reports.page.markup import Markup, folded, join, tag

NONE = "Nothing that is looked for was found."
UNREAD = ("The study has too many runs for their curves to be read: overfitting, learning rates, "
          "bursts of gradients, convergence and best epochs were not looked at.")


def findings(by_diagnosis: Mapping[Diagnosis, Sequence[Finding]], curves: bool) -> Markup:
    """The worst first; what was looked for, and by which thresholds, is folded below."""
    cards: dict[tuple[Level, str, str], list[Finding]] = {}
    for diagnosis, members in by_diagnosis.items():
        for finding in members:
            cards.setdefault((finding.level, diagnosis.title, finding.advice), []).append(finding)
    order = sorted(cards, key=lambda card: LEVELS.index(card[0]))
    rules = [join([tag("dt", diagnosis.title), tag("dd", diagnosis.rule)]) for diagnosis in by_diagnosis]
    return join([
        *([] if curves else [tag("p", UNREAD, class_="about")]),
        *([_card(*card, cards[card]) for card in order] or [tag("p", NONE)]),
        folded("What is looked for", tag("dl", *rules)),
    ])


def _card(level: Level, title: str, advice: str, alike: Sequence[Finding]) -> Markup:
    """One card for all findings with the same advice."""
    lines = [tag("li", tag("span", f"{finding.where}{_seeds(finding)}: ", class_="where"),
                 finding.seen) for finding in alike]
    return tag(
        "div",
        tag("p", tag("span", level, class_="level"), tag("strong", title)),
        tag("ul", *lines),
        *([tag("p", tag("strong", "Try: "), f"{advice}.")] if advice else []),
        class_=f"finding {level}",
    )


def _seeds(finding: Finding) -> str:
    if not finding.seeds:
        return ""
    return f", seed{'s' * (len(finding.seeds) > 1)} {', '.join(map(str, finding.seeds))}"
