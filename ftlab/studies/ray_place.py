"""Where a run goes on in a Ray cluster: an actor on a node, or one on each of several nodes.

Of several the first leads and the others follow, as where the command was started on each
(`nodes.py`). A placement group keeps their share of so many different nodes.
"""

from __future__ import annotations

import os
from typing import Any

import ray
from ray.util import get_node_ip_address, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ftlab.studies.forked import GRACE, TO_SAVE
from ftlab.studies.ray_runner import Runner

TO_CLOSE = TO_SAVE + 2 * GRACE
"""Seconds that actors have to end their runs and remove what these wrote; a run takes `TO_SAVE`."""


class Place:
    """Actors that execute run after run.

    Args:
        cpus, gpus: on each node.
        nodes: how many.
        timeout: seconds without a sign of life after which a run is ended; None waits for ever.

    Attributes:
        runner: the actor, of several nodes the first one's, that is spoken to.
    """

    def __init__(self, cpus: int, gpus: int, nodes: int, timeout: float | None) -> None:
        self._group: Any = None
        self._first: Any = ""
        self._others: list[Any] = []
        self._following: list[Any] = []
        self._options = {"num_cpus": cpus, "num_gpus": gpus,
                         "max_restarts": 0,  # whether to try again is the coordinator's to decide
                         "max_concurrency": 2}  # `prune`, or `close`, while another call waits
        arguments = os.getcwd(), cpus, timeout
        if nodes == 1:
            # runs on one node disturb each other's measured times
            self.runner = self._actor("SPREAD", *arguments)
            return
        self._group = placement_group([{"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}] * nodes,
                                      strategy="STRICT_SPREAD")
        on = [PlacementGroupSchedulingStrategy(self._group, number) for number in range(nodes)]
        self.runner, *self._others = [self._actor(there, *arguments) for there in on]
        host = ray.remote(get_node_ip_address).options(num_cpus=0, scheduling_strategy=on[0]).remote()
        self._first = self.runner.lead.remote(host, nodes)
        self._following = [other.follow.remote(self._first, number)
                           for number, other in enumerate(self._others, 1)]

    def _actor(self, where: Any, *arguments: Any) -> Any:
        return ray.remote(Runner).options(**self._options, scheduling_strategy=where).remote(*arguments)

    def begin(self, name: str, specification: str) -> Any:
        """Start a run, once there is room; what the answer will be."""
        return self.runner.begin.remote(name, specification, self._first)

    @property
    def whole(self) -> bool:
        """Return whether all nodes but the first are there, as far as Ray knows."""
        return not self._following or not ray.wait(self._following, timeout=0)[0]

    def close(self) -> list[Any]:
        """Let it end; what can be waited for."""
        return [actor.close.remote() for actor in (self.runner, *self._others)]

    def leave(self) -> None:
        """Give it back to the cluster."""
        ends = self.close()  # an actor ends once nothing refers to it and this is done
        if self._group is not None:
            ray.wait(ends, num_returns=len(ends), timeout=TO_CLOSE)
            self.kill()

    def kill(self) -> None:
        """End it at once; it may not be dead but cut off."""
        for actor in (self.runner, *self._others):
            ray.kill(actor)
        if self._group is not None:
            remove_placement_group(self._group)
