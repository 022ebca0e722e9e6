from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch

from ftlab.backbones.new_tokens import train_rows
from ftlab.backbones.preprocessing import TextPreprocessing
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.techniques.base import LogUniform, Optimization, Technique, freeze_all_but_head

BATCHES = 16  # of training examples, in which a token of every text is looked for


class TrainableTokens(Technique):
    """Train the embeddings of a few tokens of the vocabulary, wherever they stand, and the head.

    All other embeddings stay as they are, in a tied output layer too. Take it for words whose sense
    in your texts is special, or to let the marks around each text carry a task.

    Training embeddings below a frozen network: Artetxe, Ruder, Yogatama (2019),
    https://arxiv.org/abs/1910.11856; of some tokens alone it is PEFT's.

    Args:
        tokens: as the tokenizer writes them; None for those that stand in every training text (the
            marks at its ends, a template's words).
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-3, 3e-1)}

    def __init__(
        self, tokens: list[str] | None = None, lr: float = 1e-2,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__(lr, optim)
        if tokens is not None and not tokens:
            raise ValueError("tokens must name at least one, or be null")
        self.tokens = tokens
        self.ids: list[int] = []

    def prepare(self, data: DataModule) -> None:
        self.ids = sorted(_everywhere(data) if self.tokens is None else _ids(data, self.tokens))
        if not self.ids:
            raise Incompatible("TrainableTokens: no token stands in every training text",
                               "name some: tokens: [...]")

    def adapt(self, model: TaskModel) -> None:
        freeze_all_but_head(model)
        train_rows(model.trunk, sorted({*self.ids, *model.new_ids}))


def _everywhere(data: DataModule) -> set[int]:
    """Ids that stand in each of the first training texts."""
    shared: set[int] | None = None
    with torch.random.fork_rng(devices=[]):  # what trains draws as without it
        for text in _texts(data):
            shared = text if shared is None else shared & text
    return shared or set()


def _texts(data: DataModule) -> Iterator[set[int]]:
    for batch in islice(data.with_streams(()).train_dataloader(), BATCHES):
        inputs = batch["inputs"]
        if not {"input_ids", "attention_mask"} <= inputs.keys():
            raise Incompatible("TrainableTokens needs a backbone that reads tokens",
                               "leave this technique out for this backbone")
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
            yield set(ids[mask.bool()].tolist())


def _ids(data: DataModule, tokens: list[str]) -> set[int]:
    reads = getattr(data, "preprocessing", None)
    if not isinstance(reads, TextPreprocessing):
        raise Incompatible(f"TrainableTokens: {type(data).__name__} does not say which tokenizer "
                           "reads its texts", "leave out `tokens`")
    vocabulary = reads.tokenizer.get_vocab()
    for token in tokens:
        if token not in vocabulary:
            raise Incompatible(f"TrainableTokens: the tokenizer has no token {token!r}",
                               "name tokens as it writes them; a word may be several")
    return {vocabulary[token] for token in tokens}
