"""LaTeX as LaTeX reads it: compiled where TeX is installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ftlab.reports.latex import latex
from ftlab.reports.table import NONE, Line, Quantity, Table

NASTY = r"""=cmd|' /C calc'!A0 <b>"x"</b> & 50% $x_1^2$ \input{/etc/passwd} [b] *c* ~# é ±"""
FRAME = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage{booktabs, graphicx, siunitx}
\begin{document}
%s
\end{document}
"""


def sheet(caption: str = "Study s: test/accuracy.", name: str = "x") -> Table:
    """Every kind of cell that a table has."""
    return Table(
        ("technique", "test/accuracy, %: mean ± std (n)", "95% confidence interval",
         "training time, s", "test/mse"),
        (("bbc from minilm", (
            Line(("full", Quantity("95.00", "0.82", "3"), "[92.97, 97.03]", Quantity("12,345.6"),
                  Quantity("2.000e-05", "1.414e-05", "3")), frozenset({1})),
            Line(("lora [1]", Quantity("-4.00", "12.34", "3"), "[-1.00, 9.00]", Quantity("1.0"),
                  NONE)),
            Line(("[probe]", Quantity("9.00", NONE, "1"), NONE, NONE, NONE), frozenset({1})),
            Line(("same", Quantity("8.00", "0.00", "3"), NONE, NONE, NONE)),
         )),
         (NASTY, (Line((name, NONE, NONE, NONE, NONE), frozenset({0, 1})),))),
        (f"lora: {NASTY}",), caption, (("Bold", f"The best: 5% {NASTY}"), ("Ties", "a & b")))


def test_latex__says_what_letters_beyond_latin_need() -> None:
    wanted = "% has letters beyond Latin: lualatex or xelatex"
    assert wanted in latex(sheet("Study s: test/f1/体育."))
    assert wanted not in latex(sheet("Étude s: test/f1/größe, 95% ± 1 — µ²."))


def test_latex__numbers_are_aligned_and_bold_survives() -> None:
    text = latex(sheet())
    assert r"\begin{tabular}{lS[table-format=-2.2(4)]@{\,}rrS[table-format=5.1]r}" in text
    assert r"full & \bfseries 95.00 +- 0.82 & (3) & {[}92.97, 97.03{]} & 12345.6 & " in text
    assert r"{[}probe{]} & \bfseries 9.00 & (1) & - & {-} & - \\" in text, "one seed has no spread"
    assert text.count(r"\caption{") == 1
    assert re.search(r"\\emph\{Ties:\} a \\& b", text)


def wide(columns: int, name: str = "lora", caption: str = "Study s: test/accuracy.") -> Table:
    """Seven techniques, and a column a data set."""
    lines = tuple(Line((f"{name}{n}", *(Quantity(f"{90 + n}.12", "0.82", "3"),) * columns))
                  for n in range(7))
    return Table(("technique", *(f"data_set_{n}, %" for n in range(columns))),
                 ((f"bbc from {name}", lines),), (f"{name}0: 2 of 3 seeds",), caption,
                 (("Averages", f"{name} counts once."),))


def compiled(tables: list[str], folder: Path) -> str:
    """What TeX says of a document with these tables; its PDF is `a.pdf`."""
    compiler = shutil.which("tectonic") or shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("needs TeX: tectonic or pdflatex")
    finder = shutil.which("kpsewhich")
    if finder and "tectonic" not in compiler and not subprocess.run(
            [finder, "siunitx.sty"], capture_output=True, check=False).stdout:
        pytest.skip("needs siunitx, in Debian's texlive-science")
    (folder / "a.tex").write_text(FRAME % "\n".join(tables), encoding="utf-8")
    options = [] if "tectonic" in compiler else ["-halt-on-error", "-interaction=nonstopmode"]
    done = subprocess.run([compiler, *options, "a.tex"], cwd=folder, capture_output=True,
                          text=True, errors="replace", timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (folder / "a.pdf").read_bytes().startswith(b"%PDF")
    return done.stdout + done.stderr


def test_latex__compiles(tmp_path: Path) -> None:
    compiled([latex(sheet(NASTY)), latex(sheet(name=NASTY))], tmp_path)
    if reader := shutil.which("pdftotext"):
        words = subprocess.run([reader, "-layout", "a.pdf", "-"], cwd=tmp_path, check=True,
                               capture_output=True, text=True).stdout
        assert re.search(r"full\s+95.00\s+±\s+0.82\s+\(3\)\s+\[92.97, 97.03\]\s+12,345.6", words)
        assert re.search(r"same\s+8.00 ±\s+0.00\s+\(3\)", words), "a spread of zero is shown"
        assert r"\input{/etc/passwd}" in words


def test_latex__stays_on_the_page(tmp_path: Path) -> None:
    long = "a_very_long_technique_name/" * 4
    tables = [wide(5), wide(12), wide(30), wide(3, "f" * 99), wide(2, long, f"Study {long}: {long}.")]
    said = compiled(list(map(latex, tables)), tmp_path)
    assert "Overfull" not in said
    assert "Float too large" not in said


def test_latex__columns_that_a_line_does_not_hold_stand_below() -> None:
    assert latex(wide(5)).count(r"\begin{tabular}{l") == 1
    text = latex(wide(12))
    panels = text.split(r"\begin{tabular}{l")[1:]
    assert [panel.count(r"data\_set") for panel in panels] == [6, 6]
    assert all("lora6 & " in panel and panel.count(r"\\") == 9 for panel in panels)
    assert (text.count(r"\begin{table}"), text.count(r"\caption"), text.count("Averages")) == (1, 1, 1)
    text = latex(wide(30))
    assert re.findall(r"data\\_set\\_(\d+)", text) == [str(n) for n in range(30)]
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    assert text.count(r"\addtocounter{table}{-1}\caption{Continued.}") == 1
    assert text.index("Averages") > text.index("Continued"), "notes stand under the last"
