"""Texts with a class each, and a tiny GPT-2."""

import shutil
from collections.abc import Callable
from typing import Any

import torch
import transformers as hf

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.splits import Subset
from ftlab.data.text import TextClassification


def make(fixture: Callable[[str], Any]) -> Callable[[], tuple[HuggingFace, TextClassification]]:
    table, folder = fixture("reviews"), fixture("tmp_path_factory").mktemp("gpt2")
    for path in fixture("tiny_bert").glob("*token*"):
        shutil.copy(path, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf.GPT2LMHeadModel(hf.GPT2Config(
            vocab_size=22, n_embd=32, n_head=2, n_layer=3, n_positions=64, bos_token_id=2,
            eos_token_id=3, initializer_range=0.2, resid_pdrop=0.0, embd_pdrop=0.0,
            attn_pdrop=0.0)).save_pretrained(folder)
    return lambda: (
        HuggingFace(str(folder), pooling="mean"),
        TextClassification(str(table), max_length=32, batch_size=8,
                           subset=Subset(limit=48, splits=("train",))),
    )
