"""A sheet as Markdown, LaTeX, HTML and on the terminal; every text is escaped."""

from __future__ import annotations

import html
import re

from rich import box
from rich.table import Table
from rich.text import Text

from ftlab.reports.sheet import Line, Sheet

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~$])")
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "[": "{[}",  # a line that begins with [ would be an argument of \\
    "]": "{]}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    **{letter: "\\" + letter for letter in "#$%&_"},
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222 }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid }
th, td { padding: .25rem .75rem; text-align: right; font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left }
thead th { border-bottom: 1px solid; vertical-align: bottom }
tbody th { font-style: italic; font-weight: normal; border-top: 1px solid #bbb }
caption { caption-side: bottom; text-align: left; padding-top: .75rem; max-width: 60rem }
"""


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line of a table."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def escape_csv(text: str) -> str:
    """Text that a spreadsheet does not take for a formula (OWASP, CSV injection)."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def markdown_line(line: Line) -> str:
    """One line of the Markdown table."""
    texts = [escape_markdown(text) for text in line.texts]
    if line.bold:
        texts[1] = f"**{texts[1]}**"
    return f"| {' | '.join(texts)} |"


def markdown_head(sheet: Sheet) -> list[str]:
    """Headings and rule of the Markdown table."""
    rule = [":---", *["---:"] * (len(sheet.headings) - 1)]
    return [f"| {' | '.join(map(escape_markdown, sheet.headings))} |", f"| {' | '.join(rule)} |"]


def markdown(sheet: Sheet) -> str:
    """GitHub's Markdown; each group is a table under its title."""
    lines = []
    for title, group in sheet.groups:
        if title:
            lines += [f"### {escape_markdown(title)}", ""]
        lines += [*markdown_head(sheet), *map(markdown_line, group), ""]
    lines.append(escape_markdown(sheet.caption))
    for number, note in enumerate(sheet.notes, 1):
        lines += ["", rf"\[{number}\] {escape_markdown(note)}"]
    return "\n".join(lines) + "\n"


def latex(sheet: Sheet) -> str:
    r"""A table for `\usepackage{booktabs}` (and `[T1]{fontenc}` for straight quotes)."""
    width = len(sheet.headings)
    lines = [
        "% needs \\usepackage{booktabs}; written by ftlab table",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(sheet.caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}",
        r"\toprule",
        " & ".join(map(escape_latex, sheet.headings)) + r" \\",
    ]
    for title, group in sheet.groups:
        lines.append(r"\midrule")
        if title:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape_latex(title)}}}}} \\")
        for line in group:
            texts = [escape_latex(text) for text in line.texts]
            if line.bold:
                texts[1] = rf"\textbf{{{texts[1]}}}"
            lines.append(" & ".join(texts) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    for number, note in enumerate(sheet.notes, 1):
        lines += ["", rf"\footnotesize {{[}}{number}{{]}} {escape_latex(note)}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def page(sheet: Sheet) -> str:
    """One HTML page that loads nothing."""

    def tag(name: str, text: str, attributes: str = "") -> str:
        return f"<{name}{attributes}>{html.escape(text)}</{name}>"

    head = "".join(tag("th", heading, ' scope="col"') for heading in sheet.headings)
    body = []
    for title, group in sheet.groups:
        body.append("<tbody>")
        if title:
            span = f' colspan="{len(sheet.headings)}"'
            body.append(f"<tr>{tag('th', title, span)}</tr>")
        for line in group:
            cells = [tag("td", text) for text in line.texts]
            if line.bold:
                cells[1] = f"<td><strong>{html.escape(line.texts[1])}</strong></td>"
            body.append(f"<tr>{''.join(cells)}</tr>")
        body.append("</tbody>")
    notes = [tag("p", f"[{number}] {note}") for number, note in enumerate(sheet.notes, 1)]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8"><title>ftlab</title>',
            f"<style>{_STYLE}</style></head><body>",
            f"<table>{tag('caption', sheet.caption)}",
            f"<thead><tr>{head}</tr></thead>",
            *body,
            "</table>",
            *notes,
            "</body></html>\n",
        ]
    )


def terminal(sheet: Sheet) -> Table:
    """A rich table that fits 80 columns; `Text` keeps names from being read as markup."""
    notes = [f"[{number}] {note}" for number, note in enumerate(sheet.notes, 1)]
    table = Table(
        caption=Text("\n".join([sheet.caption, *notes])),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    for number, heading in enumerate(sheet.headings):
        # The numbers stay whole; a heading may wrap, a word of it never.
        texts = [line.texts[number] for _, group in sheet.groups for line in group]
        width = max(map(len, [*heading.split(), *texts]))
        table.add_column(Text(heading), justify="right" if number else "left", width=width)
    for title, group in sheet.groups:
        if title:
            table.add_section()
            table.add_row(Text(title, style="italic"))
        for line in group:
            styles = ["bold" if line.bold and column == 1 else "" for column in range(6)]
            table.add_row(*map(Text, line.texts, styles))
    return table
