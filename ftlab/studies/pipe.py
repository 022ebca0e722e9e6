"""JSON lines through a pipe."""

from __future__ import annotations

import json
import os
import select
from typing import Any


class Lines:
    """Reads whole lines as JSON, without waiting for more than is there.

    Attributes:
        ended: whether the other side has closed the pipe.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.rest, self.ended = descriptor, b"", False

    def read(self, patience: float) -> list[dict[str, Any]]:
        """What has come; waits at most `patience` seconds for something."""
        if self.ended or not select.select([self.descriptor], [], [], patience)[0]:
            return []
        data = os.read(self.descriptor, 65536)
        self.ended = not data
        *lines, self.rest = (self.rest + data).split(b"\n")
        return [json.loads(line) for line in lines]
