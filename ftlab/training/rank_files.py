"""Files that go from a rank on one node to a rank on another, which share no folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from lightning import Trainer
from torch import distributed

from ftlab.files import replacing

PIECE = 2**24
"""Bytes that are sent at once."""


def away(trainer: Trainer) -> range:
    """The ranks that are on other nodes than the first rank."""
    return range(trainer.world_size // trainer.num_nodes, trainer.world_size)


def agree(trainer: Trainer, act: Callable[[], None], errors: tuple[type[Exception], ...]) -> str:
    """Let each rank act, all at once; returns why one could not, or nothing where all could.

    Args:
        trainer: of the ranks.
        act: what this rank does, without the others.
        errors: that it may end with.
    """
    reason = ""
    try:
        act()
    except errors as error:
        reason = str(error) or type(error).__name__
    if trainer.world_size == 1:
        return reason
    reasons = [""] * trainer.world_size
    distributed.all_gather_object(reasons, reason)
    return next(filter(None, reasons), "")


def move(path: Path, source: int, target: int, trainer: Trainer) -> None:
    """Copy a file of one rank's folder to the same name in another's; other ranks do nothing.

    Raises:
        OSError: the target's disk is full, or its folder cannot be written. What is sent is
            received nevertheless.
    """
    device = trainer.strategy.root_device
    if trainer.global_rank == source:
        distributed.send(torch.tensor([path.stat().st_size], device=device), target)
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                distributed.send(torch.frombuffer(bytearray(piece), dtype=torch.uint8).to(device), target)
    elif trainer.global_rank == target:
        pieces = _received(source, device)
        try:
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as whole, whole.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
        finally:
            for _ in pieces:  # or the other rank would wait for ever
                pass


def _received(source: int, device: torch.device) -> Iterator[bytes]:
    size = torch.zeros(1, dtype=torch.int64, device=device)
    distributed.recv(size, source)
    left = int(size)
    while left:
        piece = torch.empty(min(PIECE, left), dtype=torch.uint8, device=device)
        distributed.recv(piece, source)
        left -= len(piece)
        yield piece.cpu().numpy().tobytes()
