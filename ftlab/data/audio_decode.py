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
from ftlab.interchange import read_bytes

_CUT = re.compile(r"data : (\d+) \(should be (\d+)\)")  # of WAV, in the decoder's own words
_UNKNOWN = 2**31 - 2**16
_ENDLESS = 2**63 - 1  # the decoder's word for FLAC that was written to a pipe
_BLOCK = 2**20  # samples read at once
MOST = 2**27
"""Values of a recording, all channels: 25 minutes of a CD, half a GiB in memory. A few kilobytes of
FLAC unpack to days of silence."""
EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")


def audio_bytes(audio: Path | bytes) -> bytes:
    """The encoded sound."""
    return (audio if isinstance(audio, bytes)
            else read_bytes(audio, "replace the file or remove the example"))


def decode_audio(data: bytes, place: str) -> tuple[np.ndarray, int]:
    """Samples (N,) between -1 and 1, channels averaged, and their rate in Hz.

    Raises:
        InputError: it does not decode, is cut short or empty, or has samples that are not numbers.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            most, rate = MOST // file.channels, file.samplerate
            samples = _streamed(data, most + 1) if file.frames == _ENDLESS else None
            frames = file.frames if samples is None else len(samples)
            if frames > most:
                verb = "announces" if samples is None else "lasts at least"
                raise InputError(
                    f"{place} {verb} {frames / rate / 60:.0f} minutes of "
                    f"{file.channels} channels, which is more than {MOST:,} values",
                    "cut it into pieces, or remove the example")
            if samples is None:
                samples = file.read(dtype="float32", always_2d=True)
            lasts = _announced(file, len(samples), data)
    except (soundfile.SoundFileError, TypeError, MemoryError) as error:  # of a length that is none
        reason = re.sub(r"^Error opening <.*?>: ", "", str(error))
        raise InputError(f"{place} does not decode as audio: {reason}",
                         f"replace it ({', '.join(EXTENSIONS)}) or remove the example") from None
    if not len(samples):
        raise InputError(f"{place} is empty: it has no samples",
                         "replace it or remove the example")
    if lasts > 1.02 * len(samples) + 1:  # a byte or two are padding
        raise InputError(f"{place} is cut short: {len(samples) / rate:.2f} of the "
                         f"{lasts / rate:.2f} s that its header announces",
                         "get it again or remove the example")
    wave: np.ndarray = samples.mean(axis=1)
    if not np.isfinite(wave).all():
        raise InputError(f"{place} has samples that are not finite",
                         "replace it or remove the example")
    return wave, int(rate)


class _Stream(soundfile.SoundFile):
    """A recording of a length that its header does not say: there is no going to its end."""

    def seekable(self) -> bool:
        """Never, or each read is followed by a seek."""
        return False


def _streamed(data: bytes, most: int) -> np.ndarray:
    """Samples (N, channels), the first `most` of them."""
    with _Stream(io.BytesIO(data)) as file:
        parts = [np.zeros((0, file.channels), np.float32)]
        while most and len(part := file.read(min(most, _BLOCK), "float32", always_2d=True)):
            parts.append(part)
            most -= len(part)
        return np.concatenate(parts)


def _announced(file: soundfile.SoundFile, read: int, data: bytes) -> float:
    """As many samples as a header says that there are; those that were read where it says none."""
    if file.format == "MP3":  # without these marks the decoder guesses
        return file.frames if b"Xing" in data[:2**16] or b"Info" in data[:2**16] else read
    if (sizes := _CUT.search(file.extra_info)) is None:
        return read
    announced, there = int(sizes[1]), int(sizes[2])
    # writers of streams put in place of an unknown size 2 or 4 GiB
    return read * announced / there if there and announced < _UNKNOWN else read


def resample(wave: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """The same sound (N * wanted / rate,) at another rate, by a polyphase filter."""
    if rate == wanted:
        return wave
    common = math.gcd(rate, wanted)
    changed: np.ndarray = resample_poly(wave, wanted // common, rate // common)
    return changed.astype(np.float32)
