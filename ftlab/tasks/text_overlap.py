"""How much a written text is like its reference: exact match, ROUGE and BLEU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.text import rouge_score
from torchmetrics.text import SacreBLEUScore

Tokenisation = Literal["13a", "intl", "zh", "char", "none"]
ROUGE = ("rouge1", "rouge2", "rougeL")


class Rouge(Metric):
    """F measures of shared words, word pairs and the longest common subsequence.

    Lin (2004), https://aclanthology.org/W04-1013. As in rouge_score: lower case, the characters
    a-z and 0-9 alone, no stemming, the mean over examples. Other scripts score 0.

    torchmetrics' own class keeps every example's scores, and gathers them one by one: processes
    with unequal numbers of examples would wait for each other for ever.
    """

    higher_is_better = True
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
        means = rouge_score(list(texts), [[text] for text in target["text"]], rouge_keys=ROUGE)
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
        super().__init__(tokenize=tokenisation)

    def update(  # type: ignore[override]  # a task's target, not lists of references
            self, texts: Sequence[str], target: Mapping[str, Any]) -> None:
        """Compare texts with `target["text"]`."""
        super().update(list(texts), [[text] for text in target["text"]])
