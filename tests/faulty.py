"""A technique of a user's that goes wrong as it is told; named with `--allow faulty`."""

import os
import signal
import sys
import time

import torch
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.techniques.base import Optimization
from ftlab.techniques.linear_probe import LinearProbe

FAULTS = ("none", "killed", "memory", "nan", "hangs", "raises", "exits")


class Faulty(LinearProbe):
    """A linear probe that fails in its second epoch, and sleeps NAP seconds in each.

    Args:
        x: which of `FAULTS`; a larger number is none.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {}

    @classmethod
    def space(cls, arguments: object) -> dict:
        return {}

    def __init__(self, x: int = 0, lr: float = 0.01, optim: Optimization = Optimization()) -> None:
        super().__init__(lr, optim, solver=None)
        self.fault = FAULTS[x] if x < len(FAULTS) else "none"

    def begin_epoch(self, model: TaskModel, epoch: int, epochs: int) -> None:
        super().begin_epoch(model, epoch, epochs)
        time.sleep(float(os.environ.get("NAP", "0")))
        self.wrong = epoch >= 1
        if not self.wrong:
            return
        match self.fault:
            case "killed":  # as by the kernel, which is short of memory
                os.kill(os.getpid(), signal.SIGKILL)
            case "memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            case "hangs":
                time.sleep(3600)
            case "raises":
                raise RuntimeError("no luck")
            case "exits":
                sys.exit(3)

    def penalty(self, model: TaskModel) -> Tensor | float:
        return float("nan") if self.fault == "nan" and self.wrong else 0.0
