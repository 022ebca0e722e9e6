"""Objects in the midst of a fit, as plain data and tensors, and put back into fresh ones.

What comes before the first step is done again by a run that continues: networks, optimizers, data
and functions are there. Everything else that an object holds is laid over what is there, in place,
so that whatever shares a list or a tensor goes on sharing it.
"""

from __future__ import annotations

import importlib
import types
from collections import OrderedDict, deque
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn

from ftlab.backbones.base import Backbone
from ftlab.tasks.base import Task
from ftlab.training.run import Run

PLAIN = (bool, int, float, complex, str, bytes, type(None))
REBUILT = (nn.Module, nn.Parameter, torch.optim.Optimizer, LightningDataModule, Backbone, Task, Run,
           AbstractContextManager, Path, type, types.ModuleType, torch.dtype, torch.device)
"""Kinds that are made anew and hold nothing that steps change, or are kept by other means."""
SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset,
                              "deque": deque}
MAPPINGS: dict[str, Any] = {"dict": dict, "ordered": OrderedDict}


class NotStorable(Exception):
    """An object holds what can neither be written as plain data nor be made anew."""


def capture(value: Any, shared: set[int] | None = None) -> Any:
    """Write a value as lists, tuples, plain values and tensors.

    Args:
        value: an object, or a module, of which what steps change beside its tensors is taken.
        shared: addresses of the tensors that are kept by other means; views of them are left.

    Raises:
        NotStorable: it holds what is neither data nor made anew.
    """
    return _Capture(shared or set(), _rooms(value)).take(value, root=True)


def restore(value: Any, captured: Any) -> None:
    """Lay what `capture` gave over an object of the same class, in place."""
    _Restore(_rooms(value)).lay(value, captured)


def _rooms(value: Any) -> set[str]:
    """The packages whose objects are written: this one, and that of a user's own technique."""
    return {_room(__name__), _room(type(value).__module__)}


def _room(module: str) -> str:
    return module.partition(":")[0].partition(".")[0]


def tensors_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The parameters and buffers of a module, by name."""
    return [*module.named_parameters(), *module.named_buffers()]


def held_by(value: Any) -> dict[str, Any]:
    """The attributes of an object; of a LightningModule those that it has of its own."""
    own = vars(value)
    return {name: part for name, part in own.items() if name not in _LIGHTNING} if isinstance(
        value, nn.Module) else dict(own)


def _of_lightning() -> frozenset[str]:
    plain = LightningModule()
    return frozenset((*vars(plain), "_hparams", *(f"_hparams_{end}" for end in ("initial", "name"))))


_LIGHTNING = _of_lightning()


class _Capture:
    def __init__(self, shared: set[int], rooms: set[str]) -> None:
        self.shared, self.rooms = shared, rooms
        self.places: dict[int, int] = {}
        self.alive: list[Any] = []  # or another object could get the identity of one that has gone

    def take(self, value: Any, root: bool = False) -> Any:
        if isinstance(value, PLAIN) and type(value) in PLAIN:
            return value
        if not root and self._apart(value):
            return ("module", [(name, tensor.detach().cpu()) for name, tensor in tensors_of(value)])
        if not root and (isinstance(value, REBUILT) or callable(value)):
            return ("keep",)
        if isinstance(value, Tensor) and value.untyped_storage().data_ptr() in self.shared:
            return ("keep",)
        if id(value) in self.places:
            return ("again", self.places[id(value)])
        self.places[id(value)] = len(self.alive)
        self.alive.append(value)
        return self._written(value)

    def _apart(self, value: Any) -> bool:
        """Return whether it is a network beside the model, a discriminator for instance."""
        return isinstance(value, nn.Module) and not isinstance(value, LightningModule) and not any(
            tensor.untyped_storage().data_ptr() in self.shared for _, tensor in tensors_of(value))

    def _written(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return ("tensor", value.detach().cpu(), str(value.device))
        if isinstance(value, np.ndarray):
            return ("array", torch.from_numpy(value.copy()))
        if isinstance(value, np.generic):
            return ("number", value.item(), value.dtype.str)
        if isinstance(value, np.random.Generator):
            return ("numpy generator", self.take(value.bit_generator.state))
        if isinstance(value, torch.Generator):
            return ("generator", value.get_state())
        if isinstance(value, range):
            return ("range", value.start, value.stop, value.step)
        for kind, cls in SEQUENCES.items():
            if type(value) is cls:
                return (kind, [self.take(part) for part in value])
        for kind, cls in MAPPINGS.items():
            if type(value) is cls:
                return (kind, [(self.take(key), self.take(part)) for key, part in value.items()])
        place = f"{type(value).__module__}:{type(value).__qualname__}"
        if _room(place) not in self.rooms:
            if isinstance(value, Mapping | tuple) or not hasattr(value, "__dict__"):
                raise NotStorable(f"a {place.replace(':', '.')}")
            return ("keep",)
        if isinstance(value, tuple):  # a named one
            return ("named", place, [self.take(part) for part in value])
        parts = []
        for name, part in held_by(value).items():
            try:
                parts.append((name, self.take(part)))
            except NotStorable as error:
                raise NotStorable(f"{type(value).__name__}.{name}: {error}") from error
        return ("object", place, parts)


class _Restore:
    def __init__(self, rooms: set[str]) -> None:
        self.rooms = rooms
        self.made: list[Any] = []

    def lay(self, there: Any, captured: Any) -> Any:
        """The captured value, laid over the one that is there if it is of its kind."""
        if not isinstance(captured, tuple):
            return captured
        kind, *rest = captured
        if kind == "keep":
            return there
        if kind == "module":
            with torch.no_grad():
                for (_, tensor), (_, kept) in zip(tensors_of(there), rest[0], strict=True):
                    tensor.copy_(kept)
            return there
        if kind == "again":
            return self.made[rest[0]]
        place = len(self.made)
        self.made.append(None)
        self.made[place] = value = self._read(kind, rest, there, place)
        return value

    def _read(self, kind: str, rest: list[Any], there: Any, place: int) -> Any:
        if kind == "tensor":
            return self._tensor(there, *rest)
        if kind == "array":
            return rest[0].numpy()
        if kind == "number":
            return np.dtype(rest[1]).type(rest[0])
        if kind == "numpy generator":
            state = self.lay(None, rest[0])
            made = np.random.Generator(getattr(np.random, state["bit_generator"])())
            made.bit_generator.state = state
            return made
        if kind == "generator":
            there.set_state(rest[0])
            return there
        if kind == "range":
            return range(*rest)
        if kind in SEQUENCES:
            return self._sequence(SEQUENCES[kind], rest[0], there, place)
        if kind in MAPPINGS:
            return self._mapping(MAPPINGS[kind], rest[0], there, place)
        if kind == "named":
            old = tuple(there) if isinstance(there, tuple) else ()
            return self._class_at(rest[0])(*self._laid(rest[1], old))
        return self._object(rest[0], rest[1], there, place)

    def _tensor(self, there: Any, tensor: Tensor, device: str) -> Tensor:
        alike = isinstance(there, Tensor) and (there.shape, there.dtype, str(there.device)) == (
            tensor.shape, tensor.dtype, device)
        if not alike or there.requires_grad:
            return tensor.to(device)
        with torch.no_grad():
            there.copy_(tensor)
        return there

    def _sequence(self, cls: Any, parts: list[Any], there: Any, place: int) -> Any:
        old = list(there) if isinstance(there, list | tuple | deque) else []
        made = there if type(there) is cls else cls()
        if cls in (tuple, frozenset):
            return cls(self._laid(parts, old))
        self.made[place] = made  # something in it may hold it
        found = self._laid(parts, old)
        made.clear()
        made.update(found) if cls is set else made.extend(found)
        return made

    def _laid(self, parts: list[Any], old: Any) -> list[Any]:
        return [self.lay(old[n] if n < len(old) else None, part) for n, part in enumerate(parts)]

    def _mapping(self, cls: Any, parts: list[Any], there: Any, place: int) -> Any:
        old = dict(there) if isinstance(there, dict) else {}
        made = there if type(there) is cls else cls()
        self.made[place] = made
        found = []
        for captured_key, part in parts:
            key = self.lay(None, captured_key)
            found.append((key, self.lay(old.get(key), part)))
        made.clear()
        made.update(found)
        return made

    def _object(self, cls: str, parts: list[Any], there: Any, place: int) -> Any:
        made = there
        if made is None:
            kind = self._class_at(cls)
            made = kind.__new__(kind)
        self.made[place] = made
        for name, part in parts:
            found = self.lay(getattr(made, name, None), part)
            if not isinstance(part, tuple) or part[0] != "keep":
                object.__setattr__(made, name, found)
        return made

    def _class_at(self, place: str) -> Any:
        """A class of the packages that may be written; a file names no other."""
        module, _, name = place.partition(":")
        if _room(module) not in self.rooms:
            raise ValueError(f"{place} is no class of {sorted(self.rooms)}")
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found
