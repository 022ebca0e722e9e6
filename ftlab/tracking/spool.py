"""A file of writes that wait for the store, so that neither a kill nor a long outage loses them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from ftlab.tracking.writes import Write

FOLDER = ".unsent"
"""In `results/<study>/`."""

REFUSED = ".refused"
"""Ends the name of a file of which the store refused something; it is not sent again."""


class Spool:
    """Writes in order, a JSON line each, and a line for each that has been stored.

    The process that has it open holds a lock on it, so that nobody else sends its writes. Lines
    carry a digest: a damaged one is refused, not sent.

    Args:
        path: of the file.
        store: the address of the store that the writes are for, without secrets.
        new: make the file.

    Raises:
        BlockingIOError: another process has it open.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, store: str = "", new: bool = False) -> None:
        self.path, self.store = path, store
        self.ids: dict[str, str] = {}  # ours -> MLflow's, of runs that it made
        self.refused: list[str] = []
        self._places: deque[tuple[int, int, int]] = deque()  # number, offset, length of a write
        self._count = 0
        if new:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT * new | os.O_APPEND, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists():  # its owner emptied and removed it between the two
                raise BlockingIOError(f"{path} is gone")
            self._read()
            if not self.size:
                self._append({"store": store, "process": os.getpid()})
        except BaseException:
            os.close(self._file)
            raise

    @classmethod
    def new(cls, folder: Path, store: str) -> Spool:
        """An empty one of this process."""
        return cls(folder / f"{uuid4().hex[:12]}.jsonl", store, new=True)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self._file).st_size

    def append(self, write: Write) -> None:
        """Put a write behind those that wait; it is on the disk when this returns.

        Raises:
            OSError: it is not; the file is as before.
        """
        if write.path:  # so that the results' folder may be moved before they are sent
            write = replace(write, path=os.path.relpath(write.path, self.path.parent))
        self._count += 1
        offset = self.size
        self._append({"number": self._count, **asdict(write)})
        self._places.append((self._count, offset, self.size - offset))

    def first(self) -> Write:
        """The write that has waited longest."""
        _, offset, length = self._places[0]
        record = _record(os.pread(self._file, length, offset))
        del record["number"]
        write = Write(**record)
        path = os.path.normpath(self.path.parent / write.path) if write.path else ""
        return replace(write, values=tuple(write.values), path=path)

    def drop(self, made: str = "", refused: str = "") -> None:
        """The first write is stored, or refused for good.

        Args:
            made: MLflow's id of the run that it made.
            refused: why the store did not take it.
        """
        write, number = self.first(), self._places[0][0]
        self._append({"done": number, "id": made, "makes": write.makes, "refused": refused})
        self._places.popleft()
        if write.makes and made:
            self.ids[write.makes] = made
        if refused:
            self.refused.append(refused)

    def close(self) -> None:
        """Let go of the file; it is removed where all was stored, and set aside where not all."""
        if not self._places:
            if self.refused:
                self.path.rename(self.path.with_name(self.path.name + REFUSED))
            else:
                self.path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # it holds others' files, or is gone already
                    self.path.parent.rmdir()
        os.close(self._file)

    def _append(self, record: dict[str, Any]) -> None:
        before = self.size
        text = json.dumps(record, default=str)
        line = json.dumps({"sha256": _digest(text)})[:-1] + ", " + text[1:] + "\n"
        try:
            if os.write(self._file, line.encode()) != len(line.encode()):
                raise OSError(f"{self.path}: not written whole")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, before)
            raise

    def _read(self) -> None:
        places: dict[int, tuple[int, int]] = {}
        for line_number, (offset, line) in enumerate(self._lines(), 1):
            try:
                record = _record(line)
            except ValueError:
                self.refused.append(f"line {line_number} of {self.path.name} is damaged")
                continue
            if "number" in record:
                self._count = record["number"]
                places[self._count] = (offset, len(line))
            elif "done" in record:
                places.pop(record["done"], None)
                if record["id"] and record["makes"]:
                    self.ids[record["makes"]] = record["id"]
                self.refused += [record["refused"]] if record["refused"] else []
            else:
                self.store = record["store"]
        self._places.extend((number, *place) for number, place in places.items())

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines; the last one, where a kill has cut it, is taken off the file."""
        offset = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    os.ftruncate(self._file, offset)
                    return
                yield offset, line
                offset += len(line)


def _record(line: bytes) -> dict[str, Any]:
    """A line's content.

    Raises:
        ValueError: it is not as it was written.
    """
    record = json.loads(line)
    if not isinstance(record, dict) or record.pop("sha256", "") != _digest(json.dumps(record)):
        raise ValueError("damaged")
    return record


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
