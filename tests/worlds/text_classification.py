"""Texts with a class each, and a tiny BERT."""

from collections.abc import Callable
from typing import Any

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.text import TextClassification


def make(fixture: Callable[[str], Any]) -> Callable[[], tuple[HuggingFace, TextClassification]]:
    folder, table = fixture("tiny_bert"), fixture("reviews")
    return lambda: (
        HuggingFace(str(folder), pooling="mean", dropout=0.0),
        TextClassification(str(table), max_length=20, batch_size=8),
    )
