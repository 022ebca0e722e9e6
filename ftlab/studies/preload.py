"""Done once in the server so that no run has to: imports, tables, and a heap that stays shared.

No tensor is computed before the fork, which OpenMP's threads would not survive.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import sys
from collections.abc import Iterator

from ftlab.studies.json_lines import LineReader

ROOMS = ("backbones", "tasks", "data", "techniques", "training")
"""Of ftlab, whose modules a run may need."""
LONGEST = 4000  # bytes of a message: below PIPE_BUF, so that those of two runs do not mix


def preload() -> None:
    """Import what runs need, and what their first use would make."""
    import lightning  # noqa: F401
    import peft  # noqa: F401
    import torchvision  # noqa: F401
    import transformers  # noqa: F401

    import ftlab.studies.run_process  # noqa: F401

    for room in ROOMS:
        package = importlib.import_module(f"ftlab.{room}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            with contextlib.suppress(ModuleNotFoundError):  # of an extra that is not installed
                importlib.import_module(module.name)
    _use_once()
    settle()


def _use_once() -> None:
    """Have jsonargparse and transformers make what they keep for a process's life."""
    from ftlab.studies import components
    from ftlab.studies.discover import FAMILIES, family, members

    for name in FAMILIES:
        for member in members(family(name)).values():
            components.prepare(member)
    with contextlib.suppress(ImportError):  # its own affair: without it each run makes the table
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        get_checkpoint_conversion_mapping("bert")


def settle() -> None:
    """Hide all objects from the garbage collector.

    A full collection would visit those of the imports in each run, for half a second, and by
    writing into them copy the pages that the run shares with the server.
    """
    gc.collect()
    gc.freeze()


class ImportsSeen:
    """Modules that runs had to import beyond the preloaded: sent through a pipe, imported once.

    Which network a run has, say, is known from its files alone. Only submodules of packages that
    are here already are taken, from runs that ended well.
    """

    def __init__(self) -> None:
        descriptor, self._write = os.pipe()
        self._lines = LineReader(descriptor)
        self._before = set(sys.modules)

    def send(self) -> None:
        """In a run's process, at its end: send the names of what it has imported."""
        packages = {name.partition(".")[0] for name in self._before}
        new = [name for name in sys.modules
               if name not in self._before and name.partition(".")[0] in packages]
        os.set_blocking(self._write, False)
        with contextlib.suppress(BlockingIOError):  # the server is far behind: another run sends it
            for part in _parts(new):
                os.write(self._write, f"{json.dumps({'modules': part})}\n".encode())

    def take(self) -> None:
        """In the server: import it too."""
        names = {name for message in self._lines.read(0.0) for name in message["modules"]}
        for name in sorted(names - self._before):
            with contextlib.suppress(Exception):  # whoever needs it will say what is wrong
                importlib.import_module(name)
        if not names <= self._before:
            self._before |= names | set(sys.modules)
            settle()


def _parts(names: list[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for name in names:
        if part and sum(len(module) + 4 for module in (*part, name)) > LONGEST:
            yield part
            part = []
        part.append(name)
    if part:
        yield part
