"""Training examples of one task after another's, for a fit on a sequence of tasks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from ftlab.data.batches import batch_count, in_batches
from ftlab.data.domains import DOMAIN
from ftlab.data.sampling import Sampling
from ftlab.errors import InputError
from ftlab.tasks.class_names import name_order
from ftlab.wording import did_you_mean, listed


class TasksInTurn(Sampling):
    """Epochs of the first task alone, then of the second, and so on; the tasks are the data set's domains.

    All epochs have as many batches as the examples of the largest task fill, so that the tasks have
    equally many updates: a smaller one goes on with its next pass over its examples. Each pass has
    the order that a fit on the examples of this task alone would have; a last batch of one example
    joins the one before.

    Args:
        order: the domains; None for all of the training split, numbers first, then by name.
    """

    epochs = 1  # of each task; of the fit, once that is known

    def __init__(self, order: Sequence[str] | None = None) -> None:
        super().__init__(DOMAIN)
        self.tasks_in_order = None if order is None else tuple(order)

    def class_probabilities(self, counts: Sequence[int]) -> np.ndarray:
        sizes = np.asarray(counts, dtype=float)
        return sizes / sizes.sum()

    def names(self, domains: Sequence[Hashable]) -> list[str]:
        """The tasks in their order.

        Args:
            domains: of the training examples.

        Raises:
            InputError: the order names a domain that is not there, or leaves one out.
        """
        known = sorted({str(domain) for domain in domains}, key=name_order)
        if self.tasks_in_order is None:
            return known
        for name in self.tasks_in_order:
            if name not in known:
                raise InputError(f"order: no training example has {name!r} in the column {DOMAIN!r}",
                                 did_you_mean(name, known))
        if left := [name for name in known if name not in self.tasks_in_order]:
            raise InputError(f"order leaves out {listed(left)}, of which there are training examples",
                             "name every value of the column, or leave their examples out")
        return list(self.tasks_in_order)

    def strata(self, classes: Sequence[Hashable | None],
               columns: Mapping[str, Sequence[Hashable]]) -> Sequence[int]:
        """The task of each example, from 0.

        Raises:
            InputError: there is no column of domains, or the order is not of its values.
        """
        domains = [str(domain) for domain in super().strata(classes, columns)]
        numbers = {name: number for number, name in enumerate(self.names(domains))}
        return [numbers[domain] for domain in domains]

    def plan(self, strata: Sequence[Hashable | None], size: int, seed: int,
             epoch: int) -> list[list[int]]:
        tasks = np.asarray(strata, dtype=int)
        task = min(epoch // self.epochs, int(tasks.max()))
        own, length = np.flatnonzero(tasks == task), self.length(strata, size)
        each, first = batch_count(len(own), size), (epoch - task * self.epochs) * length
        passes: dict[int, list[list[int]]] = {}
        batches: list[list[int]] = []
        for number in range(first, first + length):
            turn, place = divmod(number, each)
            if turn not in passes:
                order = own[np.random.default_rng([seed, turn]).permutation(len(own))]
                passes[turn] = in_batches(order.tolist(), size)
            batches.append(passes[turn][place])
        return batches

    def length(self, strata: Sequence[Hashable | None], size: int) -> int:
        return max(batch_count(int(count), size) for count in np.bincount(np.asarray(strata, dtype=int)))
