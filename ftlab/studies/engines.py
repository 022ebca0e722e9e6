"""The engines by name."""

from __future__ import annotations

import os
import threading

from ftlab.addresses import shown
from ftlab.errors import InputError
from ftlab.studies.engine import Engine
from ftlab.studies.nodes import Node


def _alone() -> bool:
    return hasattr(os, "fork") and threading.active_count() == 1


def make_engine(name: str, address: str | None = None, fresh: bool = False,
                node: Node | None = None) -> Engine:
    """The engine of a name.

    Args:
        name: `local` or `ray`.
        address: of the Ray cluster; None for the one that this machine belongs to.
        fresh: promises that this process has imported and checked, computed and connected nothing,
            and none of a user's modules, so that the server can be a copy of it.
        node: this one, where runs are of several; None where there is one alone.

    Raises:
        InputError: there is no such cluster, or Ray is not installed.
    """
    if name == "ray":
        try:
            from ftlab.studies.ray_engine import RayEngine
        except ModuleNotFoundError as error:
            if error.name != "ray":
                raise
            raise InputError("--engine ray: Ray is not installed",
                             'pip install "ftlab[ray]"') from error
        return RayEngine(address or "auto")
    if address is not None:
        raise InputError(f"--address {shown(address)}: only a Ray cluster has one", "--engine ray")
    from ftlab.studies.local_engine import LocalEngine
    from ftlab.studies.server_process import forked, spawned

    return LocalEngine(start_server=forked if fresh and _alone() else spawned, node=node)
