"""Weights & Biases: sent where a key is known, else kept in a folder for `wandb sync`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftlab.tracking.mirrors.base import Mirror, MirroredRun, Status


class WeightsAndBiases(Mirror):
    """Project = study, group = cell. WANDB_MODE and WANDB_ENTITY hold; without a key it is offline.

    Nothing of the machine goes along: no command line, which may hold a password, no code, no
    console, no statistics of the system. https://github.com/wandb/wandb
    """

    library = "wandb"
    install = 'pip install "ftlab[wandb]"'

    def begin(self, run: MirroredRun) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
        folder = Path(os.environ.get("WANDB_DIR") or self.own_folder())
        for earlier in (folder / "wandb").glob(f"offline-run-*-{run.token}"):
            shutil.rmtree(earlier)
        settings = wandb.Settings(
            silent=True, console="off", disable_code=True, disable_git=True, save_code=False,
            x_disable_meta=True, x_disable_machine_info=True, x_disable_stats=True,
            reinit="create_new")
        # what a server holds of the token already it refuses by its step
        self._run = wandb.init(
            project=run.study, id=run.token, name=run.title, group=f"{run.cell} ({run.config[:8]})",
            config=dict(run.params), dir=folder, mode=mode, settings=settings,
            resume=None if mode == "offline" else "allow")

    def metrics(self, values: Mapping[str, float], step: int, milliseconds: int) -> None:
        self._run.log(dict(values), step=step)

    def end(self, status: Status, final: Mapping[str, float]) -> None:
        self._run.summary.update(dict(final))
        self._run.finish(exit_code=0 if status == "FINISHED" else 1)
