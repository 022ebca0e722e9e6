"""Python's garbage collector kept from walking over what is known to stay.

It looks for garbage whenever enough objects were made, and a large store's are half a million: of
10,000 runs it took two thirds of the time of reading them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def none_is_made() -> Iterator[None]:
    """No collection meanwhile: what is made inside is kept, or freed by its reference count."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def what_is_stays() -> Iterator[None]:
    """Collections meanwhile, also those that a library asks for, leave out what exists already."""
    if gc.get_freeze_count():  # the process has done so for good
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
