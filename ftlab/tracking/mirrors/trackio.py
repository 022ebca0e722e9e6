"""Trackio: its local store, or the Space or server that TRACKIO_SPACE_ID or TRACKIO_SERVER_URL names."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Mapping
from typing import Any

from ftlab.tracking.mirrors.base import Mirror, MirroredRun, Status

TOKEN, ENDED = "ftlab_token", "ftlab_status"


class Trackio(Mirror):
    """Project = study, group = cell. `trackio show` opens it; the store is where TRACKIO_DIR says.

    https://github.com/gradio-app/trackio
    """

    library = "trackio"
    install = "pip install trackio"

    def begin(self, run: MirroredRun) -> None:
        import trackio

        _silence(trackio, trackio.run, trackio.utils)
        with contextlib.suppress(ValueError):  # there is no such project yet
            for earlier in list(trackio.Api().runs(run.study)):
                if (earlier.config or {}).get(TOKEN) == run.token:
                    earlier.delete()
        # Trackio ends the run before in a context; here several go on at once.
        self._run = contextvars.Context().run(
            trackio.init, run.study, run.title, group=f"{run.cell} ({run.config[:8]})", embed=False,
            config={**run.params, TOKEN: run.token}, auto_log_gpu=False, auto_log_cpu=False)
        self._last = 0

    def metrics(self, values: Mapping[str, float], step: int, milliseconds: int) -> None:
        self._run.log(dict(values), step=step)
        self._last = max(self._last, step)

    def end(self, status: Status, final: Mapping[str, float]) -> None:
        # its tables show a run's last entry
        self._run.log({**final, ENDED: status}, step=self._last)
        self._run.finish()


def _silence(*modules: Any) -> None:
    """Keep a library's own lines from between those of the display."""
    for module in modules:
        module.print = lambda *args, **kwargs: None
