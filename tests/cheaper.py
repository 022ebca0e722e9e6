"""What tests need not pay for: pixels that none looks at, and the making of MLflow's tables.

It holds in the commands and runs that `warm_processes` starts too, which read it of their
environment.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

UNRENDERED = "FTLAB_TESTS_UNRENDERED"  # in the environment of what shall render no figure
BARE_STORE = "FTLAB_TESTS_BARE_STORE"  # in the environment: the store that new ones are copies of
Replace = Callable[[Any, str, Any], None]


def by_environment() -> None:
    """Replace in this process what its environment says."""
    if UNRENDERED in os.environ:
        unrender(setattr)
    if BARE_STORE in os.environ:
        copy_stores(Path(os.environ[BARE_STORE]), setattr)


def unrender(replace: Replace) -> None:
    """Have figures drawn but not rendered: the pixels take most of the seconds of a small study.

    Args:
        replace: `setattr`, or a test's.
    """
    from matplotlib.figure import Figure

    from ftlab.reports.figures import all_figures

    def save(figure: Figure, file: str | Path | IO[bytes], **options: object) -> None:
        if isinstance(file, str | Path):
            Path(file).write_bytes(b"")

    replace(Figure, "savefig", save)
    replace(all_figures, "files", lambda figure: {"png": b"", "pdf": b""})
    replace(all_figures, "svg", lambda figure, name: "<svg></svg>")


def copy_stores(bare: Path, replace: Replace) -> None:
    """Have new stores copied from one without any study, in whose tables MLflow takes seconds.

    Args:
        bare: the one, which is made where it is not there yet.
        replace: `setattr`, or a test's.
    """
    from ftlab.tracking import store

    make = store._make

    def copy(path: Path) -> None:
        if not bare.exists():
            make(bare)
        with store._alone_in(path.parent):
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            shutil.copy(bare, temporary)
            with contextlib.suppress(FileExistsError):  # another process was first
                os.link(temporary, path)
            temporary.unlink()

    replace(store, "_make", copy)
