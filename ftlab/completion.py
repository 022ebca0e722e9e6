"""The words that a shell completes: study files, their techniques, rooms and classes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path


def files(incomplete: str) -> Iterator[str]:
    """YAML files and folders that begin so."""
    folder = Path(incomplete if incomplete.endswith("/") else incomplete.rpartition("/")[0] or ".")
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        name = path.name if not incomplete.rpartition("/")[1] else f"{folder}/{path.name}".replace("//", "/")
        if name.startswith(incomplete) and (path.is_dir() or path.suffix in (".yaml", ".yml")):
            yield f"{name}/" if path.is_dir() else name


def techniques(incomplete: str) -> Iterator[str]:
    """Techniques of the study or sweep that the command line names."""
    from ftlab.errors import FtlabError
    from ftlab.studies.yaml_file import read

    # an option that has no value yet keeps Typer from parsing what stands before it
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", "")
    named = [word for word in line.split() if word.endswith((".yaml", ".yml"))]
    if not named:
        return
    try:
        data, _ = read(Path(named[0]))
        if "study" in data:  # a sweep's
            data, _ = read(Path(str(data["study"])))
    except FtlabError:  # a shell's line shows no errors
        return
    names = data.get("techniques")
    yield from (name for name in (names if isinstance(names, dict) else {}) if str(name).startswith(incomplete))


def listed(incomplete: str) -> Iterator[str]:
    """Rooms and classes, as `ftlab list` has them."""
    from ftlab.studies.catalogue import catalogue

    for line in catalogue(None):
        if (found := re.match(r"(?:  )?(\w+):", line)) and found[1].startswith(incomplete):
            yield found[1]
