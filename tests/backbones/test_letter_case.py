"""Vocabularies of BERT's kind are of capital and small letters or of small ones alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from ftlab.backbones.text_preprocessing import load_tokenizer
from ftlab.errors import InputError

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Good", "good"]


def written(folder: Path, config: dict[str, Any] | None, lowercase: bool | None = None) -> Path:
    """A folder with `vocab.txt`, or a `tokenizer.json` that lowercases or does not."""
    hf.BertConfig(vocab_size=len(VOCABULARY)).save_pretrained(folder)
    if lowercase is None:
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    else:
        raw = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCABULARY)},
                                         unk_token="[UNK]"))
        raw.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        raw.save(str(folder / "tokenizer.json"))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("config", "lowercase", "token"), [
    ({"do_lower_case": False}, None, "Good"), ({"do_lower_case": True}, None, "good"),
    ({"tokenizer_class": "BertTokenizer"}, None, "good"),  # the class's own default
    (None, True, "good")])
def test_told__by_the_files_or_their_class(config: dict[str, Any] | None, lowercase: bool | None,
                                           token: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(written(tmp_path, config, lowercase), "it", hf.BertConfig())
    assert tokenizer.tokenize("Good") == [token]


@pytest.mark.parametrize(("config", "lowercase"), [(None, None), ({}, None), (None, False)])
def test_untold__is_refused(config: dict[str, Any] | None, lowercase: bool | None,
                            tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lacks do_lower_case and names no tokenizer_class"):
        load_tokenizer(written(tmp_path, config, lowercase), "it", hf.BertConfig())
