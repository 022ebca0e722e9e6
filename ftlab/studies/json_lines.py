"""JSON lines through a pipe."""

from __future__ import annotations

import json
import os
import select
from typing import Any


class LineReader:
    """Reads whole lines as JSON, without waiting for more than is there.

    Attributes:
        ended: whether the other side has closed the pipe.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.rest, self.ended = descriptor, b"", False

    def read(self, patience: float | None, other: int | None = None) -> list[dict[str, Any]]:
        """The messages that have come; waits at most `patience` seconds for one, None for ever.

        Args:
            patience: in seconds.
            other: a non-blocking descriptor that ends the wait too; it is emptied.
        """
        if self.ended:
            return []
        waiting = [self.descriptor] if other is None else [self.descriptor, other]
        ready = select.select(waiting, [], [], patience)[0]
        if other in ready:
            os.read(other, 65536)
        if self.descriptor not in ready:
            return []
        data = os.read(self.descriptor, 65536)
        self.ended = not data
        *lines, self.rest = (self.rest + data).split(b"\n")
        return [json.loads(line) for line in lines]
