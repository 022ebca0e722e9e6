"""Outputs of frozen prefixes on disk: computed once per machine, read by every later run.

One file a split, below `$FTLAB_CACHE/prefix` (default `~/.cache/ftlab`), named by a hash of all
that it follows from: the prefix's weights, structure and place, the data set's rows, how they
are prepared, device and precision, versions. Tokens of padding are not stored. Files are
safetensors, mapped and not read, so that processes share one copy in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ftlab.backbones import cache_folder
from ftlab.backbones.digest import DIGESTS, Damaged, digests, mapped
from ftlab.files import replacing

DTYPES = {torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.float16: "F16",
          torch.bfloat16: "BF16"}
"""safetensors' names. Wider ones are written first, so that each is where its size divides."""


def folder() -> Path:
    """Where the files are."""
    return cache_folder.folder("prefix")


def free() -> int:
    """Bytes that the disk has left, and that evicting all files would give back."""
    where = folder()
    ours = sum(path.stat().st_size for path in where.glob("*.safetensors"))
    while not where.exists():
        where = where.parent
    return shutil.disk_usage(where).free + ours


def key_of(parts: Mapping[str, Any]) -> str:
    """A file's name, from all that its content follows from."""
    content = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def path_of(key: str) -> Path:
    """Where the file of a key is, or would be."""
    return folder() / f"{key}.safetensors"


class Activations:
    """The outputs of a prefix for each example of a split (see `CachedRows`).

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tensors: dict[str, Tensor] = {}

    def __reduce__(self) -> Any:
        return _opened, (self.path,)  # between processes the path travels, not the rows

    def open(self) -> Activations:
        """Map the file and check it.

        Raises:
            OSError: there is none, or it may not be read.
            Damaged: it is not what was written.
        """
        self._tensors = mapped(self.path)
        cache_folder.mark_read(self.path)
        _OPENED[self.path] = self
        return self

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size

    def rows(self, index: Tensor, masks: Sequence[Tensor | None]) -> list[Tensor]:
        """Each (B, ...), with zeros for padding.

        Raises:
            Damaged: a ragged row has another length than it had.
        """
        handed = []
        for number, mask in enumerate(masks):
            values = self._tensors[f"values{number}"]
            begin = self._tensors[f"begin{number}"][index]
            if mask is None:
                handed.append(values[begin])
                continue
            length = mask.sum(dim=1)
            if not torch.equal(length, self._tensors[f"length{number}"][index]):
                raise Damaged(f"{self.path}: an example has another length than it had")
            before = length.cumsum(0) - length
            rows = torch.repeat_interleave(begin - before, length) + torch.arange(int(length.sum()))
            padded = values.new_zeros(*mask.shape, *values.shape[1:])
            padded[mask] = values[rows]
            handed.append(padded)
        return handed


_OPENED: WeakValueDictionary[Path, Activations] = WeakValueDictionary()


def _opened(path: Path) -> Activations:
    """The file as this process has it open, or opened now."""
    return _OPENED.get(path) or Activations(path).open()


def in_memory(handed: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Activations:
    """One batch as if it had been read from a file, to time reading."""
    memory = Activations(Path())
    for number, (tensor, mask) in enumerate(zip(handed, masks, strict=True)):
        length = torch.ones(len(tensor), dtype=torch.int64) if mask is None else mask.sum(dim=1)
        memory._tensors |= {f"values{number}": tensor if mask is None else tensor[mask],
                           f"begin{number}": length.cumsum(0) - length, f"length{number}": length}
    return memory


Recorded = Iterator[tuple[Tensor, Sequence[Tensor | None], Sequence[Tensor]]]
"""Per batch, on the CPU: positions in the split (B,), masks, tensors (see `CachedRows`)."""


def obtain(
    key: str, examples: int, record: Callable[[], Recorded], waiting: Callable[[], None]
) -> tuple[Activations, bool]:
    """The file of a key; made where it is missing or damaged, once, however many want it.

    Args:
        key: from `key_of`.
        examples: in the split.
        record: computes the outputs, batch by batch, every example once.
        waiting: called every now and then while another process makes the file.

    Returns:
        The file, open, and whether it was made here.

    Raises:
        OSError: it cannot be written.
    """
    path = path_of(key)
    file = _whole(path)
    if file is not None:
        return file, False
    path.parent.mkdir(parents=True, exist_ok=True)
    with cache_folder.locked(path.with_suffix(".lock"), waiting):
        file = _whole(path, say=True)  # another process has made it meanwhile
        if file is not None:
            return file, False
        work = path.with_suffix(".making")
        shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
        work.mkdir()
        try:
            with replacing(path, locked=True) as whole:
                _write(whole, work, examples, record())
                cache_folder.make_room(whole.stat().st_size)
        finally:
            shutil.rmtree(work)
        return Activations(path).open(), True


def _whole(path: Path, say: bool = False) -> Activations | None:
    """The file, open; None where it is missing, or not what was written, which can be said."""
    try:
        return Activations(path).open()
    except FileNotFoundError:
        return None
    except Damaged as error:
        if say:
            cache_folder.damaged(str(error))
        return None


def _write(whole: Path, work: Path, examples: int, recorded: Recorded) -> None:
    """One safetensors file; what is recorded never has to fit into memory.

    Args:
        whole: the file.
        work: a folder for its parts.
        examples: in the split.
        recorded: see `Recorded`.
    """
    columns: list[_Column] = []
    with contextlib.ExitStack() as stack:
        for index, masks, handed in recorded:
            if not columns:
                columns = [_Column(stack.enter_context((work / str(number)).open("w+b")), examples)
                           for number in range(len(handed))]
            for column, mask, tensor in zip(columns, masks, handed, strict=True):
                column.add(index, mask, tensor)
        assert all(bool((column.begin >= 0).all()) for column in columns), "an example is missing"
        tensors = {f"begin{number}": column.begin for number, column in enumerate(columns)}
        tensors |= {f"length{number}": column.length for number, column in enumerate(columns)}
        values = {f"values{number}": column.values() for number, column in enumerate(columns)}
        tensors |= sorted(values.items(), key=lambda item: -item[1].dtype.itemsize)
        _assemble(whole, tensors)


class _Column:
    """One of a prefix's tensors, as its rows come.

    Attributes:
        file: of the rows' bytes, one after another.
        begin, length: of each example's row (N,), in entries where rows are ragged.
    """

    def __init__(self, file: BinaryIO, examples: int) -> None:
        self.file = file
        self.begin, self.length = torch.full((2, examples), -1).unbind()
        self.written = 0
        self.shape: tuple[int, ...] = ()
        self.dtype = torch.float32

    def add(self, index: Tensor, mask: Tensor | None, tensor: Tensor) -> None:
        length = torch.ones(len(index), dtype=torch.int64) if mask is None else mask.sum(dim=1)
        self.begin[index] = self.written + length.cumsum(0) - length
        self.length[index] = length
        self.written += int(length.sum())
        rows = tensor if mask is None else tensor[mask]
        self.shape, self.dtype = tuple(rows.shape[1:]), rows.dtype
        self.file.write(rows.reshape(-1).view(torch.uint8).numpy().data)

    def values(self) -> Tensor:
        self.file.flush()
        size = self.written * math.prod(self.shape)
        mapped = torch.from_file(self.file.name, size=size, dtype=self.dtype)
        return mapped.view(self.written, *self.shape)


def _assemble(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """As `save_file`, which would take all of it into memory at once."""
    entries: dict[str, Any] = {"__metadata__": {DIGESTS: digests(tensors)}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.dtype.itemsize
        entries[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape),
                      "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for tensor in tensors.values():
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
