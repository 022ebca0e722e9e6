"""Recordings with a class each, and the encoder of a tiny wav2vec2."""

from collections.abc import Callable
from typing import Any

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.audio_classification import AudioClassification


def make(fixture: Callable[[str], Any]) -> Callable[[], tuple[HuggingFace, AudioClassification]]:
    folder, recordings = fixture("tiny_wav2vec2"), fixture("spoken") / "words"
    return lambda: (
        HuggingFace(str(folder), dropout=0.0),
        AudioClassification(str(recordings), pattern="{label}_{speaker}_{index}", batch_size=8),
    )
