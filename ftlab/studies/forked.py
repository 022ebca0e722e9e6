"""A forked process: what it prints goes to a file, it dies with its parent and ends on the spot."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ftlab.visible import guard_streams

GRACE = 5.0  # seconds from the first signal to SIGKILL
TO_SAVE = 20.0  # the same for a run that is to write its state before; Slurm kills after 30


def leave(body: Callable[[], int]) -> NoReturn:
    """Run the body of a forked process and end it there, so that it never becomes its parent."""
    code = 1
    try:
        code = body()
    except BaseException:  # noqa: BLE001  # the fork's end: nothing above may see it
        with contextlib.suppress(OSError):
            traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):  # the disk of its output is full
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def redirect(output: Path) -> None:
    """Give this process a file for what it prints, and nothing to read."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    guard_streams()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)


def die_with(parent: int) -> None:
    """Be killed when the parent is (Linux; elsewhere a killed server leaves its runs)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died before
            os._exit(1)
