"""Conversations: rows of messages, checked, and without what is not text."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ftlab.backbones.source import resolve_path
from ftlab.data import hub
from ftlab.data.examples import Examples, SplitName
from ftlab.data.sources import columns_of
from ftlab.data.tables import Column, read_table
from ftlab.data.utf8 import note_replaced
from ftlab.errors import InputError
from ftlab.interchange import parse_json
from ftlab.tasks.class_names import is_blank

Message = dict[str, str]
"""`role` (system, user or assistant) and `content`."""

ROLES = ("system", "user", "assistant")
_TOOLS = ("tool", "function", "ipython")
_CALLS = ("tool_calls", "function_call")
_SHAPE = 'write [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]'
_SHAREGPT = ("write from and value as role and content, with user for human, assistant for gpt, "
             "and tool for what tools say")


def read_conversations(source: str, split: SplitName,
                       column: Column) -> tuple[Examples, list[str]]:
    """Conversations up to their last answer, which is the label, and notes for users.

    Messages of tools and calls of tools are left out, and so is what follows the last answer.

    Args:
        source: a table, `package:NAME/PATH` or `hf:NAME[:CONFIG[:SPLIT]]`.
        split: which one it is wanted for; chooses within a hub's data set.
        column: of the messages.

    Raises:
        InputError: with the place and the mend.
    """
    stem, rows, notes = _rows(source, split, column)
    counts: Counter[str] = Counter()
    examples = Examples([], [], [])
    for number, cell in enumerate(rows, 1):
        place = f"{source}, row {number}"
        before = counts["of tools, or with calls of them,"]
        messages = _messages(cell, place, counts)
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not answers and counts["of tools, or with calls of them,"] > before:
            counts["conversations"] += 1
            continue
        if not answers:
            raise InputError(f"{place}: no turn of the assistant, so nothing to learn",
                             "remove the row or write what the assistant should answer")
        last = answers[-1]
        if not last:
            raise InputError(f"{place}: nothing stands before the assistant's only turn",
                             "add the user's turn before it, or remove the row")
        for message, turn in zip(messages[:last + 1], range(1, last + 2), strict=True):
            _refuse_empty(message, f"{place}, turn {turn}")
        counts["behind the last answer"] += len(messages) - last - 1
        examples.ids.append(f"{stem}:{number}")
        examples.inputs.append(messages[:last])
        examples.labels.append(messages[last]["content"])
    return examples, notes + _notes(counts, source)


def read_new_conversations(source: str, column: Column,
                           split: SplitName = "test") -> Examples:
    """Conversations to answer: the last turn, if it is the assistant's, is the label.

    Raises:
        InputError: as `read_conversations`.
    """
    stem, rows, notes = _rows(source, split, column)
    counts: Counter[str] = Counter()
    examples = Examples([], [], [], columns=columns_of(source, isinstance(column, int), split))
    for number, cell in enumerate(rows, 1):
        place = f"{source}, row {number}"
        messages = _messages(cell, place, counts)
        answer = messages.pop() if messages and messages[-1]["role"] == "assistant" else None
        if not messages:
            raise InputError(f"{place}: no turn to answer", "add the user's turn, or remove the row")
        for turn, message in enumerate(messages, 1):
            _refuse_empty(message, f"{place}, turn {turn}")
        examples.ids.append(f"{stem}:{number}")
        examples.inputs.append(messages)
        text = answer["content"] if answer else ""
        examples.labels.append(None if is_blank(text) else text)
    examples.notes = notes + _notes(counts, source)
    return examples


def conversation_column(source: str) -> str | None:
    """The first column whose cells are lists of messages; None where a source has none."""
    try:
        columns = columns_of(source, False)
    except InputError:
        return None
    return next((name for name, cells in columns.items() if any(_is_conversation(cell, name) for cell in cells)),
                None)


def _is_conversation(cell: Any, column: str) -> bool:
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            cell = parse_json(cell, column, _SHAPE)
        except InputError:
            return False
    return isinstance(cell, list) and bool(cell) and all(
        isinstance(message, dict) and "role" in message for message in cell)


def _rows(source: str, split: SplitName, column: Column) -> tuple[str, list[Any], list[str]]:
    """The beginning of ids, the cells, and a note of a stray byte that was replaced."""
    replaced = 0
    if source.startswith(hub.PREFIX):
        stem, rows = hub.read_hub(source, split, (column,))
    else:
        path = resolve_path(source)
        stem, (rows, replaced) = path.stem, read_table(path, (column,))
    return stem, [row[0] for row in rows], note_replaced(replaced, len(rows), "rows", source)


def _messages(cell: Any, place: str, counts: Counter[str]) -> list[Message]:
    """The messages of a row; `counts` of what is left out, by what it is."""
    if is_blank(cell):
        raise InputError(f"{place}: the messages are missing", "fill them in, or remove the row")
    if isinstance(cell, str):  # in a .csv
        cell = parse_json(cell, f"{place}: a text instead of messages", _SHAPE)
    if not isinstance(cell, list) or not cell:
        raise InputError(f"{place}: {type(cell).__name__} instead of a list of messages"
                         if cell != [] else f"{place}: no messages", _SHAPE)
    messages = []
    for number, message in enumerate(cell, 1):
        where = f"{place}, message {number}"
        if not isinstance(message, dict) or not message.get("role"):
            raise InputError(f"{where}: it has no role and content",
                             _SHAREGPT if _is_sharegpt(message) else _SHAPE)
        role = message["role"]
        if role in _TOOLS or any(message.get(name) for name in _CALLS):
            counts["of tools, or with calls of them,"] += 1
            continue
        if role not in ROLES:
            raise InputError(f"{where}: the role {role!r} is none of {', '.join(ROLES)} and tool",
                             "rename it (human is user, gpt is assistant, developer is system)")
        if message.get("weight", 1) == 0:
            raise InputError(f"{where}: its weight is 0, and ftlab learns every turn of the "
                             "assistant", "cut the conversation before it, or remove the row")
        for name in message.keys() - {"role", "content", "weight", *_CALLS}:
            if message[name] is not None:
                counts[f"field {name}"] += 1
        content = _content(message.get("content"), where)
        if role == "system" and not content.strip():
            counts["empty and of the system"] += 1
            continue
        messages.append({"role": role, "content": content})
    return messages


def _content(content: Any, where: str) -> str:
    """A text, or the texts of a list of parts."""
    if content is None:
        return ""
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, dict) or part.get("type", "text") != "text" \
                    or not isinstance(part.get("text"), str):
                kind = part.get("type") if isinstance(part, dict) else type(part).__name__
                raise InputError(f"{where}: a part of its content is of type {kind}, not text",
                                 "take the part out, or remove the row")
        return "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise InputError(f"{where}: its content is of type {type(content).__name__}, not a text",
                         "write it as a text")
    return content


def _is_sharegpt(message: Any) -> bool:
    return isinstance(message, dict) and "from" in message and "value" in message


def _refuse_empty(message: Message, place: str) -> None:
    if not message["content"].strip():
        raise InputError(f"{place}: the {message['role']}'s content is empty",
                         "fill it in, or remove the row")


def _notes(counts: Counter[str], source: str) -> list[str]:
    notes: list[str] = []
    for what, count in counts.items():
        if not count:
            continue
        if what == "conversations":
            notes.append(f"{count} conversations in {source} have no turn of the assistant besides "
                         "calls of tools; left out")
        elif what.startswith("field "):
            notes.append(f"{count} messages in {source} have a {what}, which is not read")
        else:
            notes.append(f"{count} messages in {source} are {what} and left out")
    return notes
