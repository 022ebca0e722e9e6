"""BibTeX of the papers that a study's techniques are from, as their docstrings name them."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from ftlab.studies.study import Study

FILE = "references.bib"
_NAME = r"[^\W\d_a-z][\w'-]*"  # begins with no small letter of English
_AUTHOR = rf"(?:(?:de|van|von|der|den|la|le|di|da|ten) )*{_NAME}(?: {_NAME})*"
_REFERENCE = re.compile(
    rf"(?P<authors>{_AUTHOR}(?:(?:, and |, | and ){_AUTHOR})*)(?P<more>,? et al\.)? "
    r"\(?(?P<year>\d{4})\)?,? <?(?P<url>https?://[^\s<>)]+[^\s<>).,;:])")
_ARXIV = re.compile(r"https://arxiv\.org/abs/(\S+)")
_DOI = re.compile(r"https://doi\.org/(\S+)")


@dataclass(frozen=True)
class Reference:
    """A source, as a docstring states it: family names, year, address; titles are not there."""

    authors: tuple[str, ...]
    year: str
    url: str
    more: bool = False

    def entry(self, key: str, used: Iterable[str]) -> str:
        """As BibTeX.

        Args:
            key: to cite it by.
            used: names of what is from it.
        """
        fields = {"author": " and ".join((*self.authors, *(["others"] if self.more else []))),
                  "year": self.year, "url": self.url}
        if found := _ARXIV.fullmatch(self.url):
            fields |= {"eprint": found[1], "archiveprefix": "arXiv"}
        if found := _DOI.fullmatch(self.url):
            fields["doi"] = found[1]
        fields["note"] = f"Source of {', '.join(used)}"
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@misc{{{key},\n{lines}\n}}\n"


def references(text: str) -> list[Reference]:
    """The sources that a docstring names, in its order."""
    return [Reference(tuple(re.split(", and |, | and ", found["authors"])),
                      found["year"], found["url"], bool(found["more"]))
            for found in _REFERENCE.finditer(" ".join(text.split()))]


def bibliography(study: Study) -> str:
    """All sources of a study's techniques, of those that they wrap and of their stages, as BibTeX."""
    used: dict[Reference, list[str]] = {}
    for path in dict.fromkeys(path for cell in study.cells
                              for path in _classes([cell.technique, *cell.before])):
        for reference in references(_docstring(path)):
            used.setdefault(reference, []).append(path.rpartition(".")[2])
    keys: dict[str, Reference] = {}
    for reference in used:
        plain = re.sub(r"\W", "", reference.authors[0].split()[-1]).lower() + reference.year
        keys[next(key for key in (plain, *(plain + letter for letter in ascii_lowercase[1:]))
                  if key not in keys)] = reference
    head = (f"% Sources of what {study.name} compares, as ftlab's classes name them: family names, year and\n"
            "% address. Titles and first names are to be added from there.\n")
    return "\n".join([head, *(reference.entry(key, used[reference]) for key, reference in keys.items())])


def _classes(value: Any) -> Iterator[str]:
    """Every class that a component names, at any depth."""
    if isinstance(value, Mapping):
        if isinstance(path := value.get("class_path"), str):
            yield path
        for inner in value.values():
            yield from _classes(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _classes(inner)


def _docstring(path: str) -> str:
    """A class's docstring, out of its file: an import would bring torch to a table."""
    module, _, name = path.rpartition(".")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return next((ast.get_docstring(node) or "" for node in tree.body
                 if isinstance(node, ast.ClassDef) and node.name == name), "")
