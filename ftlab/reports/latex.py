"""A sheet as LaTeX: booktabs rules, siunitx columns, every text escaped."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from ftlab.reports.sheet import NONE, Line, Quantity, Sheet

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
_PLAIN = re.compile(r"-?[\d,]+(\.\d+)?")  # what siunitx aligns at its point
_HEADING = 16  # characters of a line of a heading
_SETUP = (r"\sisetup{separate-uncertainty, retain-zero-uncertainty, detect-weight, mode=text, "
          r"group-separator={,}, group-minimum-digits=4}")


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def latex(sheet: Sheet) -> str:
    r"""A table for `\usepackage{booktabs, siunitx}` (and `[T1]{fontenc}` for straight quotes)."""
    columns = [_Column([line.texts[place] for _, group in sheet.groups for line in group], place)
               for place in range(len(sheet.headings))]
    width = sum(column.span for column in columns)
    lines = [
        "% needs \\usepackage{booktabs, siunitx}; written by ftlab table",
        r"\begin{table}",
        r"\centering",
        _SETUP,
        rf"\caption{{{escape_latex(sheet.caption)}}}",
        rf"\begin{{tabular}}{{{''.join(column.kind for column in columns)}}}",
        r"\toprule",
        " & ".join(column.heading(text) for column, text
                   in zip(columns, sheet.headings, strict=True)) + r" \\",
    ]
    for title, group in sheet.groups:
        lines.append(r"\midrule")
        if title:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape_latex(title)}}}}} \\")
        lines += [_line(line, columns) for line in group]
    lines += [r"\bottomrule", r"\end{tabular}", *_below(sheet), r"\end{table}"]
    return "\n".join(lines) + "\n"


def _below(sheet: Sheet) -> list[str]:
    """What a reader should know, and the footnotes."""
    said = [rf"\emph{{{escape_latex(term)}:}} {escape_latex(text)}" for term, text in sheet.about]
    said += [f"{{[}}{number}{{]}} {escape_latex(note)}"
             for number, note in enumerate(sheet.notes, 1)]
    if not said:
        return []
    return [r"\par\medskip", r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
            "\\par\n".join(said), r"\end{minipage}"]


def _line(line: Line, columns: Sequence[_Column]) -> str:
    texts = [column.text(text, place in line.bold)
             for place, (column, text) in enumerate(zip(columns, line.texts, strict=True))]
    return " & ".join(texts) + r" \\"


class _Column:
    """How a column is set: numbers at their points, all else to the right, names to the left."""

    def __init__(self, texts: Sequence[str], place: int) -> None:
        numbers = [text for text in texts if isinstance(text, Quantity)]
        plain = all(_PLAIN.fullmatch(part) for text in numbers
                    for part in (text.number, text.spread) if part and part != NONE)
        self.aligned = bool(numbers) and plain
        self.beside = self.aligned and any(text.beside for text in numbers)
        self.span = 2 if self.beside else 1
        self.kind = "r" if place else "l"
        if self.aligned:
            self.kind = f"S[table-format={_format(numbers)}]" + r"@{\,}r" * self.beside

    def heading(self, text: str) -> str:
        # what stands behind a comma, a unit, stays with its word
        rows = [escape_latex(row) for row in textwrap.wrap(
            text.replace(", ", ",\N{NO-BREAK SPACE}"), _HEADING, break_long_words=False,
            break_on_hyphens=False)] or [""]
        set_ = rows[0] if len(rows) == 1 else (
            r"\begin{tabular}[b]{@{}c@{}}" + r" \\ ".join(rows) + r"\end{tabular}")
        return rf"\multicolumn{{2}}{{c}}{{{set_}}}" if self.beside else f"{{{set_}}}"

    def text(self, text: str, bold: bool) -> str:
        if not self.aligned or not isinstance(text, Quantity):
            set_ = escape_latex(text)
            set_ = rf"\textbf{{{set_}}}" if bold else set_
            return (f"{{{set_}}}" if self.aligned else set_) + " & " * self.beside
        number = text.number.replace(",", "")
        if text.spread not in ("", NONE):
            number += f" +- {text.spread.replace(',', '')}"
        beside = f" & {escape_latex(f'({text.beside})') if text.beside else ''}" * self.beside
        return rf"\bfseries {number}{beside}" if bold else f"{number}{beside}"


def _format(numbers: Sequence[Quantity]) -> str:
    """The table-format: digits before and after the point, and of the uncertainty."""
    means = [text.number.replace(",", "").partition(".") for text in numbers]
    before = max(len(whole.lstrip("-")) for whole, _, _ in means)
    after = max(len(part) for _, _, part in means)
    sign = "-" if any(whole.startswith("-") for whole, _, _ in means) else ""
    spreads = [len(text.spread.replace(",", "").replace(".", "").lstrip("0")) or 1
               for text in numbers if text.spread not in ("", NONE)]
    return f"{sign}{before}.{after}" + (f"({max(spreads)})" if spreads else "")
