"""Lightning's hooks that a technique answers by an attribute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ftlab.backbones.task_model import TaskModel
from ftlab.techniques.validation import Validated


class LightningHooks(Validated):
    """A module whose clipping and sharding are attributes."""

    own_clipping: bool = False
    """True where the trainer's `gradient_clip` stands back: what steps follow is clipped already."""
    shard: Callable[[TaskModel, Any], None] | None = None
    """Shares the model out over a mesh of devices, where the run's strategy does."""

    def configure_model(self) -> None:
        """Lightning's hook for sharding, after the ranks have met and before the optimizer."""
        if self.shard is not None:
            self.shard(self.model, self.device_mesh["data_parallel"])  # type: ignore[index]  # is set

    def configure_gradient_clipping(self, *args: Any, **settings: Any) -> None:
        if not self.own_clipping:
            super().configure_gradient_clipping(*args, **settings)
