"""The files that a computation reads, so that its answer can be asked again when they change."""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftlab.backbones.cache_folder import folder
from ftlab.backbones.source import READ

MOST = 20_000  # files and folders that are watched for changes

State = tuple[int, int] | None
"""Bytes and time of change in ns; None where there is nothing."""

_NETWORK = ("socket.connect", "socket.getaddrinfo", "urllib.Request")
_CODE = (".py", ".pyc", ".so")
_SYSTEM = ("/proc/", "/sys/", "/dev/")


class FilesRead:
    """What was opened, listed or looked for.

    Attributes:
        paths: absolute.
        sources: files and folders that count with all that is within.
        network: whether anything was asked of the network.
    """

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.sources: set[str] = set()
        self.network = False
        self._begin = time.time_ns()

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take one of Python's audit events."""
        if event in _NETWORK:
            self.network = True
        elif event == READ:
            self.sources.add(os.path.abspath(arguments[0]))
        elif event == "open" or event in ("os.listdir", "os.scandir"):
            path = "." if arguments[0] is None else arguments[0]
            writes = event == "open" and (arguments[2] or 0) & os.O_ACCMODE
            if isinstance(path, str | bytes | os.PathLike) and not writes:
                self.paths.add(os.path.abspath(os.fsdecode(path)))

    def states(self) -> dict[str, State] | None:
        """The state of each file and folder; None where it cannot vouch for the answer."""
        if self.network:
            return None
        ours = f"{folder('').absolute()}{os.sep}"  # its files are named by what they depend on
        states = {path: state_of(path) for path in self.paths
                  if not path.startswith((ours, *_SYSTEM, *_libraries()))
                  and not path.endswith(_CODE) and path not in sys.path}
        for source in self.sources:
            states |= {path: state_of(path) for path in _within(source)}
            if len(states) > MOST:
                return None
        # what changed meanwhile may have been read before
        late = any(state is not None and state[1] >= self._begin for state in states.values())
        return None if late or len(states) > MOST else states


_watches: list[FilesRead] = []
_installed: list[bool] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    for watch in _watches:
        watch.note(event, arguments)


@contextmanager
def files_read() -> Iterator[FilesRead]:
    """Collect what is read within, by any thread of this process."""
    if not _installed:
        sys.addaudithook(_hear)  # for the process's life: there is no way to remove one
        _installed.append(True)
    watch = FilesRead()
    _watches.append(watch)
    try:
        yield watch
    finally:
        _watches.remove(watch)


def state_of(path: str) -> State:
    """The state of a file or folder; a folder changes when a name in it comes or goes."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return 0 if stat.S_ISDIR(status.st_mode) else status.st_size, status.st_mtime_ns


def _libraries() -> set[str]:
    """Folders of packages, whose versions are known: what is read there beside sources is code."""
    folders = {path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")}
    folders |= {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return {f"{path}{os.sep}" for path in (*folders, Path(__file__).resolve().parents[1])}


def _within(source: str) -> Iterator[str]:
    yield source
    for place, folders, files in os.walk(source):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (str(Path(place, name)) for name in (*folders, *files))
