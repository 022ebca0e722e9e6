"""Tokens that a checkpoint's vocabulary lacks, and embeddings of theirs that train.

The rows of new tokens are W[ids] + delta. The delta (N, D) is a parameter beside the embedding's
own weight, so that whatever a technique freezes, these rows train and nothing else of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ftlab.errors import Incompatible, InputError

DELTA = "new_tokens"
"""Name of the parameter, in the embedding and in an output layer."""
_IDS, _HOOK = "new_token_ids", "_new_tokens_hook"
_SPREAD = 0.1  # of the noise on a row's start, in deviations of the old rows


def add_tokens(tokenizer: Any, tokens: Sequence[str], label: str,
               rows: int) -> dict[str, list[int]]:
    """Add whole tokens, each matched before the text around it is tokenised.

    Args:
        tokenizer: of transformers, which is changed; it may have tokens without an embedding.
        tokens: what to add.
        label: whose tokenizer, for messages.
        rows: embeddings that the network has.

    Returns:
        For each token the ids of what it was made of before.

    Raises:
        InputError: the vocabulary has one of them already.
    """
    vocabulary = tokenizer.get_vocab()
    for token in tokens:
        if vocabulary.get(token, rows) < rows:
            raise InputError(f"{label}: {token!r} of new_tokens is in its vocabulary already",
                             "leave it out of new_tokens")
    pieces = {token: [piece for piece in tokenizer(token, add_special_tokens=False)["input_ids"]
                      if piece < rows and piece != tokenizer.unk_token_id] for token in tokens}
    tokenizer.add_tokens(list(tokens))
    return pieces


def add_embeddings(network: Any, pieces: Mapping[int, Sequence[int]], label: str) -> list[int]:
    """Give new tokens the mean of their pieces' embeddings, in and out, each a little apart.

    Of a token that had no known pieces it is the mean of all, with which the other tokens'
    probabilities hardly change (Hewitt 2021,
    https://nlp.stanford.edu/~johnhew/vocab-expansion.html). Noise that separates tokens of the same
    pieces apart depends on the token's id alone, so that a fresh build has the same rows.

    Args:
        network: of transformers.
        pieces: of each new token, by its id; may be empty.
        label: for messages.

    Returns:
        Ids of all rows that are new: these, and those between the old rows and the last of them.

    Raises:
        Incompatible: the network reads no tokens.
    """
    try:
        table = network.get_input_embeddings()
    except NotImplementedError:
        table = None
    if not isinstance(table, nn.Embedding):
        raise Incompatible(f"{label}: new_tokens need a network that reads tokens",
                           "leave out new_tokens")
    rows, last = table.num_embeddings, max(pieces)
    if last >= rows:
        with torch.random.fork_rng(devices=[]):
            network.resize_token_embeddings(last + 1, mean_resizing=False)
    ids = sorted({*pieces, *range(rows, last + 1)})
    old = min(ids)
    tables = [network.get_input_embeddings(), network.get_output_embeddings()]
    with torch.no_grad():
        for table in (part for part in tables if isinstance(part, nn.Embedding | nn.Linear)):
            for tensor in (table.weight, getattr(table, "bias", None)):
                if tensor is not None and not tensor.is_meta:
                    _start(tensor, ids, pieces, old)
    return ids


def _start(tensor: Tensor, ids: Sequence[int], pieces: Mapping[int, Sequence[int]],
           old: int) -> None:
    """Fill rows of an embedding, or entries of an output layer's bias."""
    trained = tensor[:old].float()
    mean, deviation = trained.mean(dim=0), trained.std(dim=0)
    for place in ids:
        known_pieces = [piece for piece in pieces.get(place, ()) if piece < old]
        start = trained[known_pieces].mean(dim=0) if known_pieces else mean
        if tensor.ndim > 1:
            seed = int.from_bytes(hashlib.sha256(str(place).encode()).digest()[:7], "big")
            noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(seed))
            start = start + _SPREAD * deviation * noise
        tensor[place] = start.to(tensor.dtype)


def train_rows(network: Any, ids: Sequence[int], anyway: bool = False) -> None:
    """Let the embeddings of new tokens train where a technique has frozen the rest.

    Args:
        network: adapted, of transformers.
        ids: of the new tokens.
        anyway: also where the whole embedding trains, since it may be frozen later.
    """
    deltas: dict[int, nn.Parameter] = {}
    for table in _tables(network):
        weight: Tensor = table.weight
        if weight.requires_grad and not anyway:
            continue
        if DELTA in table._parameters:
            continue  # the technique itself trains rows, the new ones among them
        if id(weight) not in deltas:  # tied tables share it, as they share their weight
            deltas[id(weight)] = nn.Parameter(
                torch.zeros(len(ids), weight.shape[1], device=weight.device))
        table.register_parameter(DELTA, deltas[id(weight)])
        table.register_buffer(_IDS, torch.tensor(ids, device=weight.device), persistent=False)
        reads = isinstance(weight_owner(table), nn.Embedding)
        setattr(table, _HOOK, table.register_forward_hook(_read if reads else _write))


def thaw(network: nn.Module) -> None:
    """Let new tokens train on where a technique has just frozen the block that they lie in."""
    for name, parameter in network.named_parameters():
        if is_delta(name):
            parameter.requires_grad_(True)


def is_delta(name: str) -> bool:
    """Return whether a name is that of a parameter of new tokens' embeddings."""
    return name.rpartition(".")[2] == DELTA


def fold(network: nn.Module) -> None:
    """Write what new tokens have learned into the embeddings' own weights; outputs stay."""
    folded: set[int] = set()
    with torch.no_grad():
        for table in [m for m in network.modules() if DELTA in m._parameters]:
            weight: Any = table.weight
            if id(weight) not in folded:
                folded.add(id(weight))
                rows = table.get_buffer(_IDS)
                changed = weight[rows].float() + table.get_parameter(DELTA)
                weight[rows] = changed.to(weight.dtype)
            getattr(table, _HOOK).remove()
            for name in (DELTA, _IDS, _HOOK):
                delattr(table, name)


def _tables(network: Any) -> list[Any]:
    """Modules with the weight of the embedding or of the output layer, around it where wrapped."""
    ends = [network.get_input_embeddings(), network.get_output_embeddings()]
    weights = {id(end.weight) for end in ends if isinstance(getattr(end, "weight", None), Tensor)}
    chosen: dict[str, Any] = {}
    for path, module in network.named_modules():
        within = any(path.startswith(f"{outer}.") for outer in chosen)
        if not within and id(getattr(module, "weight", None)) in weights:
            chosen[path] = module
    return list(chosen.values())


def weight_owner(table: Any) -> nn.Module:
    """The embedding or layer itself, within what PEFT may have put around it."""
    owner: nn.Module = table.get_base_layer() if hasattr(table, "get_base_layer") else table
    return owner


def _read(table: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
    """Embeddings (..., D) of token ids, those of new tokens with their deltas."""
    ids, delta = getattr(table, _IDS), getattr(table, DELTA)
    place = torch.searchsorted(ids, args[0]).clamp(max=len(ids) - 1)
    is_new = (ids[place] == args[0]).unsqueeze(-1)
    added = nn.functional.embedding(place, delta) * is_new
    scale = getattr(weight_owner(table), "embed_scale", 1.0)  # BART's and Gemma's own
    return (output + added * scale).to(output.dtype)


def _write(table: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
    """Logits (..., V), those of new tokens with what their deltas add."""
    ids, delta = getattr(table, _IDS), getattr(table, DELTA)
    added = nn.functional.linear(args[0].to(delta.dtype), delta)
    return output.index_add(-1, ids, added.to(output.dtype))
