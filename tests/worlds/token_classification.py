"""Words with a tag each, and a tiny BERT."""

import random
from collections.abc import Callable
from typing import Any

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.token_classification import TokenClassification

ENTITIES = {"PRAISE": [["good"], ["fine"], ["very", "great"]],
            "BLAME": [["bad"], ["quite", "poor"], ["very", "very", "awful"]]}
OTHER = ["film", "plot", "cast", "the", "a", "of", "and", "was"]


def make(fixture: Callable[[str], Any]) -> Callable[[], tuple[HuggingFace, TokenClassification]]:
    folder = fixture("tiny_bert")
    corpus = fixture("tmp_path_factory").getbasetemp() / "corpus.conll"
    if not corpus.exists():  # once a session
        corpus.write_text(_sentences())
    return lambda: (
        HuggingFace(str(folder), dropout=0.0),
        TokenClassification(str(corpus), max_length=20, batch_size=8),
    )


def _sentences() -> str:
    """60 sentences with an entity each."""
    draw = random.Random(0)
    blocks = []
    for i in range(60):
        kind = list(ENTITIES)[i % 2]
        entity = draw.choice(ENTITIES[kind])
        words = [(word, "O") for word in draw.choices(OTHER, k=draw.randint(2, 8))]
        at = draw.randint(0, len(words))
        words[at:at] = [(word, f"{'BI'[i > 0]}-{kind}") for i, word in enumerate(entity)]
        blocks.append("".join(f"{word} {tag}\n" for word, tag in words))
    return "\n".join(blocks)
