"""Texts with any number of labels each, and a tiny BERT."""

import random
from collections.abc import Callable
from typing import Any

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.text import TextClassification
from ftlab.tasks.multi_label import MultiLabel

SIGNS = {"good": "praise", "bad": "blame", "film": "work", "cast": "people"}


def make(fixture: Callable[[str], Any]) -> Callable[[], tuple[HuggingFace, TextClassification]]:
    folder, table = fixture("tiny_bert"), fixture("tmp_path_factory").mktemp("labels") / "all.csv"
    draw = random.Random(0)
    lines = ["text,label"]
    for _ in range(80):
        words = draw.sample([*SIGNS, "the", "a", "of", "was", "very"], draw.randint(2, 5))
        lines.append(f"{' '.join(words)},{'|'.join(SIGNS[w] for w in words if w in SIGNS) or '-'}")
    table.write_text("\n".join(lines) + "\n")
    return lambda: (
        HuggingFace(str(folder), pooling="mean", dropout=0.0),
        TextClassification(str(table), max_length=16, batch_size=8, task=MultiLabel(nothing="-")),
    )
