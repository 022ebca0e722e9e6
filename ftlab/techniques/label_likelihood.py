"""Prompts that end before a label, and how probable a language model finds each label."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.errors import InputError


@dataclass(frozen=True)
class PromptBuilder:
    """How a text becomes a prompt: demonstrations, then the text in its template.

    Attributes:
        tokenizer: transformers' fast one.
        head, tail: of the template, before and behind the text.
        demonstrations: the same for every text; may be empty.
        labels: tokens of each of the C labels, as they stand behind `tail`.
        longest: tokens that the network reads.
    """

    tokenizer: Any
    head: str
    tail: str
    demonstrations: str
    labels: list[list[int]]
    longest: int

    @cached_property
    def prefix(self) -> list[int]:
        """The token that begins every text, where there is one, and the demonstrations."""
        ids = tokenise(self.tokenizer, self.demonstrations)
        begin = self.tokenizer.bos_token_id
        starts = begin is not None and begin in self.tokenizer("")["input_ids"]
        return [begin, *ids] if starts else ids

    @cached_property
    def room(self) -> int:
        """Tokens left for a text and its template."""
        return self.longest - len(self.prefix) - max(len(label) for label in self.labels)

    def check(self) -> None:
        """Hold demonstrations and template to what the network reads.

        Raises:
            InputError: they leave no room for a text.
        """
        left = self.room - len(tokenise(self.tokenizer, self.head + self.tail))
        if left < 1:
            raise InputError(
                f"InContext: {len(self.prefix)} tokens of demonstrations and the template do not "
                f"fit into the {self.longest} that the network reads, with a text",
                "set fewer shots, or a smaller max_length of the data set")

    def query(self, ids: Sequence[int]) -> tuple[list[int], int]:
        """A text in its template, and how many of its tokens, from the left, did not fit.

        Args:
            ids: tokens of the text; special ones are dropped.
        """
        tokens = without_special(self.tokenizer, ids)
        dropped = 0
        while True:
            # tokenised as a whole: a word's token depends on the space before it
            text = self.head + decode(self.tokenizer, tokens[dropped:]) + self.tail
            prompt = tokenise(self.tokenizer, text)
            if len(prompt) <= self.room:
                return prompt, min(dropped, len(tokens))
            dropped += len(prompt) - self.room


class LabelLikelihoods(nn.Module):
    """Log-likelihoods of the labels behind a text, as a model's outputs.

    Keys and values of the demonstrations are computed once; those of a text once for all labels.

    Args:
        prompts: how texts become prompts.
        per_token: divide a label's log-likelihood by its number of tokens.

    Attributes:
        bias: subtracted from the outputs (C,).
    """

    bias: Tensor

    def __init__(self, prompts: PromptBuilder, per_token: bool) -> None:
        super().__init__()
        self.prompts = prompts
        self.per_token = per_token
        self.register_buffer("bias", torch.zeros(len(prompts.labels)))
        self._begun: tuple[torch.device, Any] | None = None

    def forward(self, network: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        """Outputs (B, C) for a batch of tokenised texts."""
        inputs = batch["inputs"]
        rows = zip(inputs["input_ids"].tolist(), inputs["attention_mask"].tolist(), strict=True)
        texts = [[token for token, real in zip(*row, strict=True) if real] for row in rows]
        device = inputs["input_ids"].device
        scores = self.score(network, [self.prompts.query(text)[0] for text in texts], device)
        return scores - self.bias

    def score(self, network: nn.Module, queries: Sequence[list[int]],
              device: torch.device) -> Tensor:
        """Log-likelihoods of the labels (B, C) behind the demonstrations and each query."""
        ids, mask = _padded(queries, self.prompts.tokenizer.pad_token_id, device, left=True)
        begun = self._prefix(network, device)
        if begun is not None:
            begun = copy.deepcopy(begun)  # what follows is appended in place
            begun.batch_repeat_interleave(len(ids))
        mask = torch.cat([mask.new_ones(len(mask), len(self.prompts.prefix)), mask], dim=1)
        output = _run(network, ids, mask, begun, last=1)
        following = output.logits[:, -1].float().log_softmax(dim=-1)  # (B, V)
        scores = following[:, [label[0] for label in self.prompts.labels]]  # (B, C)
        if any(len(label) > 1 for label in self.prompts.labels):
            scores = scores + self._rest(network, mask, output.past_key_values)
        lengths = scores.new_tensor([len(label) for label in self.prompts.labels])
        return scores / lengths if self.per_token else scores

    def _rest(self, network: nn.Module, mask: Tensor, begun: Any) -> Tensor:
        """Log-likelihoods (B, C) of the labels' second and further tokens."""
        labels = self.prompts.labels
        several = [c for c, label in enumerate(labels) if len(label) > 1]
        pad, texts = self.prompts.tokenizer.pad_token_id, len(mask)
        ids, real = _padded([labels[c][:-1] for c in several], pad, mask.device, left=False)
        wanted, _ = _padded([labels[c][1:] for c in several], pad, mask.device, left=False)
        ids, real, wanted = (t.repeat(texts, 1) for t in (ids, real, wanted))  # (B M, L - 1)
        begun.batch_repeat_interleave(len(several))
        mask = torch.cat([mask.repeat_interleave(len(several), dim=0), real], dim=1)
        output = _run(network, ids, mask, begun, last=0)
        logs = output.logits.float().log_softmax(dim=-1).gather(-1, wanted[..., None])[..., 0]
        scores = logs.new_zeros(texts, len(labels))
        scores[:, several] = (logs * real).sum(dim=1).unflatten(0, (texts, len(several)))
        return scores

    def _prefix(self, network: nn.Module, device: torch.device) -> Any:
        """Keys and values of the demonstrations; None where there are none."""
        if not self.prompts.prefix:
            return None
        if self._begun is None or self._begun[0] != device:
            ids = torch.tensor([self.prompts.prefix], device=device)
            with torch.no_grad():
                output = _run(network, ids, torch.ones_like(ids), None, last=1)
            self._begun = device, output.past_key_values
        return self._begun[1]


def tokenise(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a part of a prompt, without special ones."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def without_special(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """Tokens of a text without those that the tokenizer puts around every text."""
    # not all of them need be declared special
    added = {*tokenizer("")["input_ids"], *tokenizer.all_special_ids}
    return [token for token in ids if token not in added]


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of tokens, as it was before it was tokenised."""
    text: str = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return text


def _padded(rows: Sequence[list[int]], pad: int, device: torch.device,
            left: bool) -> tuple[Tensor, Tensor]:
    """Token ids and mask (N, T)."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(len(row))
        ids[i, place], mask[i, place] = torch.tensor(row), 1
    return ids.to(device), mask.to(device)


def _run(network: nn.Module, ids: Tensor, mask: Tensor, begun: Any, last: int) -> Any:
    """The network with its cache, which counts positions by the mask (`CausalModel`).

    Args:
        network: the language model.
        ids: tokens (N, T).
        mask: 1 for real tokens, those of `begun` in front (N, P + T).
        begun: keys and values of P tokens; is appended to.
        last: how many positions' logits, 0 for all; spares most of the output layer.
    """
    fewer = "logits_to_keep" in inspect.signature(network.forward).parameters
    return network(input_ids=ids, attention_mask=mask, past_key_values=begun, use_cache=True,
                   **({"logits_to_keep": last} if fewer else {}))
