"""Every transferability score, found by walking the room."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from ftlab.statistics.transferability.base import Score


def all_scores() -> list[Score]:
    """One of each score: those on features first, then by name."""
    room = importlib.import_module(__name__.rpartition(".")[0])
    modules = [importlib.import_module(f"{room.__name__}.{info.name}")
               for info in pkgutil.iter_modules(room.__path__)]
    found = [cls() for module in modules for cls in vars(module).values()
             if isinstance(cls, type) and issubclass(cls, Score)
             and cls.__module__ == module.__name__ and not inspect.isabstract(cls)]
    return sorted(found, key=lambda score: (score.reads, score.name))
