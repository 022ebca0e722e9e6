"""A Ray cluster: how to join it, its nodes, and how they are shared out."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence

import ray
import ray._private.worker as driver
from ray.exceptions import AuthenticationError

from ftlab.addresses import shown
from ftlab.errors import InputError
from ftlab.redaction import redact
from ftlab.studies.engine import Machine, Requirements


def portion(machines: Sequence[Machine], need: Requirements, workers: int | None) -> tuple[int, int]:
    """CPUs and GPUs of each run, on each of its nodes.

    GPUs: one a device. CPUs: as many as leave room for `workers` runs at a time, or for as many
    runs as possible.

    Args:
        machines: the nodes.
        need: of the largest run.
        workers: runs at a time; None for as many as there is room for.

    Raises:
        InputError: there is no room for one run.
    """
    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: at least one is needed", "--workers 1")
    wanted = need.accelerator == "gpu" or (
        need.accelerator == "auto" and any(node.gpus for node in machines))
    gpus = need.devices if wanted else 0
    least = 1 if gpus else need.devices
    most = room(machines, least, gpus, need.nodes)
    if not most:
        what = "GPUs and a CPU core" if gpus else "CPU cores"
        if need.nodes > 1:
            raise InputError(
                f"a run wants {need.devices} devices on each of {need.nodes} nodes, and not so many nodes of the "
                f"Ray cluster have {what} for it", "lower trainer: {nodes: ...}, or add a node")
        raise InputError(
            f"a run wants {need.devices} devices, and no node of the Ray cluster has {what} for it",
            "lower trainer: {devices: ...}, or add a node",
        )
    count = min(workers or most, most)
    cores = max(node.cores for node in machines)
    return max(n for n in range(least, cores + 1) 
               if room(machines, n, gpus, need.nodes) >= count), gpus


def room(machines: Sequence[Machine], cpus: int, gpus: int, nodes: int = 1) -> int:
    """Count the runs of so many CPUs and GPUs on each of `nodes` nodes that there is room for."""
    each = [min(node.cores // cpus, len(node.gpus) // gpus if gpus else node.cores) for node in machines]
    return next(count for count in range(sum(each) // nodes, -1, -1)
                if sum(min(fit, count) for fit in each) >= nodes * count)


def nodes() -> list[Machine]:
    """The living nodes, with the resources that Ray counts on them."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Machine(int(has.get("CPU", 0)), tuple(map(str, range(int(has.get("GPU", 0))))))
            for has in alive]


def connect(address: str) -> None:
    """Join a cluster.

    Args:
        address: `host:port`, `auto` or `local`; see `RayEngine`.

    Raises:
        InputError: there is no such cluster.
    """
    place = shown(address)  # it may hold a password
    if "://" in address:
        raise InputError(
            f"--address {place}: Ray's client does not carry a study",
            "start ftlab on a machine of the cluster: --address HOST:PORT, or ray job submit",
        )
    # Ray's own SIGTERM handler leaves at once; ours stops in order.
    ours = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves this machine unasked
    try:
        with _quiet():
            ray.init(address, log_to_driver=False, logging_level=logging.WARNING,
                     include_dashboard=False if address == "local" else None)
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"--address {place}: {redact(first)}",
                         "start a cluster: ray start --head; give its address") from error
    finally:
        if ours:
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep a dead node's last words, dozens of lines of Ray's own state, out of our display.

    Ray has no switch for them. Where it renames this private function they come back.
    """
    name = "listen_error_messages"
    listen = vars(driver).get(name)
    vars(driver)[name] = lambda worker, threads_stopped: None
    try:
        yield
    finally:
        vars(driver)[name] = listen
