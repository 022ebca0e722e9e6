"""Token ids on disk: texts are tokenised once a machine, and mapped by every run after.

One file a list of texts below `$FTLAB_CACHE/tokens`, named by a hash of the texts, the tokenizer,
the longest length and versions: safetensors with all ids in one tensor, where each text's begin,
and a checksum.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import tokenizers
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ftlab.backbones.cache_folder import folder, locked, make_room, may_add
from ftlab.backbones.preprocessing import TextPreprocessing
from ftlab.data.base import DataModule

FEW = 4096  # characters of all texts: below it, tokenising is quicker than knowing the tokenizer


class Tokens(Sequence[list[int]]):
    """The token ids of each text, in a file that is mapped and not read.

    Args:
        ids: of all texts, one after another.
        ends: where each text's end, in `ids`.
    """

    def __init__(self, ids: Tensor, ends: Tensor) -> None:
        self.ids, self.ends = ids, ends.tolist()

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...

    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...

    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        begin = self.ends[index - 1] if index else 0
        found: list[int] = self.ids[begin : self.ends[index]].tolist()
        return found


def tokens_of(
    module: DataModule, texts: Sequence[str], preprocessing: TextPreprocessing, max_length: int
) -> tuple[Sequence[list[int]], int]:
    """As `preprocessing.encode`, from disk where the same was asked before.

    Two processes that want the same make it once. Nothing is kept without shortcuts, where there
    is no tokenizer to know it by, where there is little to tokenise, and where the disk refuses,
    of which the module takes a note.
    """
    tokenizer = preprocessing.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if module.plain or backend is None or sum(map(len, texts)) < FEW:
        return preprocessing.encode(texts, max_length)
    path = folder("tokens") / f"{_key(texts, tokenizer, max_length)}.safetensors"
    if found := _open(path):
        return found
    if not may_add():
        return preprocessing.encode(texts, max_length)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):
            if found := _open(path):  # another process has made it meanwhile
                return found
            made = preprocessing.encode(texts, max_length)
            _write(path, *made)
            return made
    except OSError as error:
        module.note(f"token ids are not kept: {path.parent}: {error.strerror or error}")
        return preprocessing.encode(texts, max_length)


def _key(texts: Sequence[str], tokenizer: Any, max_length: int) -> str:
    """Of all that the ids follow from."""
    said = tokenizer.backend_tokenizer.to_str()
    parts = [
        # in front of this stands how the last call wanted its texts cut and padded
        said[said.index('"added_tokens"') :], type(tokenizer).__name__, tokenizer.truncation_side,
        max_length, transformers.__version__, tokenizers.__version__,
    ]
    whole = hashlib.sha256()
    for part in (*map(str, parts), *texts):
        encoded = part.encode("utf-8", "surrogatepass")
        # the length keeps neighbouring texts apart
        whole.update(len(encoded).to_bytes(8, "little") + encoded)
    return whole.hexdigest()[:32]


def _open(path: Path) -> tuple[Tokens, int] | None:
    """The file, mapped; None where it is missing, or not what was written."""
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
            ids, ends = file.get_tensor("ids"), file.get_tensor("ends")
        cut, checksum = said["cut"], said["crc32"]
        if _checksum(ids, ends, cut) != checksum:
            return None
        os.utime(path)  # the last that is evicted
    except (OSError, SafetensorError, KeyError):
        return None
    return Tokens(ids, ends), int(cut)


def _write(path: Path, tokens: Sequence[Sequence[int]], cut: int) -> None:
    ids = torch.tensor([token for text in tokens for token in text], dtype=torch.int32)
    ends = torch.tensor([len(text) for text in tokens]).cumsum(0)
    said = {"cut": str(cut), "crc32": _checksum(ids, ends, str(cut))}
    work = path.with_suffix(".making")
    save_file({"ids": ids, "ends": ends}, work, said)
    make_room(work.stat().st_size)
    os.replace(work, path)


def _checksum(ids: Tensor, ends: Tensor, cut: str) -> str:
    found = zlib.crc32(cut.encode())
    for tensor in (ids, ends):
        found = zlib.crc32(tensor.numpy().data, found)
    return str(found)
