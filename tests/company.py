"""A technique whose runs share a process, and may end it; the runs' processes import it."""

import faulthandler
import os
import time

from ftlab.backbones.task_model import TaskModel
from ftlab.techniques.base import Technique, freeze_all_but_head


class Company(Technique):
    """Train the head.

    Args:
        how: what happens in adapting: `segfault`, `raise`, `exit`, or nothing for another word. NAP is
            how many seconds each takes.
        lr: peak learning rate.
    """

    search_space = {}
    together = "heads"

    def __init__(self, how: str = "well", lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.how = how

    def adapt(self, model: TaskModel) -> None:
        freeze_all_but_head(model)
        time.sleep(float(os.environ.get("NAP", "0")))
        match self.how:
            case "segfault":
                faulthandler._sigsegv()  # type: ignore[attr-defined]  # for tests of crashes
            case "exit":
                os._exit(3)
            case "raise":
                raise RuntimeError("no luck")
