"""Recordings with a transcript each, and a tiny Whisper that writes tokens."""

from collections.abc import Callable
from typing import Any

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.speech_settings import Speech
from ftlab.data.audio_augment import AudioAugment
from ftlab.data.audio_sources import Speakers
from ftlab.data.speech_recognition import SpeechRecognition
from ftlab.tasks.transcription import Transcription


def make(fixture: Callable[[str], Any]) -> Callable[[], tuple[HuggingFace, SpeechRecognition]]:
    folder, table = fixture("tiny_whisper"), fixture("spoken") / "table.csv"
    return lambda: (
        HuggingFace(str(folder), speech=Speech(seconds=0.5), dropout=0.0),
        SpeechRecognition(
            str(table), speakers=Speakers(("cy",), ("di",)), batch_size=8,
            augment=AudioAugment(speed=0, frequency_masks=1),
            task=Transcription(max_new_tokens=4),
        ),
    )
