"""Tokens that a checkpoint's vocabulary lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ftlab.errors import InputError


def add_tokens(tokenizer: Any, tokens: Sequence[str], label: str) -> None:
    """Add whole tokens, each matched before the text around it is tokenised.

    Raises:
        InputError: the vocabulary has one of them already.
    """
    known = tokenizer.get_vocab()
    for token in tokens:
        if token in known:
            raise InputError(f"{label}: {token!r} of new_tokens is in its vocabulary already",
                             "leave it out of new_tokens")
    tokenizer.add_tokens(list(tokens))


def add_embeddings(network: Any, ids: Sequence[int]) -> None:
    """Give new tokens the mean of the old embeddings (Hewitt 2021), in and out.

    https://nlp.stanford.edu/~johnhew/vocab-expansion.html: with the mean, the other tokens'
    probabilities hardly change. It draws nothing at random, so a fresh build has the same rows
    and a checkpoint needs them only where a technique trains them.

    Args:
        network: of transformers.
        ids: of the new tokens; rows in front of the first are the old ones.
    """
    old = min(ids)
    rows = network.get_input_embeddings().num_embeddings
    if max(ids) >= rows:
        with torch.random.fork_rng(devices=[]):
            network.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    tables = [network.get_input_embeddings(), network.get_output_embeddings()]
    with torch.no_grad():
        for table in (part for part in tables if isinstance(part, nn.Embedding | nn.Linear)):
            for tensor in (table.weight, getattr(table, "bias", None)):
                if tensor is not None:
                    tensor[list(ids)] = tensor[:old].float().mean(dim=0).to(tensor.dtype)
