"""Token ids of texts, and padded batches of them, by a network's own tokenizer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor

from ftlab.backbones.preprocessing import PairPreprocessing, TextPreprocessing, Vocabulary
from ftlab.backbones.source import reason
from ftlab.backbones.untrusted_settings import closed, read_json
from ftlab.errors import InputError

# Their position embeddings start behind the padding index (Liu et al. 2019, fairseq).
_OFFSET_POSITIONS = frozenset({
    "camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"})
_FALLBACK_LONGEST = 512  # relative positions and no limit in the tokenizer: what T5 was trained on
_UNLIMITED = 10**9  # tokens; a longest text of more stands for no limit


_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model",
          "sentencepiece.bpe.model", "tokenizer.model")


def has_tokenizer(folder: Path) -> bool:
    """Return whether there are a tokenizer's files."""
    return any((folder / name).is_file() for name in _FILES)


def load_tokenizer(folder: Path, label: str, config: Any, fast: bool = True) -> Any:
    """The folder's tokenizer, with a padding token (the end token where it has none).

    It pads on the right, whatever its folder says: padding in front would shift learned positions,
    so that a text's score depended on its neighbours in the batch. Generation moves the padding.

    Args:
        folder: with the tokenizer's files.
        label: whose, for messages.
        config: of the network that reads the tokens.
        fast: refuse one that is not; wav2vec2's, of characters, has no fast version.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    mend = "give tokenizer: a folder or hub id that has one"
    # XLNet's head reads the last place, and its positions are relative
    side = "left" if getattr(config, "summary_type", "") == "last" else "right"
    if not has_tokenizer(folder):
        raise InputError(f"{label}: no tokenizer in {folder}", mend)
    try:
        with closed():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                os.fspath(folder), padding_side=side, trust_remote_code=False)
            tokenizer.encode("text"), tokenizer.pad_token_id, tokenizer.model_max_length >= 1
    except Exception as error:  # transformers documents none, and tokenizers raises this one itself
        raise InputError(f"{label}: the tokenizer in {folder} cannot be read ({reason(error)})",
                         mend) from error
    if fast and not tokenizer.is_fast:
        raise InputError(f"{label}: the tokenizer in {folder} has no fast version", mend)
    _check_length(tokenizer, folder, label)
    _check_case(tokenizer, folder, label)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise InputError(f"{label}: its tokenizer has no padding and no end token", mend)
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _check_length(tokenizer: Any, folder: Path, label: str) -> None:
    """Refuse a longest text that is not a number of tokens; 1e30, say, stands for no limit."""
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not longest >= 1 or (longest < _UNLIMITED and longest % 1):
        raise InputError(f"{label}: model_max_length in {folder / 'tokenizer_config.json'} is "
                         f"{longest!r}", "write a number of tokens, 1 or more, or take it out")


def _check_case(tokenizer: Any, folder: Path, label: str) -> None:
    """Refuse one that makes letters small because of what a class usually does, where none is named.

    Vocabularies of BERT's kind are of both sorts, and its class takes them for small letters.
    """
    written = folder / "tokenizer_config.json"
    settings = read_json(written) if written.is_file() else {}
    if "do_lower_case" in settings or settings.get("tokenizer_class") or not tokenizer.is_fast:
        return
    whole = folder / "tokenizer.json"
    saved = Tokenizer.from_file(os.fspath(whole)) if whole.is_file() else None
    if _makes_small(tokenizer.backend_tokenizer) and (saved is None or not _makes_small(saved)):
        raise InputError(f"{label}: {written} lacks do_lower_case and names no tokenizer_class; "
                         f"{type(tokenizer).__name__} would make every letter small",
                         f'write {{"do_lower_case": true}} or false into {written.name}')


def _makes_small(tokenizer: Tokenizer) -> bool:
    return tokenizer.normalizer is not None and "A" not in tokenizer.normalizer.normalize_str("A")


def longest_text(config: Any, tokenizer: Any) -> int:
    """Tokens the network can read: by its positions, and by what its tokenizer says."""
    longest = min(tokenizer.model_max_length, positions(config) or tokenizer.model_max_length)
    return int(longest) if longest < _UNLIMITED else _FALLBACK_LONGEST


def positions(config: Any) -> int | None:
    """Tokens that a network has positions for; None where its config names no limit."""
    count = next((value for name in ("max_position_embeddings", "n_positions")
                  if isinstance(value := getattr(config, name, None), int) and value > 0), None)
    if count is not None and from_padding(config):
        return count - config.pad_token_id - 1
    return count


def from_padding(config: Any) -> bool:
    """Return whether positions count from the id of the padding token, which must stay then."""
    return config.model_type in _OFFSET_POSITIONS


def read_vocabulary(config: Any, tokenizer: Any, label: str,
                    new: Sequence[str] = ()) -> Vocabulary | None:
    """Find the tokens that the network has embeddings for; None where its config is silent.

    Args:
        config: of the network.
        tokenizer: of transformers.
        label: whose, for messages.
        new: tokens that are going to get embeddings.
    """
    rows = getattr(config, "vocab_size", None)
    if rows is None:
        rows = getattr(getattr(config, "text_config", None), "vocab_size", None)
    if not isinstance(rows, int):
        return None  # CANINE reads characters, Whisper's encoder sound
    tokens = tokenizer.get_vocab()
    rows = max([rows, *(tokens[token] + 1 for token in new if token in tokens)])
    beyond = {place: token for token, place in tokens.items() if place >= rows}
    return Vocabulary(label, len(tokens), rows, dict(sorted(beyond.items())))


def check_vocabulary(vocabulary: Vocabulary | None, tokenizer: Any) -> None:
    """Hold the tokens that stand in every batch to the network's embeddings.

    Raises:
        InputError: padding, or what the tokenizer puts around texts, has none.
    """
    if vocabulary is not None and vocabulary.lacking:
        vocabulary.check([tokenizer.pad_token_id, *tokenizer("")["input_ids"]])


def text_preprocessing(config: Any, tokenizer: Any,
                       vocabulary: Vocabulary | None = None) -> TextPreprocessing:
    """Make a tokenizer's preprocessing; it can be pickled for loader workers."""
    tokens = _Tokens(tokenizer, longest_text(config, tokenizer))
    types = ("token_type_ids" in tokenizer.model_input_names
             and (getattr(config, "type_vocab_size", None) or 0) > 1)
    between = (tokenizer.num_special_tokens_to_add(pair=True)
               > tokenizer.num_special_tokens_to_add(pair=False))
    pairs = PairPreprocessing(tokens.encode_pairs, tokens.pad_pairs, types, between)
    return TextPreprocessing(tokens.encode, tokens.pad, tokens.longest, tokenizer, pairs,
                             vocabulary)


@dataclass(frozen=True)
class _Tokens:
    tokenizer: Any
    longest: int

    def encode(self, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], int]:
        self._check(max_length)
        if not texts:
            return [], 0
        encoded = self.tokenizer(list(texts), truncation=True, max_length=max_length)
        cut = sum(bool(encoding.overflowing) for encoding in encoded.encodings)
        return encoded["input_ids"], cut

    def encode_pairs(self, pairs: Sequence[tuple[str, str]], max_length: int,
                     ) -> tuple[list[list[int]], list[list[int]], int]:
        self._check(max_length)
        if not pairs:
            return [], [], 0
        encoded = self.tokenizer(
            [first for first, _ in pairs], [second for _, second in pairs],
            truncation="longest_first", max_length=max_length, return_token_type_ids=True)
        cut = sum(bool(encoding.overflowing) for encoding in encoded.encodings)
        return encoded["input_ids"], encoded["token_type_ids"], cut

    def _check(self, max_length: int) -> None:
        if max_length > self.longest:
            raise InputError(f"max_length {max_length}: the network reads {self.longest} tokens",
                             f"set max_length to at most {self.longest}")

    def pad(self, batch: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Token types are left out: for single texts they are the network's own default."""
        lengths = np.array([len(ids) for ids in batch])
        places = np.arange(lengths.max())
        if self.tokenizer.padding_side == "left":
            places = places[::-1]
        real = places < lengths[:, None]  # (B, T)
        inputs = np.full(real.shape, self.tokenizer.pad_token_id, dtype=np.int64)
        inputs[real] = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in batch])
        return {"input_ids": torch.from_numpy(inputs),
                "attention_mask": torch.from_numpy(real.astype(np.int64))}

    def pad_pairs(self, batch: Sequence[tuple[Sequence[int], Sequence[int]]]) -> dict[str, Tensor]:
        inputs = self.pad([ids for ids, _ in batch])
        types = torch.full_like(inputs["input_ids"], self.tokenizer.pad_token_type_id)
        types[inputs["attention_mask"].bool()] = torch.tensor(
            [kind for _, types in batch for kind in types])
        return {**inputs, "token_type_ids": types}
