"""Decoded recordings -> rows and batches for a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ftlab.backbones.preprocessing import AudioPreprocessing
from ftlab.data.audio_augment import AudioAugment
from ftlab.data.audio_decode import audio_bytes, decode_audio, resample
from ftlab.data.batches import ExampleRow, SplitDataset


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

    def __call__(self, rows: Sequence[ExampleRow]) -> dict[str, Any]:
        inputs = self.preprocessing.features([row.input for row in rows])
        if self.augment is not None and self.preprocessing.spectrogram:
            self._mask(inputs["input_features"], rows, self.augment)
        return {"inputs": inputs, "target": self.stack([row.target for row in rows]),
                "index": torch.tensor([row.position for row in rows])}

    def _mask(self, features: Tensor, rows: Sequence[ExampleRow], augment: AudioAugment) -> None:
        whole = self.preprocessing.longest * self.preprocessing.sampling_rate
        for bands, row in zip(features, rows, strict=True):
            frames = max(1, int(bands.shape[1] * len(row.input) / whole))
            augment.mask_spectrogram(bands, frames, self.seed, row.epoch, row.position)
