"""Clusters of a split's examples: what has one value of the column `cluster`, or the same input."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def clusters_of(*keys: Sequence[Hashable]) -> list[int]:
    """The number of each example's cluster, from 0 in the order in which they first appear.

    Examples that share a key of any kind are in one cluster, and so are those that share one with
    an example between them.

    Args:
        keys: of each example, a sequence a kind: digests of inputs, values of a column.
    """
    leader = list(range(len(keys[0])))

    def root(place: int) -> int:
        while leader[place] != place:
            leader[place] = leader[leader[place]]
            place = leader[place]
        return place

    for kind in keys:
        first: dict[Hashable, int] = {}
        for place, key in enumerate(kind):
            one, other = root(first.setdefault(key, place)), root(place)
            leader[max(one, other)] = min(one, other)
    roots = [root(place) for place in leader]
    numbers = {place: number for number, place in enumerate(dict.fromkeys(roots))}
    return [numbers[place] for place in roots]
