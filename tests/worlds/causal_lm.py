"""Prompts with a word to answer, and a tiny GPT-2."""

import random
from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from families import WORDS, tokenizer

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.causal_lm import CausalLM
from ftlab.tasks.language_modelling import LanguageModelling

OPPOSITE = {"good": "bad", "bad": "good"}


def make(fixture: Callable[[str], Any]) -> Callable[[], tuple[HuggingFace, CausalLM]]:
    folder = fixture("tmp_path_factory").mktemp("causal_lm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf.GPT2LMHeadModel(hf.GPT2Config(
            vocab_size=20, n_embd=32, n_head=2, n_layer=3, n_positions=40, bos_token_id=2,
            eos_token_id=3)).save_pretrained(folder)
    tokenizer(decoder=True).save_pretrained(folder)
    draw = random.Random(0)
    lines = ["text,opinion"]
    for i in range(56):
        opinion = ("good", "bad")[i % 2]
        words = draw.choices([word for word in WORDS if word not in OPPOSITE], k=draw.randint(2, 5))
        lines.append(f"{' '.join([*words, opinion])},{opinion}")
    table = folder / "prompts.csv"
    table.write_text("\n".join(lines) + "\n")
    return lambda: (
        HuggingFace(str(folder), dropout=0.0),
        CausalLM(str(table), prompt="the film was {text} not", response="{opinion}",
                 classes=OPPOSITE, max_length=16, batch_size=8,
                 task=LanguageModelling(max_new_tokens=3)),
    )
