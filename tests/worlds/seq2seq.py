"""Texts to write for texts, and a tiny T5."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from families import WORDS, tokenizer

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.seq2seq import Seq2Seq
from ftlab.tasks.sequence_to_sequence import SequenceToSequence


def make(fixture: Callable[[str], Any]) -> Callable[[], tuple[HuggingFace, Seq2Seq]]:
    folder = fixture("tmp_path_factory").getbasetemp() / "tiny_t5"
    table = folder / "pairs.csv"
    if not table.exists():  # once a session
        _save_network(folder)
        table.write_text(_pairs())
    return lambda: (
        HuggingFace(str(folder), dropout=0.0),
        Seq2Seq(str(table), max_source_length=12, max_target_length=8, batch_size=8,
                task=SequenceToSequence(max_new_tokens=4)),
    )


def _save_network(folder: Path) -> None:
    tokenizer(decoder=False).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = hf.T5Config(
            vocab_size=20, d_model=16, d_kv=8, d_ff=24, num_heads=2, num_layers=2, pad_token_id=0,
            eos_token_id=3, decoder_start_token_id=0)
        hf.T5ForConditionalGeneration(config).save_pretrained(folder)


def _pairs() -> str:
    """60 pairs; the target says the source backwards."""
    draw = random.Random(0)
    sources = [draw.choices(WORDS, k=draw.randint(2, 4)) for _ in range(60)]
    return "source,target\n" + "".join(
        f"{' '.join(words)},{' '.join(reversed(words))}\n" for words in sources)
