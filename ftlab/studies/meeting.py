"""Where a run's ranks meet: a store that the first node's supervisor holds, on a port of its own."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from ftlab.studies.nodes import Node

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]  # public, not in __all__

HERE = "127.0.0.1"


class Meeting(NamedTuple):
    """A node's place among the ranks of a run, and the store through which they meet.

    Attributes:
        node, nodes: its number, and how many there are.
        devices: ranks on each.
        host, port: of the store.
        listening: there, on the first node.
    """

    node: int
    nodes: int
    devices: int
    host: str
    port: int
    listening: socket.socket | None

    @classmethod
    def of(cls, specification: dict[str, Any], node: Node | None) -> Meeting:
        """The meeting of a run; beyond the first node the specification's `meet`, taken out, says where.

        Args:
            specification: of the run.
            node: this one; None where there is one alone.
        """
        trainer = specification["trainer"]
        nodes, devices = trainer.get("nodes") or 1, trainer["devices"]
        if nodes == 1 or node is None:
            assert nodes == 1, "the engine refuses it"
            listening = socket.create_server((HERE, 0), backlog=128)
            return cls(0, 1, devices, HERE, listening.getsockname()[1], listening)
        if node.number:
            host, port = specification.pop("meet")
            return cls(node.number, nodes, devices, host, port, None)
        listening = node.listen()
        return cls(0, nodes, devices, node.host, listening.getsockname()[1], listening)

    @property
    def on_one_machine(self) -> bool:
        """Return whether nobody from outside can come."""
        return self.host in (HERE, "localhost", "::1")

    def store(self) -> Store:
        """The store; of the first node it takes `listening`, and ends with this process."""
        from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, not in __all__

        if self.listening is None:
            return TCPStore(self.host, self.port, is_master=False, wait_for_workers=False)
        return TCPStore(self.host, self.port, is_master=True, wait_for_workers=False,
                        master_listen_fd=self.listening.detach())
