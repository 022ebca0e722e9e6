"""The fingerprint of a data set: one hash over its rows and splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any


def fingerprint(rows: Iterable[tuple[str, str, Any, bytes]]) -> str:
    """sha256 over split, id, label and input digest of every row, in order."""
    whole = hashlib.sha256()
    for split, place, label, digest in rows:
        for part in (split.encode(), place.encode(), str(label).encode(), digest):
            # the length keeps neighbouring fields apart
            whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()


def duplicates(digests: Iterable[tuple[str, Sequence[bytes]]]) -> list[str]:
    """Make the note on inputs that are in train and in another split.

    Args:
        digests: of the inputs of each split by its name, train first.
    """
    (_, first), *others = digests
    train = set(first)
    counts = [(name, sum(digest in train for digest in part), len(part)) for name, part in others]
    return [f"{count} of {total} {name} inputs are also in train (exact duplicates)"
            for name, count, total in counts if count]
