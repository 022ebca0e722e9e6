"""Pairs of texts with a class each, and a tiny BERT."""

import random
from collections.abc import Callable
from typing import Any

import transformers as hf

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.text import TextClassification

KINDS = ("good", "bad"), ("film", "plot")
FILLERS = ["the", "a", "of", "is", "very"]


def make(fixture: Callable[[str], Any]) -> Callable[[], tuple[HuggingFace, TextClassification]]:
    """Whether both texts have the same word of a kind."""
    table = fixture("tmp_path_factory").mktemp("pairs") / "pairs.csv"
    folder = table.parent / "bert"
    draw = random.Random(0)
    lines = ["first,second,label"]
    for i in range(96):
        kind = draw.choice(KINDS)
        words = [kind[0], kind[i % 2]]
        texts = [" ".join([*draw.choices(FILLERS, k=draw.randint(1, 5)), word]) for word in words]
        lines.append(",".join([*texts, ("same", "other")[i % 2]]))
    table.write_text("\n".join(lines) + "\n")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *FILLERS, *KINDS[0], *KINDS[1]]
    hf.BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    hf.BertModel(hf.BertConfig(
        vocab_size=len(words), hidden_size=32, num_attention_heads=2, intermediate_size=48,
        num_hidden_layers=3, max_position_embeddings=32)).save_pretrained(folder)
    return lambda: (
        HuggingFace(str(folder), pooling="mean", dropout=0.0),
        TextClassification(str(table), text="first", text_pair="second", max_length=20,
                           batch_size=8),
    )
