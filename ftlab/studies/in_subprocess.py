"""A question answered by a process of its own, which takes what it imported with it when it ends."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from ftlab.errors import FtlabError

HEAVY = "torch"
"""Where it is imported already, nothing is saved."""


def apart(answer: Callable[[], Any]) -> Any:
    """What `answer` gives, as plain data.

    It is asked here where PyTorch is imported already, where other threads might hold locks that a
    fork would keep forever, and where the process failed for another reason than what the user
    gave: the reason then shows here.

    Raises:
        FtlabError: as `answer` raises it.
    """
    forks = "fork" in multiprocessing.get_all_start_methods()
    if HEAVY in sys.modules or not forks or threading.active_count() > 1:
        return answer()
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(theirs, answer), daemon=True)
    process.start()
    theirs.close()
    try:
        said, found = ours.recv()
    except EOFError:  # it was killed, or failed for a reason that is not the user's
        said, found = "nothing", None
    process.join()
    if said == "refused":
        raise found
    return found if said == "answer" else answer()


def _tell(pipe: Connection, answer: Callable[[], Any]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # who asked says what there is to say
        signal.signal(number, signal.SIG_DFL)
    try:
        pipe.send(("answer", answer()))
    except FtlabError as error:
        pipe.send(("refused", error))
