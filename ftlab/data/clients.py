"""Training examples as clients hold them, one client's batches after another's."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ftlab.data.batches import batch_count, in_batches
from ftlab.data.sampling import Sampling
from ftlab.errors import InputError
from ftlab.tasks.class_names import name_order

CLIENT = "client"
"""The column whose values are the clients that hold the examples."""
LEAST = 2
"""Examples that a client must have."""
_DRAWS = 100
_CHOICE = 1  # beside a client's order in its own stream of random numbers


@dataclass(frozen=True)
class Turn:
    """One client's part of a round.

    Attributes:
        client: its number.
        batches: how many it trains on.
        examples: that it holds.
    """

    client: int
    batches: int
    examples: int


class Clients(Sampling):
    """Rounds of federated training: in each some clients train, one after another, on their own examples.

    An epoch is a round. A client sees each of its examples once in each of its local epochs, in an order of its
    own; its last batch may be smaller. All rounds have as many batches as the longest may have: what lacks is
    filled with copies of the last, which count for nobody.

    Args:
        number: clients among whom examples are shared out class by class, in shares drawn from a
            Dirichlet distribution (Hsu, Qi, Brown 2019, https://arxiv.org/abs/1909.06335); None for
            the values of the data set's column `client`.
        alpha: of that distribution; below 1 most clients lack most classes.
        fraction: of the clients that train in a round, at least one does.
        local_epochs: of a client in a round.
    """

    def __init__(self, number: int | None = None, alpha: float = 0.5, fraction: float = 1.0,
                 local_epochs: int = 1) -> None:
        super().__init__(CLIENT if number is None else None)
        self.number, self.alpha = number, alpha
        self.fraction, self.local_epochs = fraction, local_epochs

    def class_probabilities(self, counts: Sequence[int]) -> np.ndarray:
        sizes = np.asarray(counts, dtype=float)
        return sizes / sizes.sum()

    def strata(self, classes: Sequence[Hashable | None],
               columns: Mapping[str, Sequence[Hashable]]) -> Sequence[int]:
        """The client of each example, from 0.

        Raises:
            InputError: there is no such column, a client has too few examples, or the task no classes.
        """
        if self.number is None:
            values = [str(value) for value in super().strata(classes, columns)]
            names = sorted(set(values), key=name_order)
            codes = {name: code for code, name in enumerate(names)}
            clients = [codes[value] for value in values]
            sizes = np.bincount(clients)
            if (least := int(sizes.min())) < LEAST:
                raise InputError(f"client {names[int(sizes.argmin())]!r} has {least} training example, and "
                                 f"each wants {LEAST}", "join it with another, or leave its example out")
            return clients
        return self._dealt(classes, self.number)

    def _dealt(self, classes: Sequence[Hashable | None], number: int) -> list[int]:
        """Shares of each class, drawn anew until each client has enough."""
        if None in classes:
            raise InputError("clients by shares of classes need a task with classes",
                             "name the client of each example: clients: null, columns: {client: COLUMN}")
        if number * LEAST > len(classes):
            raise InputError(f"{len(classes)} training examples are too few for {number} clients with "
                             f"{LEAST} each", f"take at most {len(classes) // LEAST} clients")
        generator = np.random.default_rng(0)  # it belongs to the data set, not to the run
        members: dict[Hashable | None, list[int]] = {}
        for position, name in enumerate(classes):
            members.setdefault(name, []).append(position)
        for _ in range(_DRAWS):
            dealt = np.zeros(len(classes), dtype=int)
            for positions in members.values():
                shares = generator.dirichlet([self.alpha] * number)
                ends = np.floor(np.cumsum(shares)[:-1] * len(positions) + 0.5).astype(int)
                for client, part in enumerate(np.split(generator.permutation(positions), ends)):
                    dealt[part] = client
            if np.bincount(dealt, minlength=number).min() >= LEAST:
                return [int(client) for client in dealt]
        raise InputError(f"no {_DRAWS} draws gave each of {number} clients {LEAST} training examples",
                         "raise alpha, or take fewer clients")

    def turns(self, clients: Sequence[int], size: int, seed: int, epoch: int) -> list[Turn]:
        """The clients of a round, in their order.

        Args:
            clients: of each example.
            size: of a batch.
            seed: of the run.
            epoch: number of the round, from 0.
        """
        sizes = np.bincount(clients)
        count = max(1, int(self.fraction * len(sizes) + 0.5))
        chosen = range(len(sizes)) if count == len(sizes) else sorted(
            np.random.default_rng([seed, epoch, 0, _CHOICE]).permutation(len(sizes))[:count].tolist())
        return [Turn(client, self.local_epochs * batch_count(int(sizes[client]), size), int(sizes[client]))
                for client in chosen]

    def plan(self, strata: Sequence[Hashable | None], size: int, seed: int,
             epoch: int) -> list[list[int]]:
        clients = np.asarray(strata)
        batches: list[list[int]] = []
        for turn in self.turns(clients.tolist(), size, seed, epoch):
            own = np.flatnonzero(clients == turn.client)
            for local in range(self.local_epochs):
                # the first has the order that all examples have in plain training
                stream = [seed, epoch * self.local_epochs + local, *([turn.client] if turn.client else [])]
                order = own[np.random.default_rng(stream).permutation(len(own))].tolist()
                batches += in_batches(order, size)
        # rounds of other clients are longer; what is added trains nothing
        return batches + [batches[-1]] * (self.length(strata, size) - len(batches))

    def length(self, strata: Sequence[Hashable | None], size: int) -> int:
        clients = [int(str(client)) for client in strata]
        counts = sorted((batch_count(int(n), size) for n in np.bincount(clients)), reverse=True)
        return self.local_epochs * sum(counts[:max(1, int(self.fraction * len(counts) + 0.5))])

