"""Token ids on disk: texts are tokenised once a machine, and mapped by every run after.

One file a list of texts and what is made of them, below `$FTLAB_CACHE/tokens`, named by a hash of
the texts, the tokenizer, what was asked of it, the code that asked, and versions: safetensors with
the lists of each name in one tensor, where each list ends, and their digests.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from ftlab.backbones.cache_folder import (
    damaged,
    folder,
    locked,
    make_room,
    mark_read,
    may_add,
)
from ftlab.backbones.digest import DIGESTS, Damaged, digests, mapped
from ftlab.backbones.preprocessing import TextPreprocessing
from ftlab.data.base import DataModule
from ftlab.data.ragged import Ragged, lengths
from ftlab.files import replacing

FEW = 4096  # characters of what is asked: below it, tokenising is quicker than knowing the tokenizer
_ENDS, _CUT = ".ends", ".cut"


class Tokenised(NamedTuple):
    """The tokens of texts.

    Attributes:
        columns: by name, lists of integers: token ids and what belongs to them.
        cut: how many texts were too long.
    """

    columns: Mapping[str, Sequence[Sequence[int]]]
    cut: int = 0


class TokenCache:
    """The tokens of a data module's texts, read from disk where they were made before.

    Two processes that want the same make it once. Nothing is kept without shortcuts, where there
    is no tokenizer to name them by, where there is little to tokenise, and where the disk refuses,
    of which the module takes a note.

    Args:
        module: whose texts they are.
        preprocessing: of the backbone.
    """

    def __init__(self, module: DataModule, preprocessing: TextPreprocessing) -> None:
        self.module = module
        self.tokenizer = preprocessing.tokenizer
        self.encode = preprocessing.encode
        self.pairs = preprocessing.pairs
        self.vocabulary = preprocessing.vocabulary

    def encoded(self, texts: Sequence[str], max_length: int) -> Tokenised:
        """`ids` of each text, as `TextPreprocessing.encode`."""
        def make() -> Tokenised:
            ids, cut = self.encode(texts, max_length)
            return Tokenised({"ids": ids}, cut)

        return self._kept(self.encode, (texts, max_length), make)

    def encoded_pairs(self, pairs: Sequence[tuple[str, str]], max_length: int) -> Tokenised:
        """`ids` and `types` of each pair, as `PairPreprocessing.encode`."""
        assert self.pairs is not None
        encode = self.pairs.encode

        def make() -> Tokenised:
            ids, types, cut = encode(pairs, max_length)
            return Tokenised({"ids": ids, "types": types}, cut)

        return self._kept(encode, (pairs, max_length), make)

    def made(self, make: Callable[..., Tokenised], *arguments: Any) -> Tokenised:
        """`make(tokenizer, *arguments)`.

        Args:
            make: of what it is given alone, and of other code in its own module alone; whatever
                that module says is part of the file's name.
            arguments: texts, numbers and lists of these.
        """
        return self._kept(make, arguments, lambda: make(self.tokenizer, *arguments))

    def check(self, split: str, *columns: Sequence[Sequence[int]]) -> None:
        """Hold the token ids of a split to the embeddings that the network has.

        Raises:
            InputError: an id is beyond them.
        """
        if self.vocabulary is not None and self.vocabulary.lacking:
            self.vocabulary.check(chain.from_iterable(chain(*columns)), f"{split} split")

    def _kept(self, code: Callable[..., Any], arguments: Sequence[Any],
              make: Callable[[], Tokenised]) -> Tokenised:
        if self.module.plain or getattr(self.tokenizer, "backend_tokenizer", None) is None:
            return make()
        asked = json.dumps(arguments, ensure_ascii=False)
        if len(asked) < FEW:
            return make()
        where = folder("tokens")
        try:
            path = where / f"{self._key(code, asked)}.safetensors"
            if kept := _open(path):
                return kept
            if not may_add():
                return make()
            where.mkdir(parents=True, exist_ok=True)
            with locked(path.with_suffix(".lock")):
                if kept := _open(path, say=True):  # another process has made it meanwhile
                    return kept
                made = make()
                _write(path, made)
                return made
        except OSError as error:
            self.module.note(f"token ids are not kept: {where}: {error.strerror or error}")
            return make()

    def _key(self, code: Callable[..., Any], asked: str) -> str:
        """Hash all that the ids follow from."""
        facts = json.dumps([code.__qualname__, inspect.getsource(sys.modules[code.__module__]),
                           self._tokenizer, _hashed(asked)])
        return _hashed(facts)[:32]

    @cached_property
    def _tokenizer(self) -> str:
        """Hash of all that the tokenizer is."""
        tokenizer = self.tokenizer
        described = tokenizer.backend_tokenizer.to_str()
        return _hashed(json.dumps([
            # in front of this stands how the last call wanted its texts cut and padded
            described[described.index('"added_tokens"'):], type(tokenizer).__name__,
            tokenizer.truncation_side, tokenizer.split_special_tokens,
            {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
            tokenizer.chat_template, getattr(tokenizer, "tgt_lang", None),
            transformers.__version__, tokenizers.__version__,
        ]))


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _open(path: Path, say: bool = False) -> Tokenised | None:
    """The file, mapped; None where it is missing, or not what was written, which can be said."""
    try:
        tensors = mapped(path)
        mark_read(path)
    except FileNotFoundError:
        return None
    except Damaged as error:
        if say:
            damaged(str(error))
        return None
    cut = int(tensors.pop(_CUT))
    return Tokenised({name: Ragged(values, tensors[name + _ENDS])
                      for name, values in tensors.items() if not name.endswith(_ENDS)}, cut)


def _write(path: Path, made: Tokenised) -> None:
    tensors = dict(chain.from_iterable(_tensors(*column) for column in made.columns.items()))
    tensors[_CUT] = torch.tensor(made.cut)
    with replacing(path, locked=True) as work:
        save_file(tensors, work, {DIGESTS: digests(tensors)})
        make_room(work.stat().st_size)


def _tensors(name: str, rows: Sequence[Sequence[int]]) -> Iterator[tuple[str, Tensor]]:
    """A column's values, in a byte each where they fit, and where each of its lists ends."""
    ends = torch.tensor(lengths(rows), dtype=torch.int64).cumsum(0)
    values = np.fromiter(chain.from_iterable(rows), np.int32, sum(lengths(rows)))
    small = values.size > 0 and values.min() >= 0 and values.max() < 256
    yield name, torch.from_numpy(values.astype(np.uint8) if small else values)
    yield name + _ENDS, ends
