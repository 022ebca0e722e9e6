"""Linear heads on cached features, trained without inputs and without the Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ftlab.training.event_log import Report
from ftlab.training.run import Run
from ftlab.training.shortcuts.base import (
    Fitting,
    NotApplicable,
    Result,
    Shortcut,
    ShortcutPlan,
    Stops,
)
from ftlab.training.shortcuts.linear_heads.cached_head import find_head
from ftlab.training.shortcuts.linear_heads.fit_stack import fit_heads, train_alone


class LinearHeads(Shortcut):
    """Train the heads of one or several runs as matrix products, gradients in closed form."""

    step = "loop"
    refusal = "the head is trained by the Trainer: "
    together = "heads"

    def applies(self, fitting: Fitting) -> ShortcutPlan:
        run = fitting.run
        if run.technique.together != self.together or not run.data.cached:
            raise NotApplicable  # without a cache that has been said already
        head = find_head(run, fitting.trainer)
        return ShortcutPlan("the head is trained on cached features alone",
                    train=partial(train_alone, fitting, head))

    def fit_together(self, runs: Sequence[Run], reports: Sequence[Report],
                     stops: Stops) -> list[Result]:
        return fit_heads(runs, reports, stops)
