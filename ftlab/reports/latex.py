"""A table as LaTeX: booktabs rules, siunitx columns, every text escaped."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence

from ftlab.reports.table import NONE, Line, Quantity, Table
from ftlab.visible import visible

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
_LATIN = 0x24F  # the last letter that pdflatex sets without more packages
_HEADING = 16  # characters of a line of a heading
_PANEL = 130  # characters of a line of a table; an article's page has 75, so that 6 points are left
_LINES = 40  # of a page
_SPACE = 3  # of them between two columns
_WORD, _PIECE = 30, 20  # characters: longer words may break, into pieces of so many letters
_PIECES = re.compile(rf"\w{{1,{_PIECE}}}\W*|\W+")
_SETUP = (r"\sisetup{separate-uncertainty, retain-zero-uncertainty, detect-weight, mode=text, "
          r"group-separator={,}, group-minimum-digits=4}")


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in visible(" ".join(text.split())))


def latex(table: Table) -> str:
    r"""A table for `\usepackage{booktabs, graphicx, siunitx}` (and `[T1]{fontenc}` for straight quotes).

    It is set smaller where it is wider than the line, as papers do. Columns that would make it
    unreadable so stand in further panels below, each with the names again, and panels that one
    page does not hold in a continued table.
    """
    columns = [_Column(heading, [line.texts[place] for _, group in table.groups for line in group],
                       place) for place, heading in enumerate(table.headings)]
    panels = _panels(columns)
    height = 3 + sum(2 + len(group) for _, group in table.groups)
    most = max(1, _LINES // height)
    lines = ["% needs \\usepackage{booktabs, graphicx, siunitx}; written by ftlab table"]
    for begin in range(0, len(panels), most):
        lines += [r"\begin{table}", r"\centering\emergencystretch=3em", _SETUP]
        lines.append(r"\addtocounter{table}{-1}\caption{Continued.}" if begin else
                     rf"\caption{{{_breakable(table.caption)}}}")
        for number, panel in enumerate(panels[begin : begin + most]):
            lines += [r"\par\medskip"] * (number > 0)
            first, *rest = _tabular(table, panel)
            lines += [rf"\sbox0{{{first}", *rest, "}",
                      r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi"]
        lines += [*(_below(table) if begin + most >= len(panels) else []), r"\end{table}"]
    if any(letter.isalpha() and ord(letter) > _LATIN for letter in "".join(lines)):
        lines.insert(1, "% has letters beyond Latin: lualatex or xelatex, with a font that has them")
    return "\n".join(lines) + "\n"


def _panels(columns: Sequence[_Column]) -> list[list[_Column]]:
    """The columns beside each other, in parts of about equal number; names begin each of them."""
    names, *others = columns
    room = max(_PANEL - names.width, 1)
    count = min(math.ceil(sum(column.width for column in others) / room), len(others)) or 1
    per_panel = math.ceil(len(others) / count)
    return [[names, *others[begin : begin + per_panel]] for begin in range(0, len(others), per_panel or 1)
            ] or [[names]]


def _tabular(table: Table, columns: Sequence[_Column]) -> list[str]:
    lines = [
        rf"\begin{{tabular}}{{{''.join(column.kind for column in columns)}}}",
        r"\toprule",
        " & ".join(column.heading() for column in columns) + r" \\",
    ]
    span = sum(column.span for column in columns)
    for title, group in table.groups:
        lines.append(r"\midrule")
        if title:
            lines.append(rf"\multicolumn{{{span}}}{{l}}{{\emph{{{escape_latex(title)}}}}} \\")
        lines += [_line(line, columns) for line in group]
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _breakable(text: str) -> str:
    """Text of a paragraph, in which words that are longer than any hyphenation helps may break."""
    words = (r"\allowbreak{}".join(map(escape_latex, _PIECES.findall(word)))
             if len(word) > _WORD else escape_latex(word) for word in text.split())
    return " ".join(words)


def _below(table: Table) -> list[str]:
    """Explanations and footnotes."""
    texts = [rf"\emph{{{escape_latex(term)}:}} {_breakable(text)}" for term, text in table.about]
    texts += [f"{{[}}{number}{{]}} {_breakable(note)}"
             for number, note in enumerate(table.notes, 1)]
    if not texts:
        return []
    return [r"\par\medskip", r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
            "\\par\n".join(texts), r"\end{minipage}"]


def _line(line: Line, columns: Sequence[_Column]) -> str:
    texts = [column.text(line.texts[column.place], column.place in line.bold)
             for column in columns]
    return " & ".join(texts) + r" \\"


class _Column:
    """How a column is set: numbers at their points, all else to the right, names to the left."""

    def __init__(self, heading: str, texts: Sequence[str], place: int) -> None:
        self.place = place
        # what stands behind a comma, a unit, stays with its word
        self._rows = textwrap.wrap(heading.replace(", ", ",\N{NO-BREAK SPACE}"), _HEADING,
                                   break_long_words=False, break_on_hyphens=False) or [""]
        self.width = _SPACE + max(map(len, (*texts, *self._rows)))
        numbers = [text for text in texts if isinstance(text, Quantity)]
        plain = all(_PLAIN.fullmatch(part) for text in numbers
                    for part in (text.number, text.spread) if part and part != NONE)
        self.aligned = bool(numbers) and plain
        self.beside = self.aligned and any(text.beside for text in numbers)
        self.span = 2 if self.beside else 1
        self.kind = "r" if place else "l"
        if self.aligned:
            self.kind = f"S[table-format={_format(numbers)}]" + r"@{\,}r" * self.beside

    def heading(self) -> str:
        rows = [escape_latex(row) for row in self._rows]
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
