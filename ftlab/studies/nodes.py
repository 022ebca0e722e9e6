"""The nodes of one run: which of them this is, and where their commands meet.

The same command is started once on each node. The first is the coordinator, as on one machine; on
the others it follows (`following.py`) and executes its share of each run that the first begins.
What starts the commands (torchrun, Slurm, a person) tells each its number and the first one's address.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ftlab.errors import FtlabError, InputError
from ftlab.studies.engine import Requirements

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]  # public, not in __all__

PARTING = 3.0  # seconds that the first node waits for the others to take note of its end
JOIN = 300.0  # seconds that nodes wait for each other; one may start later, or read data longer
RUN, OVER, LEFT = "ftlab/run/{}", "ftlab/over", "ftlab/left/{}"
"""Keys of the store: the runs, numbered from 1; that there are no more; who has taken note of it."""
_BEGUN = "ftlab/begun"
_STARTERS = ("SLURM_", "TORCHELASTIC_")
_STARTED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE",
            "ROLE_NAME", "ROLE_RANK", "ROLE_WORLD_SIZE", "NODE_RANK", "NNODES", "MASTER_ADDR", "MASTER_PORT")
HOW = ("start the same command once on each: torchrun --nnodes {0} --nproc-per-node 1 --master-addr HOST "
       "--node-rank K --no-python ftlab ..., or srun --nodes {0} --ntasks-per-node 1 ftlab ...")


@dataclass(frozen=True)
class Node:
    """One of the nodes of a run.

    Attributes:
        number: from 0; the first is the coordinator's.
        count: of the nodes.
        host, port: where the first one's store is.
        served: whether torchrun holds that store already.
    """

    number: int
    count: int
    host: str
    port: int
    served: bool = False

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> Node | None:
        """This node, as what started the command says; None where nothing says that there are several.

        torchrun's GROUP_RANK, GROUP_WORLD_SIZE, MASTER_ADDR and MASTER_PORT; by hand NODE_RANK and
        NNODES with the same address; or Slurm's variables of the step, the port from the job's number.

        Raises:
            InputError: they say that several commands run on one node, or not all that is needed.
        """
        names = next((pair for pair in (("GROUP_RANK", "GROUP_WORLD_SIZE"), ("NODE_RANK", "NNODES"),
                                        ("SLURM_NODEID", "SLURM_NNODES")) if pair[1] in environment), None)
        if names is None or environment[names[1]] == "1":
            return None
        slurm = names[0] == "SLURM_NODEID"
        count = _number(environment, names[1])
        tasks = environment.get("SLURM_NTASKS", str(count)) if slurm else None
        if environment.get("LOCAL_WORLD_SIZE", "1") != "1" or tasks not in (None, str(count)):
            raise InputError("several ftlab commands were started on each node, and one starts all ranks of "
                             "its node", "torchrun --nproc-per-node 1, or srun --ntasks-per-node 1")
        host = environment.get("MASTER_ADDR", "")
        port = environment.get("MASTER_PORT", "")
        if slurm:
            from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

            nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
            host = host or SLURMEnvironment.resolve_root_node_address(nodes)
            port = port or str(15000 + int(environment.get("SLURM_JOB_ID", "0")[-4:]))  # as Lightning's
        if not host or not port:
            raise InputError(f"{names[1]} says that there are {count} nodes, and nothing where the first is",
                             "set MASTER_ADDR and MASTER_PORT to an address of it in the private network")
        served = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        number = _number(environment, names[0])
        return cls(number, count, host, _number({"MASTER_PORT": port}, "MASTER_PORT"), served)

    @classmethod
    def of_text(cls, text: str) -> Node:
        """The node of which `text` was taken."""
        return cls(*json.loads(text))

    @property
    def text(self) -> str:
        """All of it, for another process."""
        return json.dumps([self.number, self.count, self.host, self.port, self.served])

    @property
    def title(self) -> str:
        """A name for people."""
        return f"node {self.number} ({socket.gethostname()})"

    def listen(self, port: int = 0) -> socket.socket:
        """A socket at the first node's address alone; the system chooses the port unless it is given.

        Raises:
            InputError: that address is not this machine's, or the port is taken.
        """
        try:
            family, _, _, _, address = socket.getaddrinfo(self.host, port, type=socket.SOCK_STREAM)[0]
            return socket.create_server(address[:2], family=family, backlog=1024)
        except OSError as error:
            raise InputError(f"{self.host}:{port}, where the nodes are to meet, cannot be opened on the first "
                             f"of them: {error.strerror}",
                             "set MASTER_ADDR to an address of it in the private network, MASTER_PORT to a free "
                             "port") from error

    def store(self) -> Store:
        """Connect to the first node's store; waits until it is there.

        Raises:
            FtlabError: it did not come.
        """
        from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]  # public, not in __all__

        try:
            return TCPStore(self.host, self.port, is_master=False, timeout=timedelta(seconds=JOIN),
                            wait_for_workers=False)
        except DistError as error:
            raise FtlabError(f"node {self.number}: no answer from node 0 at {self.host}:{self.port} for "
                             f"{JOIN:.0f} s", "see that its command runs, and that the name stands for an "
                             "address of the private network there, too") from error

    def begin(self, message: Mapping[str, Any]) -> None:
        """Tell the other nodes of a run that they take part in."""
        store = self.store()
        store.set(RUN.format(store.add(_BEGUN, 1)), json.dumps(message))

    @contextmanager
    def leading(self, listening: socket.socket | None = None) -> Iterator[None]:
        """Hold the store of the first node, and say at the end that there are no more runs.

        Args:
            listening: at the node's port, if that is open.
        """
        from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]  # as above

        if self.served:
            store = self.store()
        else:
            store = TCPStore(self.host, self.port, is_master=True, wait_for_workers=False,
                             master_listen_fd=(listening or self.listen(self.port)).detach())
        try:
            yield
        finally:
            # the store ends with us: who has not come, or is gone, will see that we are gone
            with contextlib.suppress(DistError):
                store.set(OVER, "")
                store.wait([LEFT.format(number) for number in range(1, self.count)],
                           timedelta(seconds=PARTING))


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except (KeyError, ValueError):
        raise InputError(f"{name} is {environment.get(name)!r}, and not a number",
                         "start the command by torchrun or srun") from None


def check(node: Node | None, need: Requirements, workers: int | None) -> None:
    """Refuse runs of several nodes where there are not so many.

    Args:
        node: this one; None where there is one alone.
        need: of the largest run.
        workers: runs at a time.

    Raises:
        InputError: there are more nodes, or fewer, or several runs were to share them.
    """
    if need.nodes == 1:
        return
    count = 1 if node is None else node.count
    if count != need.nodes:
        there = "one node" if count == 1 else f"{count} nodes"
        raise InputError(f"trainer: {{nodes: {need.nodes}}}: this command was started on {there}",
                         HOW.format(need.nodes))
    if (workers or 1) > 1:
        raise InputError(f"--workers {workers}: runs of several nodes go on one at a time", "--workers 1")


def leave_starter() -> None:
    """Take the variables of Slurm and torchrun from this process's environment, and its children's.

    Lightning would take their tasks for its own ranks, load a checkpoint that another Slurm job left,
    and requeue the whole job where a run gets our SIGUSR1.
    """
    for name in [name for name in os.environ if name.startswith(_STARTERS) or name in _STARTED]:
        del os.environ[name]


def joined(need: Requirements, engine: str, workers: int | None) -> Node | None:
    """This node, where a study's runs want several; None where they want one.

    Args:
        need: of the largest run.
        engine: its name.
        workers: runs at a time.

    Raises:
        InputError: there are more nodes, or fewer, or several runs were to share them.
    """
    if need.nodes == 1 or engine != "local":  # Ray chooses the nodes itself
        return None
    node = Node.here()
    check(node, need, workers)
    return node
