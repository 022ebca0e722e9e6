"""The engine of a command, which on a node that is not the first of several only follows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from ftlab.commands.show import say

if TYPE_CHECKING:
    from ftlab.studies.engine import Engine, Requirements


@contextmanager
def company(need: Requirements, name: str, address: str | None, fresh: bool,
            workers: int | None) -> Iterator[Engine]:
    """An engine for a study's runs, with the other nodes where these want several.

    Args:
        need: of the largest run.
        name: of the engine.
        address: of the Ray cluster, as `make_engine` takes it.
        fresh: promises what it promises there.
        workers: runs at a time.

    Raises:
        typer.Exit: this is another node than the first, and its share of the runs is done.
    """
    from ftlab.studies import engines
    from ftlab.studies.following import follow
    from ftlab.studies.nodes import joined

    node = joined(need, name, workers)
    engine = engines.make_engine(name, address, fresh, node)
    if node is None:
        yield engine
    elif node.number:
        raise typer.Exit(1 if follow(node, engine, need, say) else 0)
    else:
        try:
            with node.leading():
                yield engine
        finally:
            engine.close()  # once more, where the others could not be met
