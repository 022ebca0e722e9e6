"""Encoded sound -> one channel of float32 samples."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from ftlab.errors import InputError

EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")


def audio_bytes(audio: Path | bytes) -> bytes:
    """The encoded sound."""
    try:
        return audio if isinstance(audio, bytes) else audio.read_bytes()
    except OSError as error:
        raise InputError(f"{audio!s} cannot be read: {error.strerror}",
                         "replace the file or remove the example") from error


def decode_audio(data: bytes, place: str) -> tuple[np.ndarray, int]:
    """Samples (N,) between -1 and 1, channels averaged, and their rate in Hz.

    Raises:
        InputError: it does not decode, is empty, or has samples that are no numbers.
    """
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError) as error:
        reason = re.sub(r"^Error opening <.*?>: ", "", str(error))
        raise InputError(f"{place} does not decode as audio: {reason}",
                         f"replace it ({', '.join(EXTENSIONS)}) or remove the example") from None
    if not len(samples):
        raise InputError(f"{place} is empty: it has no samples",
                         "replace it or remove the example")
    wave: np.ndarray = samples.mean(axis=1)
    if not np.isfinite(wave).all():
        raise InputError(f"{place} has samples that are not finite",
                         "replace it or remove the example")
    return wave, int(rate)


def resample(wave: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """The same sound (N * wanted / rate,) at another rate, by a polyphase filter."""
    if rate == wanted:
        return wave
    common = math.gcd(rate, wanted)
    changed: np.ndarray = resample_poly(wave, wanted // common, rate // common)
    return changed.astype(np.float32)
