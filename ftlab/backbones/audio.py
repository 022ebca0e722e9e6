"""How a network wants its sound, from Hugging Face's feature extractor files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftlab.backbones.preprocessing import AudioPreprocessing
from ftlab.errors import Incompatible


def audio_preprocessing(folder: Path, config: Any, label: str) -> AudioPreprocessing:
    """To be built."""
    raise Incompatible(f"{label}: not built yet", "wait")
