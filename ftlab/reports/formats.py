"""A table as Markdown, HTML and on the terminal; every text is escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich import box
from rich.console import Group
from rich.table import Table as RichTable

from ftlab.reports.page.markup import join, tag
from ftlab.reports.table import Line, Table
from ftlab.terminal import plain_text
from ftlab.visible import visible

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~$])")
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # full width too
_PLAIN = re.compile(r"[+-]?([0-9]+([.,][0-9]+)*[.,]?|[.,][0-9]+)([eE][+-]?[0-9]+)?%?|[+-]+")
_TITLE = 20  # characters of a group's title that the terminal's first column makes room for
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222 }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid }
th, td { padding: .25rem .75rem; text-align: right; font-variant-numeric: tabular-nums }
td { white-space: nowrap }
th:first-child, td:first-child { text-align: left }
thead th { border-bottom: 1px solid; vertical-align: bottom }
tbody th { font-style: italic; font-weight: normal; border-top: 1px solid #bbb }
caption { caption-side: top; text-align: left; padding-bottom: .75rem; font-weight: 600 }
.wide { overflow-x: auto }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; max-width: 60rem }
dt { font-style: italic }
dd { margin: 0 }
"""


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line of a table."""
    return _MARKDOWN.sub(r"\\\1", visible(" ".join(text.split())))


def escape_csv(text: str) -> str:
    """Text that a spreadsheet does not take for a formula: with `'` in front where it would.

    https://owasp.org/www-community/attacks/CSV_Injection. Numbers with a sign, and signs alone,
    are what they are; `unescape_csv` takes back what was put in front.
    """
    return "'" + text if _FORMULA.match(text) and not _PLAIN.fullmatch(text) else text


def unescape_csv(text: str) -> str:
    """The text of which `escape_csv` made this one."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def markdown_line(line: Line) -> str:
    """One line of the Markdown table."""
    texts = [escape_markdown(text) for text in line.texts]
    texts = [f"**{text}**" if place in line.bold else text for place, text in enumerate(texts)]
    return f"| {' | '.join(texts)} |"


def markdown_head(table: Table) -> list[str]:
    """Headings and rule of the Markdown table."""
    rule = [":---" if place in table.words else "---:" for place in range(len(table.headings))]
    return [f"| {' | '.join(map(escape_markdown, table.headings))} |", f"| {' | '.join(rule)} |"]


def markdown_groups(table: Table) -> list[str]:
    """Each group as a table under its title, without caption and notes."""
    lines = []
    for title, group in table.groups:
        if title:
            lines += [f"### {escape_markdown(title)}", ""]
        lines += [*markdown_head(table), *map(markdown_line, group), ""]
    return lines


def markdown(table: Table) -> str:
    """GitHub's Markdown."""
    lines = [*markdown_groups(table), escape_markdown(table.caption)]
    if table.about:
        lines += ["", *(f"- *{escape_markdown(term)}:* {escape_markdown(text)}"
                        for term, text in table.about)]
    for number, note in enumerate(table.notes, 1):
        lines += ["", rf"\[{number}\] {escape_markdown(note)}"]
    return "\n".join(lines) + "\n"


def html_lines(table: Table) -> list[str]:
    """The table, its footnotes and explanations, for the body of a page."""
    head = join([tag("th", heading, scope="col") for heading in table.headings])
    body = []
    for title, group in table.groups:
        body.append("<tbody>")
        if title:
            body.append(tag("tr", tag("th", title, colspan=str(len(table.headings)))))
        for line in group:
            body.append(tag("tr", *(tag("td", tag("strong", text) if place in line.bold else text)
                                    for place, text in enumerate(line.texts))))
        body.append("</tbody>")
    notes = [tag("p", f"[{number}] {note}") for number, note in enumerate(table.notes, 1)]
    about = [join([tag("dt", term), tag("dd", text)]) for term, text in table.about]
    return [f'<div class="wide"><table>{tag("caption", table.caption)}',
            f"<thead><tr>{head}</tr></thead>", *body, "</table></div>", *notes,
            *([tag("dl", *about)] if about else [])]


def page(table: Table) -> str:
    """One HTML page that loads nothing."""
    return "\n".join([
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width"><title>ftlab</title>',
        f"<style>{_STYLE}</style></head><body>",
        *html_lines(table),
        "</body></html>\n",
    ])


def terminal(table: Table, room: int | None = None) -> Group:
    """The table and what is under it; `plain_text` keeps names from being read as markup.

    Args:
        table: what to show.
        room: characters of a line; columns that do not fit are named, not squeezed. None shows all.
    """
    widths = [_width(table, place) for place in range(len(table.headings))]
    shown = len(widths)
    while room is not None and shown > 1 and sum(widths[:shown]) + shown - 1 > room:
        shown -= 1
    texts = [table.caption]
    if hidden := table.headings[shown:]:
        texts.append(f"Not shown for want of room, but in the files: {', '.join(hidden)}.")
    texts += [f"{term}: {text}" for term, text in table.about]
    texts += [f"[{number}] {note}" for number, note in enumerate(table.notes, 1)]
    # not its caption, which would be as narrow as a narrow table
    return Group(terminal_table(table, widths[:shown]),
                 *(plain_text(text, style="dim") for text in texts))


def terminal_table(table: Table, widths: Sequence[int | None], title: str = "") -> RichTable:
    """The first columns of a table, without caption and notes.

    Args:
        table: what to show.
        widths: one per column shown, in characters; None leaves it to the terminal.
        title: above it.
    """
    grid = RichTable(box=box.SIMPLE_HEAD, show_edge=False, padding=0, title_justify="left",
                     title=plain_text(title) if title else None)
    for place, (heading, width) in enumerate(zip(table.headings, widths, strict=False)):
        grid.add_column(plain_text(heading), width=width,
                        justify="left" if place in table.words else "right")
    for heading, group in table.groups:
        if heading:
            grid.add_section()
            grid.add_row(plain_text(heading, style="italic"))
        for line in group:
            styles = ["bold" if place in line.bold else "" for place in range(len(widths))]
            grid.add_row(*map(plain_text, line.texts[:len(widths)], styles))
    return grid


def _width(table: Table, place: int) -> int:
    """The least width: texts with numbers stay whole, others and headings wrap between words."""
    parts = table.headings[place].split()
    for text in (line.texts[place] for _, group in table.groups for line in group):
        parts += [text] if any(map(str.isdigit, text)) else text.split()
    # a group's title stands in the first column
    titles = [min(len(title), _TITLE) for title, _ in table.groups] if place == 0 else []
    return max([*map(len, parts), *titles], default=0)
