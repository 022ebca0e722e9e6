"""Token ids of prompts, responses and plain texts, as a language model reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ftlab.data.examples import Examples
from ftlab.errors import Incompatible, InputError


class Pair(NamedTuple):
    """Token ids to read, ids to write behind them, and the latter's text."""

    prompt: list[int]
    response: list[int]
    text: str


def pairs_of(examples: Examples, tokenizer: Any, longest: int, chat: bool,
             where: str) -> tuple[list[Pair], int]:
    """Prompts and responses as token ids, and how many prompts were cut.

    The two are tokenised apart, so that a prompt has the same tokens whether a response follows
    or is to be generated. A response ends with the end token. A prompt is cut from its left,
    behind the tokenizer's first token.

    Args:
        examples: prompts and targets.
        tokenizer: transformers' own.
        longest: tokens of both together.
        chat: whether prompts go into the chat template.
        where: the split, for messages.

    Raises:
        Incompatible: the tokenizer has no end token, or no chat template.
        InputError: a response leaves no room for a prompt.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise Incompatible("CausalLM needs an end token, or no answer would end; this tokenizer "
                           "has none", "choose a tokenizer with eos_token")
    prompts = (_chat if chat else _plain)(examples.inputs, tokenizer)
    responses = _ids(examples.targets, tokenizer, special=False)
    pairs, cut = [], 0
    for place, prompt, response, text in zip(examples.ids, prompts, responses, examples.targets,
                                             strict=True):
        room = longest - len(response) - 1
        if room < 1:
            raise InputError(f"{where}, {place}: the response has {len(response) + 1} tokens, and "
                             f"max_length is {longest}", "set max_length higher, or remove the row")
        cut += len(prompt) > room
        pairs.append(Pair(_cut_left(prompt, room, tokenizer.bos_token_id), [*response, end], text))
    return pairs, cut


def chunks_of(examples: Examples, tokenizer: Any, longest: int) -> tuple[Examples, list[Pair]]:
    """Plain texts as examples of at most `longest` tokens, and their token ids.

    Each begins with a token that is only read: the tokenizer's first, or the last of the chunk
    before. So each token of a text is predicted exactly once.

    Raises:
        Incompatible: the tokenizer has neither a first token nor an end token.
    """
    pieces, pairs = Examples([], [], []), []
    for place, ids in zip(examples.ids, _begun(examples.inputs, tokenizer), strict=True):
        starts = range(0, len(ids) - 1, longest - 1)
        for number, start in enumerate(starts, 1):
            chunk = ids[start:start + longest]
            text = tokenizer.decode(chunk[1:], skip_special_tokens=True)
            pairs.append(Pair(chunk[:1], chunk[1:], text))
            pieces.ids.append(place if len(starts) == 1 else f"{place}:{number}")
            pieces.inputs.append(text)
            pieces.labels.append(None)
            pieces.targets.append(None)
    return pieces, pairs


def _begun(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Token ids of texts behind the first token, or the end token, as between texts."""
    first, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    begin = end if first is None else first
    if begin is None:
        raise Incompatible("CausalLM needs a token that texts begin behind; this tokenizer has "
                           "neither a first token nor an end token", "choose another tokenizer")
    encoded = _ids(texts, tokenizer, special=False)
    return [[begin, *ids] for ids in encoded]


def _plain(prompts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """With what the tokenizer puts in front of a text, without what it puts behind."""
    encoded = _ids(prompts, tokenizer, special=True)
    closing = {tokenizer.eos_token_id, tokenizer.sep_token_id}
    return [ids[:-1] if len(ids) > 1 and ids[-1] in closing else ids for ids in encoded]


def _chat(prompts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    if not tokenizer.chat_template:
        raise Incompatible("chat: this tokenizer has no chat template",
                           "set chat: false, or choose a model that was tuned to chat")
    turns = [tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False,
                                           add_generation_prompt=True) for prompt in prompts]
    return _ids(turns, tokenizer, special=False)


def _ids(texts: Sequence[str], tokenizer: Any, special: bool) -> list[list[int]]:
    if not texts:
        return []
    # verbose: it warns of texts above its own limit, which are cut here
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=special,
                                     verbose=False)["input_ids"]
    return ids


def _cut_left(prompt: list[int], room: int, first: int | None) -> list[int]:
    if len(prompt) <= room:
        return prompt
    if room > 1 and prompt[0] == first:
        return [first, *prompt[len(prompt) - room + 1:]]
    return prompt[len(prompt) - room:]
