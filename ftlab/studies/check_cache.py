"""Checked entries of study files, kept so that reading results imports none of their classes.

Lightning, PyTorch and all that they pull in take seconds and 700 MiB; which cells a study file has
is a few lines of text that only code can change.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ftlab.backbones.cache_folder import damaged, folder, may_add
from ftlab.files import write
from ftlab.studies.provenance import PACKAGES

KIND = "checks"
MOST = 500  # files kept, of some kilobytes each

_PACKAGE = Path(__file__).resolve().parents[1]


def remembered(question: object, answer: Callable[[], Any]) -> Any:
    """The answer as JSON; from `$FTLAB_CACHE` where this code has given it before.

    An error is not remembered, so that what is refused is refused by the classes themselves.

    Args:
        question: all that the answer depends on besides code; plain data.
        answer: computes it, as plain data.
    """
    asked = hashlib.sha256(f"{_code()} {question!r}".encode()).hexdigest()
    path = folder(KIND) / f"{asked}.json"
    with contextlib.suppress(OSError):  # not there
        digest, _, text = path.read_bytes().partition(b"\n")
        if _sha256(text) == digest:
            return json.loads(text)
        damaged(str(path))
    made = json.dumps(answer())
    if may_add():
        with contextlib.suppress(OSError):  # a full disk costs the next one time, and nothing else
            _keep(path, made)
    return json.loads(made)


def _sha256(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()


@cache  # classes do not change in a process that has imported them
def _code() -> str:
    """Digest of ftlab's own files and of the versions beneath them."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(_PACKAGE)}\0".encode() + path.read_bytes() + b"\0")
    others = [*(name for name in PACKAGES if name != "ftlab"), "jsonargparse"]
    versions = [f"{name} {metadata.version(name)}" for name in others]
    digest.update(" ".join([platform.python_version(), *versions]).encode())
    return digest.hexdigest()


def _keep(path: Path, text: str) -> None:
    """Write the file, its sha256 in front; the oldest go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, _sha256(text.encode()) + b"\n" + text.encode())
    kept = sorted((file.stat().st_mtime, file) for file in path.parent.glob("*.json"))
    for _, old in kept[:-MOST]:
        old.unlink(missing_ok=True)
