"""A technique that does what it should not, on one rank of a run; the runs' processes import it."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ftlab.backbones.task_model import TaskModel
from ftlab.techniques.base import Technique, freeze_all_but_head


class Misbehaving(Technique):
    """Train the head, and misbehave once.

    Args:
        how: `raise`, `exit`, `leave` (with code 0), `kill`, `stop`, `hang`, `sys-exit`; `other-rate`
            and `other-head` make this rank's training another one; `never`.
        rank: that misbehaves.
        when: `adapt`, `validation`, or the number of a step.
        lr: peak learning rate.
    """

    def __init__(self, how: str = "never", rank: int = 0, when: str = "0", lr: float = 1e-2) -> None:
        self.mine = int(os.environ.get("RANK", "0")) == rank
        super().__init__(lr * 2 if how == "other-rate" and self.mine else lr)
        self.how, self.when = how, when

    def _now(self, moment: str) -> None:
        if not self.mine or moment != self.when:
            return
        match self.how:
            case "raise":
                raise RuntimeError("on purpose")
            case "sys-exit":
                sys.exit(3)
            case "exit":
                os._exit(7)
            case "leave":
                os._exit(0)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "hang":
                time.sleep(3600)

    def adapt(self, model: TaskModel) -> None:
        self._now("adapt")
        freeze_all_but_head(model)
        if self.how == "other-head" and self.mine:
            with torch.no_grad():
                next(model.head.parameters()).add_(1)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        self._now(str(self.global_step))
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._now("validation")
        super().validation_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        with (Path(self.trainer.default_root_dir) / f"epochs.{self.global_rank}").open("a") as file:
            file.write("1")
