"""Files that say how images or sound become inputs: whose class they name, what they leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftlab.backbones.untrusted_settings import read_json
from ftlab.errors import InputError

FILE = "preprocessor_config.json"
MEND = "add them, or set preprocessor: a folder or hub id that has them"
_NAMES = ("image_processor_type", "feature_extractor_type", "processor_class")


def check_told(folder: Path, part: str, made: Any, keys: Sequence[str], label: str) -> None:
    """Refuse a file that leaves out what its class would fill in, and names no class.

    Args:
        folder: in Hugging Face's layout.
        part: what a `processor_config.json` of several parts calls this one.
        made: by transformers, of the file; of the architecture's usual class where it names none.
        keys: that nothing but the folder's own class can fill in.
        label: whose, for messages.

    Raises:
        InputError: with the keys.
    """
    file, settings = _settings(folder, part)
    missing = [key for key in keys if settings.get(key) is None]
    if not missing or _names_class(settings, made):
        return
    named = next((str(settings[name]) for name in _NAMES if settings.get(name)), None)
    why = (f"transformers has no {named} that would fill it in" if named
           else f"names no class (as {_NAMES[0 if part == 'image_processor' else 1]})")
    raise InputError(f"{label}: {file} lacks {', '.join(missing)}, and {why}", MEND)


def has_front_end(folder: Path, part: str) -> bool:
    """Return whether a folder says anything of a front end, or of one that it does not name."""
    return bool(_settings(folder, part)[1])


def _settings(folder: Path, part: str) -> tuple[Path, Mapping[str, Any]]:
    """The file that transformers reads a front end from, and what it says of it."""
    for name in ("processor_config.json", FILE):
        if (folder / name).is_file():
            settings = read_json(folder / name)
            if isinstance(inner := settings.get(part), dict):
                return folder / name, inner
            if name == FILE:
                return folder / name, settings
    return folder / FILE, {}


def _names_class(settings: Mapping[str, Any], made: Any) -> bool:
    """Return whether settings name the class of the processor that transformers made of them."""
    return any(_stem(str(settings[name])) == _stem(type(made).__name__)
               for name in _NAMES if settings.get(name))


def _stem(name: str) -> str:
    """CLIP of CLIPImageProcessor, CLIPImageProcessorFast, CLIPFeatureExtractor, CLIPProcessor."""
    name = name.removesuffix("Fast").removesuffix("Pil")
    for end in ("ImageProcessor", "FeatureExtractor", "Processor"):
        if name.endswith(end):
            return name.removesuffix(end)
    return name
