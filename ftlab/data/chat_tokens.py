"""Token ids of conversations, by the tokenizer's own chat template, and which of them are learned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jinja2

from ftlab.data.token_cache import Tokenised
from ftlab.errors import InputError

Messages = list[dict[str, str]]
_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")


class _Rendered(NamedTuple):
    """A conversation as token ids.

    Attributes:
        ids: of the whole.
        learned: of each, 1 where it is the assistant's.
        border: where the last answer begins.
    """

    ids: list[int]
    learned: list[int]
    border: int


def chats(tokenizer: Any, contexts: Sequence[Messages], answers: Sequence[str],
          places: Sequence[str], longest: int, turn: str) -> Tokenised:
    """`prompts` (all before the last answer), `responses` (it), and what is `learned` of both.

    Learned are the turns of the assistant: what the template marks with `{% generation %}`, or
    else what it adds for a turn to what it writes to have it generated, up to the end token. The
    last answer ends with the tokenizer's end token where the template gives it none. A
    conversation that is too long loses its oldest turns, from a user's turn to the next; and where
    that does not do, the beginning of what is left.

    Args:
        tokenizer: with a chat template.
        contexts: messages before the last answer.
        answers: the last one of each.
        places: of each, for messages.
        longest: tokens of a conversation.
        turn: rendered, because templates may say what day it is.

    Returns:
        `dropped` has a number for each that lost turns, 1 where it lost more.

    Raises:
        InputError: the template refuses a conversation, or rewrites earlier turns; or an answer
            leaves no room for a prompt.
    """
    columns: dict[str, list[list[int]]] = {"prompts": [], "responses": [], "learned": [],
                                           "dropped": []}
    ends = _special(tokenizer)
    for context, answer, place in zip(contexts, answers, places, strict=True):
        messages = [*context, {"role": "assistant", "content": answer}]
        whole = rendered = _rendered(tokenizer, messages, ends, place)
        while len(rendered.ids) > longest and (fewer := _without_oldest(messages)):
            messages, rendered = fewer, _rendered(tokenizer, fewer, ends, place)
        length = len(rendered.ids) - rendered.border
        if length >= longest:
            raise InputError(f"{place}: the last answer has {length} tokens, and max_length is "
                             f"{longest}", "set max_length higher, or remove the row")
        over = max(0, len(rendered.ids) - longest)
        kept = list(range(over, len(rendered.ids)))
        if over and rendered.border - over > 1 and rendered.ids[0] == tokenizer.bos_token_id:
            kept = [0, *kept[1:]]
        columns["prompts"].append([rendered.ids[i] for i in kept if i < rendered.border])
        columns["responses"].append(rendered.ids[rendered.border:])
        columns["learned"].append([rendered.learned[i] for i in kept])
        columns["dropped"].append([int(over > 0)] if len(whole.ids) > longest else [])
    return Tokenised(columns)


def marks_answers(tokenizer: Any) -> bool:
    """Return whether the chat template says itself what the assistant's is."""
    return _MARKED.search(tokenizer.chat_template or "") is not None


def render(tokenizer: Any, messages: Messages, answer: bool, place: str) -> str:
    """Messages in the chat template.

    Args:
        tokenizer: with a chat template.
        messages: of a conversation.
        answer: whether the assistant's turn is begun.
        place: for messages.

    Raises:
        InputError: the template refuses them.
    """
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False,
                                                  add_generation_prompt=answer)
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        roles = ", ".join(message["role"] for message in messages)
        raise InputError(f"{place}: the tokenizer's chat template refuses the turns {roles}: {error}",
                         "change the conversation, or choose a model whose template takes it"
                         ) from error
    return text


def _rendered(tokenizer: Any, messages: Messages, ends: frozenset[int],
              place: str) -> _Rendered:
    before = render(tokenizer, messages[:-1], True, place)
    if marks_answers(tokenizer):
        return _marked(tokenizer, messages, before, place)
    whole = render(tokenizer, messages, False, place)
    cuts = [0]  # characters where turns of the assistant begin and end, in turn
    for number, message in enumerate(messages):
        if message["role"] != "assistant" or not number:
            continue  # what nothing asked for is read, not learned
        begun = render(tokenizer, messages[:number], True, place)
        ended = render(tokenizer, messages[:number + 1], False, place)
        if not (whole.startswith(ended) and ended.startswith(begun)):
            raise InputError(
                f"{place}: the tokenizer's chat template rewrites earlier turns when others follow, "
                "so that no one text has all answers", "give conversations with one answer each, or "
                "a tokenizer whose template marks answers with {% generation %}")
        if begun == render(tokenizer, messages[:number], False, place) and not ended[
                len(begun):].strip().startswith(message["content"].strip()):
            raise InputError(f"{place}: the tokenizer's chat template begins no turn of the "
                             "assistant (add_generation_prompt)",
                             "choose a model whose template does, or give it one")
        cuts += [len(begun), len(ended)]
    pieces = _pieces(tokenizer, whole[:cuts[-1]], cuts)
    ids: list[int] = []
    learned: list[int] = []
    for number, piece in enumerate(pieces):
        count = len(_ended(tokenizer, piece, ends)) if number % 2 else 0
        if number == len(pieces) - 1:
            border, piece = len(ids), _ended(tokenizer, piece, ends)
            if piece[-1:] and piece[-1] not in ends:
                piece = [*piece, tokenizer.eos_token_id]
            count = len(piece)
        ids += piece
        learned += [1] * count + [0] * (len(piece) - count)
    return _Rendered(ids, learned, border)


def _marked(tokenizer: Any, messages: Messages, before: str, place: str) -> _Rendered:
    """As the template marks it."""
    encoded = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True,
                                          return_assistant_tokens_mask=True)
    ids, learned = list(encoded["input_ids"]), list(encoded["assistant_masks"])
    prompt = _ids(tokenizer, before)
    stop = max((i + 1 for i, mark in enumerate(learned) if mark), default=0)
    if ids[:len(prompt)] != prompt or stop <= len(prompt):
        raise InputError(f"{place}: the tokenizer's chat template begins an answer otherwise than it "
                         "writes it", "choose a model whose template does not, or give it one")
    return _Rendered(ids[:stop], learned[:stop], len(prompt))


def _pieces(tokenizer: Any, text: str, cuts: Sequence[int]) -> list[list[int]]:
    """Token ids between the cuts, each by itself where a token of the whole lies across one."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, spans = encoded["input_ids"], encoded["offset_mapping"]
    inside = all(not start < cut < stop for cut in cuts for start, stop in spans)
    if not inside or _ids(tokenizer, text[:cuts[-2]]) != [
            token for token, (start, _) in zip(ids, spans, strict=True) if start < cuts[-2]]:
        return [_ids(tokenizer, text[start:stop])
                for start, stop in pairwise(cuts)]
    return [[token for token, (start, _) in zip(ids, spans, strict=True) if begin <= start < end]
            for begin, end in pairwise(cuts)]


def _ended(tokenizer: Any, turn: list[int], ends: frozenset[int]) -> list[int]:
    """A turn without the white space that the template puts behind it."""
    stop = len(turn)
    while stop and turn[stop - 1] not in ends and not tokenizer.decode(
            turn[stop - 1:stop]).strip():
        stop -= 1
    return turn[:stop]


def _special(tokenizer: Any) -> frozenset[int]:
    """Tokens that are not text, of which one ends a turn."""
    added = {place for place, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset({*added, *tokenizer.all_special_ids} - {tokenizer.unk_token_id})


def _without_oldest(messages: Messages) -> Messages | None:
    """Without the oldest turns up to the next of the user; None where the last answer has no other."""
    head = 0
    while messages[head]["role"] == "system":
        head += 1
    for place in range(head + 1, len(messages) - 1):
        if messages[place]["role"] == "user":
            return [*messages[:head], *messages[place:]]
    return None


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids
