"""Decoded recordings -> rows and batches for a network."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftlab.backbones.base import Backbone
from ftlab.backbones.preprocessing import AudioPreprocessing
from ftlab.data.audio_augment import AudioAugment
from ftlab.data.audio_decode import audio_bytes, decode_audio, resample
from ftlab.data.base import SPLITS, Examples, SplitName
from ftlab.data.batches import Row, SplitDataset
from ftlab.errors import Incompatible, InputError

IN_MEMORY = 2**30
"""Bytes of decoded sound, all splits together, up to which it is kept in memory."""

Wave = tuple[np.ndarray, int]
"""Samples (N,) and their rate."""


class Recordings:
    """The recordings of all splits of a data module: decoded once, so that damage shows early."""

    def __init__(self) -> None:
        self._waves: dict[SplitName, list[Wave]] = {}
        self._sizes: dict[SplitName, list[tuple[int, int]]] = {}
        self._bytes = 0

    def add(self, split: SplitName, examples: Examples) -> list[bytes]:
        """Decode a split; sha256 digest of each recording's file.

        Raises:
            InputError: a recording is damaged or empty.
        """
        digests = []
        waves: list[Wave] = []
        sizes: list[tuple[int, int]] = []
        for place, audio in zip(examples.ids, examples.inputs, strict=True):
            data = audio_bytes(audio)
            digests.append(hashlib.sha256(data).digest())
            where = f"{audio} ({place})" if isinstance(audio, Path) else f"{split}, {place}"
            wave, rate = decode_audio(data, where)
            sizes.append((len(wave), rate))
            self._bytes += wave.nbytes
            if self._bytes <= IN_MEMORY:
                waves.append((wave, rate))
        self._waves[split], self._sizes[split] = waves, sizes
        if self._bytes > IN_MEMORY:
            self._waves.clear()
        return digests

    def lengths(self, split: SplitName, rate: int) -> list[int]:
        """Samples of each recording at `rate`."""
        return [-(-size * rate // own) for size, own in self._sizes[split]]  # as resample_poly

    def check(self, splits: dict[SplitName, Examples], preprocessing: AudioPreprocessing) -> None:
        """Hold every recording to what a network reads.

        Raises:
            InputError: one is too long or too short.
        """
        rate = preprocessing.sampling_rate
        for split in SPLITS:
            for place, length in zip(splits[split].ids, self.lengths(split, rate), strict=True):
                if length > preprocessing.longest * rate + 1e-6:
                    raise InputError(
                        f"{split} split, {place}: {length / rate:.2f} s is longer than the "
                        f"{preprocessing.longest:g} s that the backbone reads",
                        "cut it, remove it, or (for Whisper) give the backbone more seconds")
                if preprocessing.frames is not None and preprocessing.frames(length) < 1:
                    raise InputError(f"{split} split, {place}: {length / rate:.3f} s is too short "
                                     "for the backbone", "remove it")

    def note(self, rate: int) -> str | None:
        """What a user should know of the resampling, once."""
        other = Counter(own for sizes in self._sizes.values() for _, own in sizes if own != rate)
        total = sum(len(sizes) for sizes in self._sizes.values())
        if not other:
            return None
        rates = ", ".join(f"{own}" for own in sorted(other))
        return f"{sum(other.values())} of {total} recordings are resampled from {rates} to {rate} Hz"

    def at_rate(self, split: SplitName, inputs: Sequence[Any],
                rate: int) -> Sequence[np.ndarray | Path | bytes]:
        """The split's recordings at `rate`, or their files where they do not fit into memory."""
        if split not in self._waves:
            return list(inputs)
        return [resample(wave, own, rate) for wave, own in self._waves[split]]


def audio_preprocessing_of(backbone: Backbone, module: str) -> AudioPreprocessing:
    """How the backbone wants its sound.

    Raises:
        Incompatible: it reads something else.
    """
    preprocessing = backbone.preprocessing
    if not isinstance(preprocessing, AudioPreprocessing):
        kind = type(preprocessing).__name__.removesuffix("Preprocessing").lower()
        raise Incompatible(f"{module} yields sound; {type(backbone).__name__} reads {kind}s",
                           "choose a speech model as the backbone")
    return preprocessing


class AudioDataset(SplitDataset):
    """Waveforms (N,) at the network's rate, changed anew each epoch where `augment` is given."""

    def __init__(self, waves: Sequence[np.ndarray | Path | bytes], targets: Sequence[Any],
                 seed: int, preprocessing: AudioPreprocessing,
                 augment: AudioAugment | None) -> None:
        super().__init__(targets, seed)
        self.waves = waves
        self.rate = preprocessing.sampling_rate
        self.longest = preprocessing.longest
        self.spectrogram = preprocessing.spectrogram
        self.augment = augment

    def input(self, index: int) -> np.ndarray:
        wave = self.waves[index]
        if not isinstance(wave, np.ndarray):
            wave = resample(*decode_audio(audio_bytes(wave), str(index)), self.rate)
        if self.augment is None:
            return wave
        key = (self.seed, self.epoch, index)
        wave = self.augment.change(wave, self.rate, self.longest, *key)
        return wave if self.spectrogram else self.augment.mask_waveform(wave, *key)


@dataclass(frozen=True)
class AudioCollate:
    """Rows -> batch.

    Attributes:
        preprocessing: the network's.
        stack: targets -> what the task reads (`Task.stack`).
        seed: of the run.
        augment: for masks on spectrograms.
    """

    preprocessing: AudioPreprocessing
    stack: Callable[[Sequence[Any]], Any]
    seed: int
    augment: AudioAugment | None

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        inputs = self.preprocessing.features([row.input for row in rows])
        if self.augment is not None and self.preprocessing.spectrogram:
            self._mask(inputs["input_features"], rows, self.augment)
        return {"inputs": inputs, "target": self.stack([row.target for row in rows]),
                "index": torch.tensor([row.position for row in rows])}

    def _mask(self, features: Tensor, rows: Sequence[Row], augment: AudioAugment) -> None:
        whole = self.preprocessing.longest * self.preprocessing.sampling_rate
        for bands, row in zip(features, rows, strict=True):
            frames = max(1, int(bands.shape[1] * len(row.input) / whole))
            augment.mask_spectrogram(bands, frames, self.seed, row.epoch, row.position)
