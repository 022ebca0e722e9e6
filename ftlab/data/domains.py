"""Two domains within the sources: one trains, the other comes along unlabelled and is tested on."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace

from ftlab.data.examples import NAMED, STREAM, Examples, SplitName, Stream
from ftlab.data.splits import Split
from ftlab.data.tables import Column
from ftlab.errors import InputError
from ftlab.wording import did_you_mean, listed

DOMAIN = "domain"
"""The column whose values are the domains that a split names."""
TARGET = "target"
"""Name of the stream and of the test set of the target domain's examples."""


def with_target(split: Split, sources: dict[SplitName, str | None], beside: dict[str, Stream],
                columns: Mapping[str, Column]) -> None:
    """Add the target domain's stream and test set to those of a data set, in place.

    Args:
        split: which names a target domain.
        sources: of each split.
        beside: streams by name.
        columns: of the data set.

    Raises:
        ValueError: there is no column of domains, or another stream or test set has the name.
    """
    if DOMAIN not in columns:
        raise ValueError(f"split: target is a value of the column {DOMAIN!r}, which the data set does "
                         f"not name: add columns: {{{DOMAIN}: COLUMN}}")
    for key, place in (("tests", f"{NAMED}{TARGET}"), ("beside", f"{STREAM}{TARGET}")):
        if place in sources:
            raise ValueError(f"{key} names {TARGET!r}, and split: target makes one of this name: leave "
                             "out one of the two")
        sources[place] = None  # within the other sources
    train = sources["train"]
    assert train is not None
    beside[TARGET] = Stream(train)


def apart(read: Mapping[SplitName, Examples], split: Split, where: str
          ) -> tuple[dict[SplitName, Examples], dict[SplitName, Examples]]:
    """The examples of the source domain, and those of the target, of each split that is read.

    Args:
        read: all examples, by split; streams and named test sets stay with the source's.
        split: names the domains.
        where: the training source, for messages.

    Raises:
        InputError: a domain has no example, or a given split none of the source domain.
    """
    known = sorted(set(read["train"].columns[DOMAIN]))
    for domain in (split.target, split.source):
        if domain is not None and domain not in known:
            raise InputError(f"{where}: column {DOMAIN!r} has no value {domain!r}",
                             did_you_mean(domain, known))
    if known == [split.target] and split.source is None:
        raise InputError(f"{where}: all examples are of the domain {split.target!r}",
                         "add examples of another one, which train")
    own: dict[SplitName, Examples] = {}
    others: dict[SplitName, Examples] = {}
    for name, examples in read.items():
        if name.startswith((NAMED, STREAM)):
            own[name] = examples
            continue
        domains = list(enumerate(examples.columns[DOMAIN]))
        own[name] = examples.take([place for place, domain in domains if (
            domain != split.target if split.source is None else domain == split.source)])
        others[name] = examples.take([place for place, domain in domains if domain == split.target])
        if not len(own[name]):
            raise InputError(f"the {name} split has no example of the source domain",
                             "give it some: the target's choose nothing")
    return own, {name: examples for name, examples in others.items() if len(examples)}


def check_overlap(split: Split, source: Iterable[Hashable | None],
                  target: Iterable[Hashable | None], where: str) -> None:
    """Refuse domains that have no class in common.

    Args:
        split: names the domains.
        source: classes of the source domain's examples; None where they have none.
        target: of the target domain's.
        where: the training source, for messages.

    Raises:
        InputError: they have none in common.
    """
    one, other = (sorted({str(name) for name in names if name is not None})
                  for names in (source, target))
    if one and other and not set(one) & set(other):
        raise InputError(
            f"{where}: the target domain {split.target!r} has no class of the source domain: it has "
            f"{listed(other[:5])}, and the source {listed(one[:5])}",
            "give both the same classes, by classes: {RAW: NAME} for instance")


def of_target(train: Examples, test: Examples) -> dict[SplitName, Examples]:
    """The splits of the target domain: its test set, and its training examples without labels."""
    stream = replace(train, labels=[None] * len(train), targets=[])
    return {f"{NAMED}{TARGET}": test, f"{STREAM}{TARGET}": stream}
