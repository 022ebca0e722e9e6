"""The backbones and data sets of a sweep's trials that the server has read, so that no trial has to.

It reads what a trial has read before it that ended well and soon: a long trial would gain nothing,
and what is read quickly keeps the server from its runs for a moment only.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlab.studies.engine import SPECIFICATION
from ftlab.training.trainer_settings import processes_of

if TYPE_CHECKING:
    from ftlab.training.run import Run

MOST = 4  # pairs of backbone and data set that a server holds
SOON = 10.0  # seconds of a trial after which its pair is held
MAPPED = 2**24  # bytes that a network takes at most beside its file, where that is mapped
SHARE = 10  # a pair takes at most this part of the memory that is free
ALONE = {"TOKENIZERS_PARALLELISM": "false", "HF_DEACTIVATE_ASYNC_LOAD": "1"}
"""The environment in which tokenizers and transformers start no threads."""


class HeldTrials:
    """What the server holds, by what trials say of their backbone and data."""

    def __init__(self) -> None:
        self._pairs: dict[str, Run | None] = {}  # None where holding it would change or cost too much
        self._began: dict[str, tuple[str, float]] = {}
        self._soon: set[str] = set()

    def started(self, directory: str, threads: int | None) -> Run | None:
        """A run that holds what the one in this folder needs; None where it reads for itself."""
        key = _key(Path(directory), threads)
        if key is None:
            return None
        self._began[directory] = key, time.monotonic()
        if key in self._soon and key not in self._pairs and len(self._pairs) < MOST:
            self._pairs[key] = None
            with _silent(), contextlib.suppress(Exception):  # the run itself says what is wrong
                self._pairs[key] = _read(Path(directory))
            gc.collect()
            gc.freeze()  # as in `preload.settle`
        return self._pairs.get(key)

    def ended(self, directory: str, code: int) -> None:
        """Remember whose pair can be held."""
        key, began = self._began.pop(directory, ("", 0.0))
        if key and code == 0 and time.monotonic() - began < SOON:
            self._soon.add(key)


def _key(directory: Path, threads: int | None) -> str | None:
    """The key of what a trial's server may hold; None for a run that reads for itself.

    Whole runs measure what reading takes, as do trials that search for little memory; users' own
    modules may hold what no fork survives. A library's own choice of threads cannot be restored
    once it was changed.
    """
    import torch

    try:
        run = json.loads((directory / SPECIFICATION).read_text(encoding="utf-8"))
        if processes_of(run["trainer"]) > 1 or any(map(run.get, ("apart", "plain", "allow"))):
            return None
        if not run["search"] or (threads is None and torch.get_num_threads() > 1):
            return None
        return json.dumps([run["backbone"], run["data"]])
    except (OSError, ValueError, KeyError):  # a pack; or the run says what is wrong
        return None


def _read(directory: Path) -> Run | None:
    """A run with its data and its network read; None where others could not be forked from it."""
    from ftlab.backbones.held_network import forget, holding
    from ftlab.studies.run_process import built

    run = built(directory, json.loads((directory / SPECIFICATION).read_text(encoding="utf-8")))
    with _single_threaded():
        generators, threads, before = _generators(), _threads(), _memory("self/status", "RssAnon")
        run.data.load()
        run.data.connect(run.backbone, run.seed)
        if generators != _generators():  # it differs from seed to seed
            return None
        after = _memory("self/status", "RssAnon")
        with holding() as networks:
            run.backbone.build(run.data.task, run.technique.output_type)
        gc.collect()
    if _memory("self/status", "RssAnon") - after > MAPPED:
        forget(networks)  # it would count as memory that a trial has found there
    if _threads() == threads and (after - before) * SHARE < _memory("meminfo", "MemAvailable"):
        return run
    forget(networks)
    return None


@contextmanager
def _silent() -> Iterator[None]:
    """Within it nothing is printed: the server's output is its answers, and its errors the user's."""
    _flush()
    kept = {stream: os.dup(stream) for stream in (1, 2)}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in kept:
        os.dup2(nowhere, stream)
    try:
        yield
    finally:
        _flush()
        for stream, before in kept.items():
            os.dup2(before, stream)
            os.close(before)
        os.close(nowhere)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Within it libraries start no threads, which would not survive a fork."""
    import torch

    threads = torch.get_num_threads()
    before = {name: os.environ.get(name) for name in ALONE}
    torch.set_num_threads(1)
    os.environ |= ALONE
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _threads() -> int:
    """This process's threads, those of libraries too."""
    return len(os.listdir("/proc/self/task"))


def _generators() -> list[Any]:
    """The states of all generators that a run seeds."""
    import numpy as np
    import torch

    return [random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()]


def _memory(file: str, field: str) -> int:
    """A line of kilobytes in a file of Linux."""
    for line in Path("/proc", file).read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return 0
