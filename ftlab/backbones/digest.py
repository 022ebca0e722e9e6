"""Digests of tensors: one mechanism for the guards of a run and for the files of the caches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

DIGESTS = "blake2b"
"""The name of a file's digests in its metadata."""
_WIDTH = 1024  # 64-bit words of a row
_ROWS = 128  # taken at a time by a thread: a megabyte, whose second pass is from its cache


class Damaged(Exception):
    """A file is not what was written; it is made again."""


def digest(tensor: Tensor) -> str:
    """A digest of a tensor's bits that sees every change of one, two or three bits.

    Words of 64 bits stand in a table, and what is hashed are the sums of its rows and of its
    columns, which wrap around: two passes at memory speed, where a hash would read every byte
    through one core. One flipped bit changes the sum of its row and that of its column. More of
    them hide only where each row and each column that has one has another one to undo it, which
    takes four, on the corners of a rectangle: bits of one word never undo each other, for no
    power of two is a sum of smaller ones with signs. What does not fill a row is hashed as it is.

    The bits are taken, not the values, so that even a changed sign of zero shows; sums of integers
    are the same on every device, in any order.
    """
    dense = tensor.detach().contiguous()
    # whatever stride it says: of a single number any is dense, and some releases refuse 0
    data = dense.as_strided((dense.numel(),), (1,)).view(torch.uint8)
    whole = data.numel() // (8 * _WIDTH) * (8 * _WIDTH)
    hashed = hashlib.blake2b(data[whole:].cpu().numpy().data, digest_size=16)
    hashed.update(data.numel().to_bytes(8, "little"))
    if whole:
        words = data[:whole]
        if words.storage_offset() % 8:  # a part of another tensor, that begins within a word
            words = words.clone()
        table = words.view(torch.int64).view(-1, _WIDTH)
        on_cpu = table.device.type == "cpu"
        parts = table.split(_ROWS * torch.get_num_threads() if on_cpu else len(table))
        rows: list[Tensor] = []
        columns = torch.zeros(_WIDTH, dtype=torch.int64, device=table.device)
        for part in parts:
            rows.append(part.sum(dim=1))
            columns += part.sum(dim=0)
        hashed.update(torch.cat([*rows, columns]).cpu().numpy().data)
    return hashed.hexdigest()


def digests(tensors: Mapping[str, Tensor]) -> str:
    """JSON of a file's tensors: type and shape, which a header may say wrong, and bits of each."""
    return json.dumps({name: [str(tensor.dtype), list(tensor.shape), digest(tensor)]
                       for name, tensor in sorted(tensors.items())})


def mapped(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, mapped and held to the `digests` in its metadata.

    Raises:
        OSError: there is none, or it may not be read.
        Damaged: it is not what was written.
    """
    path.open("rb").close()  # safetensors would say less exactly why it cannot
    try:
        with safe_open(path, "pt") as file:
            written = (file.metadata() or {}).get(DIGESTS)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise Damaged(f"{path}: {error}") from error
    if digests(tensors) != written:
        raise Damaged(f"{path}: " + ("its digests are other ones" if written else
                                     "it has no digests, as those of an earlier ftlab"))
    return tensors
