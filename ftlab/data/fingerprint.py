"""What a data set is, in one number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any


def fingerprint(rows: Iterable[tuple[str, str, Any, bytes]]) -> str:
    """sha256 over split, id, label and input digest of every row, in order."""
    whole = hashlib.sha256()
    for split, place, label, digest in rows:
        for part in (split.encode(), place.encode(), str(label).encode(), digest):
            # the length keeps neighbouring fields apart
            whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()
