"""The checks of `ftlab doctor`: can this installation run studies?"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ftlab.errors import FtlabError


@dataclass(frozen=True)
class Check:
    """One line of the doctor: whether it is well, and what."""

    good: bool
    what: str


def examine(tracking_uri: str | None) -> list[Check]:
    """Look at versions, device, disk and tracking store; makes no store."""
    return [_python(), *_versions(), *_extras(), *_imports(), _disk(), _store(tracking_uri)]


def _python() -> Check:
    (wanted, *_) = metadata.metadata("ftlab").get_all("Requires-Python") or [""]
    version = platform.python_version()
    return Check(SpecifierSet(wanted).contains(version), f"Python {version} (ftlab {metadata.version('ftlab')} "
                 f"needs {wanted}) in {sys.prefix}")


def _extras() -> Iterator[Check]:
    """The extras that are here, and a line for each other with what installs it; none is needed."""
    here = []
    for extra in metadata.metadata("ftlab").get_all("Provides-Extra") or []:
        members = [line for line in _all_lines() if _asked_for(line, extra) and not _asked_for(line, "")]
        missing = [line.name for line in members if _installed(line.name) is None]
        if missing:
            yield Check(True, f"extra {extra}: without {', '.join(missing)}; pip install 'ftlab[{extra}]'")
        else:
            here.append(extra)
    yield Check(True, f"extras installed: {', '.join(here) or 'none'}")


def _versions() -> Iterator[Check]:
    """Hold what is installed to the floors of ftlab's own metadata, which pyproject.toml writes."""
    for requirement in _requirements():
        name, wanted = requirement.name, str(requirement.specifier)
        version = _installed(name)
        if version is None:
            yield Check(False, f"{name} {wanted}: not installed; pip install '{name}{wanted}'")
        elif requirement.specifier.contains(version, prereleases=True):
            yield Check(True, f"{name} {version}")
        else:
            mend = f"pip install '{name}{wanted}'"
            yield Check(False, f"{name} {version}, but ftlab needs {wanted}; {mend}")


def _requirements() -> list[Requirement]:
    """Collect what ftlab needs, and what each extra needs that is here with all its packages."""
    lines = _all_lines()
    needed = [line for line in lines if _asked_for(line, "")]
    for extra in metadata.metadata("ftlab").get_all("Provides-Extra") or []:
        members = [line for line in lines if _asked_for(line, extra) and line not in needed]
        if all(_installed(member.name) for member in members):
            needed += members
    return list({f"{line.name}{line.specifier}": line for line in needed}.values())


def _all_lines() -> list[Requirement]:
    lines = [Requirement(line) for line in metadata.requires("ftlab") or []]
    return [line for line in lines if line.name != "ftlab"]  # an extra that is made of others


def _asked_for(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _imports() -> Iterator[Check]:
    try:
        import torch
        import torchvision
    except (ImportError, RuntimeError) as error:  # a torchvision built for another torch raises
        yield Check(False, f"torch and torchvision do not load together ({error}); reinstall both at once")
        return
    yield Check(True, f"torchvision {torchvision.__version__} loads with torch {torch.__version__}")
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Check(True, f"GPU: {names}")
    else:
        yield Check(True, f"no GPU; {torch.get_num_threads()} CPU threads")


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return Check(free > 2, f"{free:.1f} GB free in {Path.cwd()}" + ("" if free > 2 else ": too little"))


def _store(uri: str | None) -> Check:
    from ftlab.redaction import redact
    from ftlab.tracking import store

    try:
        address = store.resolve(uri)
        store.look(address)
    except FtlabError as error:
        return Check(False, f"{error.what}; {error.mend}")
    return Check(True, f"tracking store: {redact(address)}")
