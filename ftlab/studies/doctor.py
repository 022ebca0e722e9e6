"""What `ftlab doctor` looks at: can this installation run studies?"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ftlab.errors import FtlabError


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: whether it is well, and what."""

    good: bool
    what: str


def examine(tracking_uri: str | None) -> list[Finding]:
    """Look at versions, device, disk and tracking store; changes nothing."""
    return [*_versions(), *_imports(), _disk(), _store(tracking_uri)]


def _versions() -> Iterator[Finding]:
    for requirement in metadata.requires("ftlab") or []:
        said = re.match(r"([A-Za-z0-9_.-]+)(?:\[.*?\])?([^;]*)(;.*)?", requirement)
        if said is None or (said[3] and "extra" in said[3]):
            continue
        name, wanted = said[1], said[2].strip()
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(False, f"{name} {wanted}: not installed; pip install '{name}{wanted}'")
            continue
        good = _satisfies(version, wanted)
        yield Finding(good, f"{name} {version}" + ("" if good else f", but ftlab needs {wanted}"))


def _satisfies(version: str, wanted: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return version in SpecifierSet(wanted, prereleases=True)


def _imports() -> Iterator[Finding]:
    try:
        import torch
        import torchvision
    except (ImportError, RuntimeError) as error:  # a torchvision built for another torch raises
        yield Finding(False, f"torch and torchvision do not load together ({error}); reinstall both at once")
        return
    yield Finding(True, f"torchvision {torchvision.__version__} loads with torch {torch.__version__}")
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Finding(True, f"GPU: {names}")
    else:
        yield Finding(True, f"no GPU; {torch.get_num_threads()} CPU threads")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return Finding(free > 2, f"{free:.1f} GB free in {Path.cwd()}" + ("" if free > 2 else ": too little"))


def _store(uri: str | None) -> Finding:
    from ftlab.tracking import store
    from ftlab.tracking.plain import redact

    try:
        address = store.resolve(uri)
        store.look(address)
    except FtlabError as error:
        return Finding(False, f"tracking store: {error.what}; {error.mend}")
    return Finding(True, f"tracking store: {redact(address)}")
