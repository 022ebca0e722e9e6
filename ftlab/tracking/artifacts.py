"""The sha256 of a run's files, in the run's record, and what is read back held to it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ftlab.errors import InputError
from ftlab.tracking.mlflow_values import name_of
from ftlab.tracking.records import RunRecord
from ftlab.tracking.store_reader import StoreReader

_MEND = "put its artifacts back from a copy, or run its cell again in another store"


class DamagedArtifact(InputError):
    """A file of a run is not what the run wrote.

    Args:
        run: whose.
        name: of the file among the run's artifacts.
        why: what is wrong with it.
    """

    def __init__(self, run: RunRecord, name: str, why: str) -> None:
        super().__init__(f"run {run.run_id}: {name} is damaged: {why}", _MEND)
        self.run, self.name, self.why = run, name, why

    def __reduce__(self) -> tuple[type[DamagedArtifact], tuple[RunRecord, str, str]]:  # type: ignore[override]  # its own arguments
        return type(self), (self.run, self.name, self.why)


def sha256_tags(directory: Path) -> dict[str, str]:
    """A tag per file below a folder whose files become a run's artifacts."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    tags = {}
    for path in files:
        with path.open("rb") as stream:
            tags[_tag(path.relative_to(directory).as_posix())] = hashlib.file_digest(
                stream, "sha256").hexdigest()
    return tags


def whole(reader: StoreReader, run: RunRecord, name: str) -> bytes | None:
    """One of a run's files; None where it has none of that name, and never had.

    A run of a store from before its files were recorded is read as it is.

    Raises:
        DamagedArtifact: it is not what the run wrote, or gone.
    """
    content = reader.file(run, name)
    if (recorded := run.tags.get(_tag(name))) is not None:
        _hold(run, name, None if content is None else hashlib.sha256(content).hexdigest(), recorded)
    return content


def check(run: RunRecord, folder: Path, below: str) -> None:
    """Hold copies of a run's files to its record.

    Args:
        run: with its tags.
        folder: where its artifacts were copied to.
        below: a file, or a folder of which all files are held to it.

    Raises:
        DamagedArtifact: one is not what the run wrote, or gone.
    """
    copies = sha256_tags(folder)
    for tag, recorded in sorted(run.tags.items()):
        if f"{tag}/".startswith(f"{_tag(below)}/"):
            _hold(run, tag.removeprefix(_tag("")), copies.get(tag), recorded)


def _tag(name: str) -> str:
    return name_of(f"ftlab.sha256.{name}")


def _hold(run: RunRecord, name: str, digest: str | None, recorded: str) -> None:
    if digest is None:
        raise DamagedArtifact(run, name, "it is gone")
    if digest != recorded:
        raise DamagedArtifact(run, name, "its sha256 is not the one that the run recorded")
