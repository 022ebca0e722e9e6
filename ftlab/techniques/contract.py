"""The methods of the techniques' contract, and which of them a class overrides."""

from __future__ import annotations

import inspect
from collections.abc import Collection

from lightning import LightningModule

KEEPS_OPTIMUM = {"prepare", "adapt", "optimum", "settle", "variants", "conclude", "merge",
                 "audit", "costs"}
"""Methods by which a class changes nothing in what a fit arrives at."""


def contract_of(technique: type, but: Collection[str]) -> frozenset[str]:
    """Names of the public methods that a class of techniques adds to Lightning's, some left out."""
    return frozenset(name for name, value in vars(technique).items() if inspect.isfunction(value)
                     and not name.startswith("_") and name not in but
                     and not hasattr(LightningModule, name))


def overridden(cls: type, base: type, contract: Collection[str]) -> set[str]:
    """Names of the contract's methods that a class overrides of a base class."""
    kinds = [kind for kind in cls.__mro__ if not issubclass(base, kind)]
    return {name for kind in kinds for name in vars(kind) if name in contract}
