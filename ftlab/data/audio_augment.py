"""Random changes of training recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ftlab.data.audio_decode import resample
from ftlab.data.batches import checked_views

_SPEED_STEP = 100  # speeds in hundredths keep the resampling filter short


@dataclass(frozen=True)
class AudioAugment:
    """Gain, noise, shift, speed, and masks in time and frequency (SpecAugment).

    Each change follows from the run's seed, the epoch and the example alone, however many
    processes load; 0 leaves a change out. Masks lie on the spectrogram where the network reads one
    (Whisper), and are its mean there. Of a network that reads waveforms (wav2vec2) a span of
    samples or a band of frequencies is silenced. transformers' own masks in training are off.
    Sources: Park et al. (2019), https://arxiv.org/abs/1904.08779 (masks); Ko et al. (2015),
    https://doi.org/10.21437/Interspeech.2015-711 (speed); Ravanelli et al. (2021),
    https://arxiv.org/abs/2106.04624 (masks of waveforms)

    Args:
        gain: largest change of the level, in dB up or down.
        noise: lowest signal-to-noise ratio of added white noise, in dB, up to 30 dB above it;
            null adds none.
        shift: longest silence put in front, in seconds.
        speed: largest relative change of speed, and pitch with it: 0.1 is from 0.9 to 1.1.
        time_masks: how many spans are masked.
        time_mask: longest of them, as a fraction of the recording.
        frequency_masks: how many bands are masked.
        frequency_mask: widest of them, as a fraction of all frequencies.
        views: change each recording in so many ways and no more, one an epoch in turn, the same
            in every run, so that a frozen prefix can be cached; null for ever new changes.
    """

    gain: float = 6.0
    noise: float | None = 15.0
    shift: float = 0.1
    speed: float = 0.1
    time_masks: int = 2
    time_mask: float = 0.1
    frequency_masks: int = 2
    frequency_mask: float = 0.15
    views: int | None = None

    def __post_init__(self) -> None:
        checked_views(self.views)
        for name in ("gain", "shift", "time_masks", "frequency_masks"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("speed", "time_mask", "frequency_mask"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, "
                                 f"got {getattr(self, name)}")

    def change(self, wave: np.ndarray, rate: int, longest: float, *key: int) -> np.ndarray:
        """A changed waveform (M,) of at most `longest` seconds.

        Args:
            wave: float32 (N,).
            rate: samples a second.
            longest: seconds that the network reads, infinite where there is no limit; what delay
                or lower speed moves beyond them is cut.
            key: seed, epoch and example, which fix the change.
        """
        draw = np.random.default_rng(key)
        if self.speed:
            width = int(self.speed * _SPEED_STEP)
            wave = resample(wave, _SPEED_STEP + int(draw.integers(-width, width + 1)), _SPEED_STEP)
        if self.shift:
            silence = np.zeros(int(draw.uniform(0, self.shift) * rate), np.float32)
            wave = np.concatenate([silence, wave])
        if longest != float("inf"):
            wave = wave[:round(longest * rate)]
        if self.gain:
            wave = wave * np.float32(10 ** (draw.uniform(-self.gain, self.gain) / 20))
        if self.noise is not None:
            ratio = draw.uniform(self.noise, self.noise + 30)
            level = np.sqrt(np.mean(wave**2)) * 10 ** (-ratio / 20)
            wave = wave + draw.normal(0, 1, len(wave)).astype(np.float32) * np.float32(level)
        return wave.astype(np.float32)

    def mask_waveform(self, wave: np.ndarray, *key: int) -> np.ndarray:
        """Silence spans and bands of a waveform (N,)."""
        draw = np.random.default_rng((*key, 1))
        spectrum = np.fft.rfft(wave)
        for begin, end in _spans(draw, self.frequency_masks, self.frequency_mask, len(spectrum)):
            spectrum[begin:end] = 0
        masked: np.ndarray = np.fft.irfft(spectrum, n=len(wave)).astype(np.float32)
        for begin, end in _spans(draw, self.time_masks, self.time_mask, len(wave)):
            masked[begin:end] = 0
        return masked

    def mask_spectrogram(self, bands: Tensor, frames: int, *key: int) -> None:
        """Replace spans and bands of a spectrogram (bands, T) by its mean, in place.

        Args:
            bands: log-mel energies.
            frames: how many of T are the recording's.
            key: seed, epoch and example.
        """
        draw = np.random.default_rng((*key, 1))
        mean = bands[:, :frames].mean()
        for begin, end in _spans(draw, self.frequency_masks, self.frequency_mask, len(bands)):
            bands[begin:end, :frames] = mean
        for begin, end in _spans(draw, self.time_masks, self.time_mask, frames):
            bands[:, begin:end] = mean


def _spans(draw: np.random.Generator, count: int, widest: float,
           size: int) -> Sequence[tuple[int, int]]:
    """Spans of random width from 0 to `widest * size`, anywhere in `size`."""
    spans = []
    for _ in range(count):
        width = int(draw.integers(0, int(widest * size) + 1))
        begin = int(draw.integers(0, size - width + 1))
        spans.append((begin, begin + width))
    return spans
