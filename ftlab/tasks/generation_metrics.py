"""Likeness of a written text and its reference: ROUGE and BLEU."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import regex
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.text import rouge_score
from torchmetrics.text import SacreBLEUScore

Tokenisation = Literal["13a", "intl", "zh", "char", "none"]
ROUGE = ("rouge1", "rouge2", "rougeL")
BLEU_ORDER = 4
"""Length of the longest runs of tokens that BLEU counts."""

# Scripts that write no space between words: a character with its marks stands for a word.
_SPACELESS = "".join(rf"\p{{{script}}}" for script in (
    "Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"))
_WORD = regex.compile(rf"[{_SPACELESS}]\p{{M}}*|(?:[\p{{L}}\p{{N}}--[{_SPACELESS}]]\p{{M}}*)+",
                      regex.VERSION1)


def words(text: str) -> list[str]:
    """Words of a text in any script: lower-case runs of letters, marks and digits.

    Of ASCII texts they are those of the package rouge_score, which reads a-z and 0-9 alone. In
    scripts without spaces between words every character is one, as is usual for Chinese.
    """
    return _WORD.findall(unicodedata.normalize("NFC", text).lower())


class Rouge(Metric):
    """F measures of shared words, word pairs and the longest common subsequence.

    Lin (2004), https://aclanthology.org/W04-1013. As in rouge_score: lower case, no stemming,
    the mean over examples; `words` says what a word is.

    torchmetrics' own class keeps every example's scores, and gathers them one by one: processes
    with unequal numbers of examples would wait for each other for ever.
    """

    full_state_update = False
    sums: Tensor
    examples: Tensor

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(len(ROUGE), dtype=torch.float32)
        self.add_state("sums", zeros, dist_reduce_fx="sum")
        self.add_state("examples", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, texts: Sequence[str], target: Mapping[str, Any]) -> None:
        """Compare texts with `target["text"]`."""
        # `words` has normalised already, where torchmetrics would drop all but a-z and 0-9
        means = rouge_score(list(texts), [[text] for text in target["text"]], rouge_keys=ROUGE,
                            normalizer=str, tokenizer=words)
        for i, name in enumerate(ROUGE):
            self.sums[i] += len(texts) * means[f"{name}_fmeasure"].to(self.sums.device)
        self.examples += len(texts)

    def compute(self) -> dict[str, Tensor]:
        """`rouge1`, `rouge2`, `rougeL`."""
        return dict(zip(ROUGE, self.sums / self.examples, strict=True))


class Bleu(SacreBLEUScore):
    """BLEU-4 over the whole split, from 0 to 1, without smoothing.

    Papineni et al. (2002), https://aclanthology.org/P02-1040; tokenised as sacreBLEU does, Post
    (2018), https://arxiv.org/abs/1804.08771. One wholly unmatched order makes it 0.

    Args:
        tokenisation: of sacreBLEU: 13a (its default), intl, zh, char, or none (whitespace).
    """

    def __init__(self, tokenisation: Tokenisation = "13a") -> None:
        super().__init__(n_gram=BLEU_ORDER, tokenize=tokenisation)

    def update(  # type: ignore[override]  # a task's target, not lists of references
            self, texts: Sequence[str], target: Mapping[str, Any]) -> None:
        """Compare texts with `target["text"]`."""
        super().update(list(texts), [[text] for text in target["text"]])
