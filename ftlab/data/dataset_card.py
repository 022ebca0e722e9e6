"""The card of a folder that `datasets` reads: it may name files of its own folder alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from ftlab.errors import InputError

CARDS = ("README.md", ".huggingface.yaml")
"""The files that `datasets` takes settings from."""
_LONGEST, _MOST = 2**20, 100_000  # bytes and values of the front matter
_MEND = "mend the data_files of the file, or remove it"


def check_card(folder: Path) -> None:
    """Refuse a folder whose README.md sends `datasets` to addresses or files elsewhere.

    Raises:
        InputError: with the file and what it names.
    """
    for card in (folder / name for name in CARDS):
        if not card.is_file():
            continue
        for place in _texts(_front(card), card):
            path = Path(place)
            if "://" in place or "::" in place or path.is_absolute() or os.pardir in path.parts:
                raise InputError(f"{card} names {place[:200]}, which is not a file of its folder",
                                 _MEND)


def _front(card: Path) -> Any:
    """The settings in front of a card's text, or in a file that has nothing else."""
    with card.open(encoding="utf-8", errors="replace", newline="") as file:
        text = file.read(_LONGEST + 1).removeprefix("\ufeff")
    try:
        if card.suffix == ".md":  # read as the hub's own class does
            front = REGEX_YAML_BLOCK.search(text)
            if front is None and (len(text) <= _LONGEST
                                  or not "---".startswith(text.lstrip()[:3])):
                return None
            text = front[2] if front else text
        if len(text) > _LONGEST:
            raise ValueError("too long")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{card}: its settings cannot be read", _MEND) from error


def _texts(settings: Any, card: Path) -> Iterator[str]:
    """The files that the configurations of a card name."""
    waiting = [settings.get("configs")] if isinstance(settings, dict) else []
    seen = 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > _MOST:  # of aliases of aliases
            raise InputError(f"{card}: it has more than {_MOST:,} values", _MEND)
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str):
            yield value
