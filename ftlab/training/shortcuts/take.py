"""The shortcuts that a run takes, and why it does not take the others."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from ftlab.training.shortcuts.base import (
    STEPS,
    Fitting,
    NotApplicable,
    Shortcut,
    ShortcutPlan,
    Step,
)

ROOM = __name__.rpartition(".")[0]


@dataclass
class Plans:
    """The shortcuts of one run.

    Attributes:
        taken: in the order of their steps.
        seconds: that preparing inputs took, also in vain.
    """

    taken: list[ShortcutPlan] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def bytes(self) -> int:
        """Set aside on the device."""
        return sum(plan.bytes for plan in self.taken)

    @property
    def train(self) -> Callable[[float], dict[str, float]] | None:
        """The shortcut that trains in the Trainer's stead, if there is one."""
        return next((plan.train for plan in self.taken if plan.train is not None), None)

    @contextmanager
    def training(self) -> Iterator[None]:
        """The context in which the Trainer trains."""
        with ExitStack() as stack:
            for plan in self.taken:
                stack.enter_context(plan.training())
            yield


def take(fitting: Fitting, steps: Sequence[Step] = STEPS) -> Plans:
    """Prepare every shortcut that applies to a run, and report each decision.

    Args:
        fitting: the run.
        steps: shortcuts of other steps are left out; all are, once one replaces the Trainer.
    """
    plans = Plans()
    for shortcut in members():
        if shortcut.step not in steps or plans.train is not None:
            continue
        begin = time.perf_counter()
        plan = decide(shortcut, fitting)
        if shortcut.step == "inputs":
            plans.seconds += time.perf_counter() - begin
        if plan is not None:
            plans.taken.append(plan)
    return plans


def decide(shortcut: Shortcut, fitting: Fitting) -> ShortcutPlan | None:
    """A shortcut's plan, None where it does not apply; either is reported with its reason."""
    plan = None
    try:
        plan = shortcut.applies(fitting)
        text = plan.text
    except NotApplicable as error:
        text = f"{shortcut.refusal}{error}" if str(error) else ""
    if text:
        fitting.report({"event": shortcut.event, "text": text})
    return plan


def members() -> list[Shortcut]:
    """One of each shortcut of the room, in the order of their steps."""
    room = importlib.import_module(ROOM)
    modules = [importlib.import_module(info.name)
               for info in pkgutil.walk_packages(room.__path__, f"{ROOM}.")]
    shortcuts = [cls() for module in modules for cls in vars(module).values()
                 if isinstance(cls, type) and issubclass(cls, Shortcut)
                 and cls.__module__ == module.__name__ and not inspect.isabstract(cls)]
    return sorted(shortcuts, key=lambda shortcut: STEPS.index(shortcut.step))
