"""BibTeX of a study's techniques: what docstrings say, for every class that names a paper."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ftlab.reports.references import Reference, bibliography, references
from ftlab.studies.study import load_study

TECHNIQUES = Path(__file__).parents[2] / "ftlab" / "techniques"


@pytest.mark.parametrize(("text", "found"), [
    ("Ben Zaken, Ravfogel, Goldberg (2022), https://arxiv.org/abs/2106.10199",
     Reference(("Ben Zaken", "Ravfogel", "Goldberg"), "2022", "https://arxiv.org/abs/2106.10199")),
    ("In the manner of Rebuffi, de la Fuente and Schölkopf (2018),\n    https://arxiv.org/abs/1803.10082. With more",
     Reference(("Rebuffi", "de la Fuente", "Schölkopf"), "2018", "https://arxiv.org/abs/1803.10082")),
    ("as Chaudhry et al. (2018, 2019) say; Liu, Nocedal (1989), https://doi.org/10.1007/BF01589116.",
     Reference(("Liu", "Nocedal"), "1989", "https://doi.org/10.1007/BF01589116")),
    ("Hu et al. (2021) <https://arxiv.org/abs/2106.09685>",
     Reference(("Hu",), "2021", "https://arxiv.org/abs/2106.09685", more=True)),
])
def test_references__as_docstrings_write_them(text: str, found: Reference) -> None:
    assert references(text) == [found]


def test_every_technique_s_papers_are_found() -> None:
    missed = {}
    for path in TECHNIQUES.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and (text := ast.get_docstring(node)):
                links = set(re.findall(r"https://arxiv\.org/abs/[\d.]*\d", text))
                if lost := links - {found.url for found in references(text)}:
                    missed[node.name] = lost
    assert not missed


def test_bibliography__names_each_paper_once_and_what_is_from_it(
    tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(f"""
name: small
backbones: {{bert: {{class_path: HuggingFace, init_args: {{source: {tiny_bert}}}}}}}
datasets: {{reviews: {{class_path: TextClassification, init_args: {{train: {reviews}}}}}}}
techniques:
  lora: LoRA
  more: {{class_path: LoRA, init_args: {{rank: 4}}}}
  within: {{class_path: L2SP, init_args: {{technique: BitFit}}}}
""")
    text = bibliography(load_study(path))
    assert text.count("@misc{") == len(set(re.findall(r"@misc\{(\w+),", text))) >= 3
    bitfit = text[text.index("@misc{zaken2022"):]
    assert bitfit.splitlines()[1:7] == [
        "  author = {Ben Zaken and Ravfogel and Goldberg},", "  year = {2022},",
        "  url = {https://arxiv.org/abs/2106.10199},", "  eprint = {2106.10199},",
        "  archiveprefix = {arXiv},", "  note = {Source of BitFit}"]
    if (bibtex := shutil.which("bibtex")) is not None:
        (tmp_path / "references.bib").write_text(text)
        (tmp_path / "x.aux").write_text("\\citation{*}\n\\bibstyle{plain}\n\\bibdata{references}\n")
        done = subprocess.run([bibtex, "x"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "error message" not in done.stdout, done.stdout
        assert (tmp_path / "x.bbl").read_text().count("\\bibitem") == text.count("@misc{")
