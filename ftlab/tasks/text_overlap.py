"""How much a written text is like its reference: exact match, ROUGE and BLEU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor
from torchmetrics.text import ROUGEScore, SacreBLEUScore

Tokenisation = Literal["13a", "intl", "zh", "char", "none"]


class Rouge(ROUGEScore):
    """F measures of shared words, word pairs and the longest common subsequence.

    Lin (2004), https://aclanthology.org/W04-1013. As in rouge_score: lower case, the characters
    a-z and 0-9 alone, no stemming, the mean over examples. Other scripts score 0.
    """

    def __init__(self) -> None:
        super().__init__(rouge_keys=("rouge1", "rouge2", "rougeL"))

    def update(  # type: ignore[override]  # a task's target, not lists of references
            self, texts: Sequence[str], target: Mapping[str, Any]) -> None:
        """Compare texts with `target["text"]`."""
        super().update(list(texts), [[text] for text in target["text"]])

    def compute(self) -> dict[str, Tensor]:
        """`rouge1`, `rouge2`, `rougeL`."""
        computed = super().compute()
        return {name: computed[f"{name}_fmeasure"] for name in ("rouge1", "rouge2", "rougeL")}


class Bleu(SacreBLEUScore):
    """BLEU-4 over the whole split, from 0 to 1, without smoothing.

    Papineni et al. (2002), https://aclanthology.org/P02-1040; tokenised as sacreBLEU does, Post
    (2018), https://arxiv.org/abs/1804.08771. One wholly unmatched order makes it 0.

    Args:
        tokenisation: of sacreBLEU: 13a (its default), intl, zh, char, or none (whitespace).
    """

    def __init__(self, tokenisation: Tokenisation = "13a") -> None:
        super().__init__(tokenize=tokenisation)

    def update(  # type: ignore[override]  # a task's target, not lists of references
            self, texts: Sequence[str], target: Mapping[str, Any]) -> None:
        """Compare texts with `target["text"]`."""
        super().update(list(texts), [[text] for text in target["text"]])
