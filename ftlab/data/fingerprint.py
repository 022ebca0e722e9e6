"""The fingerprint of a data set: one hash over its rows and splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def fingerprint(rows: Iterable[tuple[str, str, Any, bytes]]) -> str:
    """sha256 over split, id, label and input digest of every row, in order."""
    whole = hashlib.sha256()
    for split, place, label, digest in rows:
        for part in (split.encode(), place.encode(), str(label).encode(), digest):
            # the length keeps neighbouring fields apart
            whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()


def duplicates(learned: Mapping[str, Sequence[bytes]],
               measured: Mapping[str, Sequence[bytes]]) -> list[str]:
    """Make the notes on inputs that are learned from and measured.

    Args:
        learned: digests of the inputs of train and of each stream, by its name.
        measured: likewise of every other split.
    """
    known = {name: set(part) for name, part in learned.items()}
    counts = [(name, sum(digest in inputs for digest in part), len(part), source)
              for source, inputs in known.items() for name, part in measured.items()]
    return [f"{count} of {total} {name} inputs are also in {source} (exact duplicates)"
            for name, count, total, source in counts if count]
