"""Texts with masked tokens, and a tiny BERT without an output layer of its own."""

from collections.abc import Callable
from typing import Any

from masked import save_bert

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.masked_lm import MaskedLM


def make(fixture: Callable[[str], Any]) -> Callable[[], tuple[HuggingFace, MaskedLM]]:
    folder = save_bert(fixture("tmp_path_factory").mktemp("masked_lm"))
    table = folder / "texts.csv"
    pairs = [("good", "film"), ("bad", "plot")]
    lines = [f"the {noun} is {word} and {word} {noun} was,{word}" for word, noun in pairs * 24]
    table.write_text("\n".join(["text,label", *lines]) + "\n")
    return lambda: (HuggingFace(str(folder), pooling="mean", dropout=0.0),
                    MaskedLM(str(table), max_length=16, batch_size=8))
