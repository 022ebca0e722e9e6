"""Token ids of prompts, responses and plain texts, as a language model reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from ftlab.data.chat_tokens import chats, marks_answers
from ftlab.data.examples import Examples
from ftlab.data.ragged import lengths
from ftlab.data.token_cache import TokenCache, Tokenised
from ftlab.errors import Incompatible, InputError


class Pairs(NamedTuple):
    """Token ids to read, ids to write behind them, and the latter's texts.

    Attributes:
        learned: as in `ragged.TextTargets`.
    """

    prompts: Sequence[Sequence[int]]
    responses: Sequence[Sequence[int]]
    texts: Sequence[str]
    learned: Sequence[Sequence[int]] | None = None


def pairs_of(examples: Examples, cache: TokenCache, longest: int, chat: bool,
             where: str) -> tuple[Pairs, int]:
    """Prompts and responses as token ids, and how many prompts were cut.

    The two are tokenised apart, so that a prompt has the same tokens whether a response follows
    or is to be generated. A response ends with the end token. A prompt is cut from its left,
    behind the tokenizer's first token.

    Args:
        examples: prompts and targets.
        cache: of the tokenizer.
        longest: tokens of both together.
        chat: whether prompts go into the chat template.
        where: the split, for messages.

    Raises:
        Incompatible: the tokenizer has no end token, or no chat template.
        InputError: a response leaves no room for a prompt.
    """
    tokenizer = cache.tokenizer
    _require_end(tokenizer)
    if chat and not tokenizer.chat_template:
        raise Incompatible("chat: this tokenizer has no chat template",
                           "set chat: false, or choose a model that was tuned to chat")
    # a turn, because templates may say what day it is
    turn = _turn("", tokenizer) if chat else None
    columns, cut = cache.made(_pairs, examples.inputs, examples.targets, longest, turn)
    for place, length in zip(examples.ids, lengths(columns["responses"]), strict=True):
        if length >= longest:
            raise InputError(f"{where}, {place}: the response has {length} tokens, and "
                             f"max_length is {longest}", "set max_length higher, or remove the row")
    return Pairs(columns["prompts"], columns["responses"], examples.targets), cut


def conversations_of(examples: Examples, cache: TokenCache, longest: int,
                     where: str) -> tuple[Pairs, list[str]]:
    """Conversations as token ids (see `chat_tokens.chats`), and notes for users.

    Args:
        examples: messages and targets, the last answers.
        cache: of the tokenizer.
        longest: tokens of a conversation.
        where: the split, for messages.

    Raises:
        Incompatible: the tokenizer has no end token, or no chat template.
        InputError: a conversation that its template does not take, or an answer that is too long.
    """
    tokenizer = cache.tokenizer
    _require_end(tokenizer)
    if not tokenizer.chat_template:
        raise Incompatible("messages: this tokenizer has no chat template",
                           "choose a model that was tuned to chat, or name prompt and response")
    places = [f"{where}, {place}" for place in examples.ids]
    columns, _ = cache.made(chats, examples.inputs, examples.targets, places, longest,
                            _turn("", tokenizer))
    shorter = [row for row in columns["dropped"] if len(row)]
    notes = []
    if shorter:
        notes.append(f"{len(shorter)} of {len(examples)} conversations of the {where} lost their "
                     f"oldest turns, at {longest} tokens")
    if cut := sum(row[0] for row in shorter):
        notes.append(f"{cut} of them lost the beginning of what was left, too")
    first = sum(messages[0]["role"] == "assistant" for messages in examples.inputs)
    if first and not marks_answers(tokenizer):
        notes.append(f"{first} of {len(examples)} conversations of the {where} begin with a turn of "
                     "the assistant, which is read and not learned")
    return Pairs(columns["prompts"], columns["responses"], examples.targets,
                 columns["learned"]), notes


def _require_end(tokenizer: Any) -> None:
    if tokenizer.eos_token_id is None:
        raise Incompatible("CausalLM needs an end token, or no answer would end; this tokenizer "
                           "has none", "choose a tokenizer with eos_token")


def chunks_of(examples: Examples, cache: TokenCache, longest: int) -> tuple[Examples, Pairs]:
    """Plain texts as examples of at most `longest` tokens, and their token ids.

    Each begins with a token that is only read: the tokenizer's first, or the last of the chunk
    before. So each token of a text is predicted exactly once.

    Raises:
        Incompatible: the tokenizer has neither a first token nor an end token.
    """
    first, end = cache.tokenizer.bos_token_id, cache.tokenizer.eos_token_id
    begin = end if first is None else first
    if begin is None:
        raise Incompatible("CausalLM needs a token that texts begin behind; this tokenizer has "
                           "neither a first token nor an end token", "choose another tokenizer")
    columns = cache.made(_chunks, examples.inputs, longest, begin).columns
    texts = [bytes(text).decode() for text in columns["texts"]]
    owners = [owner for (owner,) in columns["owners"]]
    counts, seen = Counter(owners), Counter[int]()
    pieces = examples.take(owners)
    pieces.ids, pieces.inputs, pieces.labels = [], texts, [None] * len(texts)
    pieces.targets = list(pieces.labels)
    for owner in owners:
        seen[owner] += 1
        place = examples.ids[owner]
        pieces.ids.append(place if counts[owner] == 1 else f"{place}:{seen[owner]}")
    return pieces, Pairs(columns["begins"], columns["rests"], texts)


def _pairs(tokenizer: Any, prompts: Sequence[str], responses: Sequence[str], longest: int,
           turn: str | None) -> Tokenised:
    """`prompts`, cut to what the `responses` leave of `longest`, in turns of a chat or plain."""
    end, first = tokenizer.eos_token_id, tokenizer.bos_token_id
    whole = (_plain if turn is None else _chat)(prompts, tokenizer)
    ended = [[*ids, end] for ids in _ids(responses, tokenizer, special=False)]
    rooms = [max(0, longest - len(ids)) for ids in ended]
    fit = [_cut_left(ids, room, first) for ids, room in zip(whole, rooms, strict=True)]
    cut = sum(len(ids) > room for ids, room in zip(whole, rooms, strict=True))
    return Tokenised({"prompts": fit, "responses": ended}, cut)


def _chunks(tokenizer: Any, texts: Sequence[str], longest: int, begin: int) -> Tokenised:
    """Cut into chunks: first token, other tokens, their text in UTF-8, and the text's number."""
    begins: list[list[int]] = []
    rests: list[list[int]] = []
    decoded: list[bytes] = []
    owners: list[list[int]] = []
    for owner, tokens in enumerate(_ids(texts, tokenizer, special=False)):
        ids = [begin, *tokens]
        for start in range(0, len(ids) - 1, longest - 1):
            chunk = ids[start:start + longest]
            begins.append(chunk[:1])
            rests.append(chunk[1:])
            decoded.append(tokenizer.decode(chunk[1:], skip_special_tokens=True).encode())
            owners.append([owner])
    return Tokenised({"begins": begins, "rests": rests, "texts": decoded, "owners": owners})


def _plain(prompts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """With what the tokenizer puts in front of a text, without what it puts behind."""
    encoded = _ids(prompts, tokenizer, special=True)
    closing = {tokenizer.eos_token_id, tokenizer.sep_token_id}
    return [ids[:-1] if len(ids) > 1 and ids[-1] in closing else ids for ids in encoded]


def _chat(prompts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    return _ids([_turn(prompt, tokenizer) for prompt in prompts], tokenizer, special=False)


def _turn(prompt: str, tokenizer: Any) -> str:
    """A user's, in the chat template."""
    turn: str = tokenizer.apply_chat_template([{"role": "user", "content": prompt}],
                                              tokenize=False, add_generation_prompt=True)
    return turn


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
