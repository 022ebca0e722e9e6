"""Files that are written whole or not at all, and that others may read as the umask says."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
# what libraries in Rust, C and C++ raise is no OSError, and says it in these words; of what may not
# be written, others use the same words for other things
_WORDS = re.compile("|".join([*map(os.strerror, _FULL), "database or disk is full"]))


def is_full(error: BaseException) -> bool:
    """Return whether an error, or one that caused it, says that a disk or a quota is full."""
    if (isinstance(error, OSError) and error.errno in _FULL) or _WORDS.search(str(error)):
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and is_full(cause)


def is_of_disk(error: BaseException) -> bool:
    """Return whether an error says that something cannot be written where it belongs."""
    return (isinstance(error, OSError) and error.errno in _CLOSED) or is_full(error)


@contextmanager
def replacing(path: Path, locked: bool = False) -> Iterator[Path]:
    """A temporary name beside `path`, to be written inside; at the end it takes the place of `path`.

    A reader sees the earlier file or the whole new one, after a power failure too. An error leaves
    the earlier file as it was, and nothing beside it. The mode is the one that `open` gives, also
    where a library writes for its owner alone, as safetensors does.

    Args:
        path: in a folder that exists.
        locked: a lock keeps other writers away, so the temporary name can be the same each time,
            and replaces what a killed process left; else each writer has a name of its own.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    writer = "" if locked else f".{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}{writer}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:  # asking for the umask itself would change it
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        yield temporary
        with temporary.open("rb") as file:
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # no rest where the folder itself was the trouble
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and not error.filename:  # of a write, which does not say whose
            error.filename = os.fspath(path)
        elif is_full(error) and not isinstance(error, OSError):  # safetensors has its own
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path)) from error
        raise


def write(path: Path, content: str | bytes) -> None:
    """Write a file as `replacing` does; a text as UTF-8.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
