"""Recordings with a transcript each, and a tiny wav2vec2 that writes characters (CTC)."""

from collections.abc import Callable
from typing import Any

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.audio_sources import Speakers
from ftlab.data.speech_recognition import SpeechRecognition


def make(fixture: Callable[[str], Any]) -> Callable[[], tuple[HuggingFace, SpeechRecognition]]:
    folder, table = fixture("tiny_wav2vec2"), fixture("spoken") / "table.csv"
    return lambda: (
        HuggingFace(str(folder), dropout=0.0),
        SpeechRecognition(str(table), speakers=Speakers(("cy",), ("di",)), batch_size=8),
    )
