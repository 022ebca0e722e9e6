"""The recordings of a data module: read, decoded once, and cut to what a network reads."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ftlab.backbones.preprocessing import AudioPreprocessing, lacks_nothing
from ftlab.data.audio_augment import AudioAugment
from ftlab.data.audio_dataset import AudioCollate, AudioDataset
from ftlab.data.audio_decode import audio_bytes, decode_audio, resample
from ftlab.data.audio_sources import AudioSource, Speakers
from ftlab.data.examples import Examples, SplitName
from ftlab.data.faults import gathered
from ftlab.data.hub import PREFIX, named_splits
from ftlab.errors import InputError

IN_MEMORY = 2**30
"""Bytes of decoded sound, all splits together, up to which it is kept in memory."""

Wave = tuple[np.ndarray, int]
"""Samples (N,) and their rate."""


class Recordings:
    """The recordings of all splits, as data modules of sound share them.

    Args:
        source: how a source describes its recordings.
        speakers: those in validation and test alone.
        sources: of each split, None where it is to be carved from train.

    Raises:
        ValueError: a split has speakers and a source of its own.
    """

    def __init__(self, source: AudioSource, speakers: Speakers | None,
                 sources: Mapping[SplitName, str | None]) -> None:
        if speakers is not None:
            speakers.check_sources(sources)
        self.source = source
        self.speakers = speakers
        self._train = sources["train"]
        self._waves: dict[SplitName, list[Wave]] = {}
        self._sizes: dict[SplitName, list[tuple[int, int]]] = {}
        self._bytes = 0
        self._preprocessing: AudioPreprocessing | None = None
        self._heard: dict[SplitName, Sequence[np.ndarray | Path | bytes]] = {}

    # Before a backbone is known

    def own_splits(self, source: str) -> Sequence[SplitName]:
        """As `DataModule.own_splits`."""
        if self.speakers is not None:
            return self.speakers.splits()
        return named_splits(source) if source.startswith(PREFIX) else ()

    def read(self, split: SplitName, source: str) -> tuple[Examples, list[str]]:
        """As `DataModule.read`, and notes for users."""
        examples, speakers, notes = self.source.read(source, split)
        if self.speakers is not None and source == self._train:
            examples = self.speakers.choose(examples, speakers, split, source)
        return examples, notes

    def add(self, split: SplitName, examples: Examples) -> list[bytes]:
        """Decode a split, so that damage shows early; sha256 digest of each recording's file.

        Raises:
            InputError: recordings are damaged or empty; with the first of them.
        """
        waves: list[Wave] = []
        sizes: list[tuple[int, int]] = []

        def decode(place: str, audio: Path | bytes) -> bytes:
            data = audio_bytes(audio)
            where = f"{audio} ({place})" if isinstance(audio, Path) else f"{split}, {place}"
            wave, rate = decode_audio(data, where)
            sizes.append((len(wave), rate))
            self._bytes += wave.nbytes
            if self._bytes <= IN_MEMORY:
                waves.append((wave, rate))
            return hashlib.sha256(data).digest()

        digests = gathered("recordings", decode, examples.ids, examples.inputs)
        self._waves[split], self._sizes[split] = waves, sizes
        if self._bytes > IN_MEMORY:
            self._waves.clear()
        return digests

    # With a backbone

    def connect(self, splits: Mapping[SplitName, Examples],
                preprocessing: AudioPreprocessing) -> list[str]:
        """Take a network's rate and features, and return notes on it for users.

        Raises:
            InputError: a recording is too long or too short for the network.
        """
        self._preprocessing = preprocessing
        self._check(splits, preprocessing)
        rate = preprocessing.sampling_rate
        self._heard = {split: self._at_rate(split, splits[split].inputs, rate) for split in splits}
        return self._resampled(rate)

    def lengths(self, split: SplitName) -> list[int]:
        """Samples of each recording at the network's rate."""
        rate = self._connected.sampling_rate
        # as resample_poly
        return [-(-size * rate // recorded) for size, recorded in self._sizes[split]]

    @property
    def alike(self) -> bool:
        """Return whether the network pads all recordings to one length."""
        return self._connected.spectrogram

    def dataset(self, split: SplitName, targets: Sequence[Any], seed: int,
                augment: AudioAugment | None) -> AudioDataset:
        """Rows of a split, changed anew each epoch where `augment` is given."""
        return AudioDataset(self._heard[split], targets, seed, self._connected, augment)

    def collate(self, stack: Callable[[Sequence[Any]], Any], seed: int,
                augment: AudioAugment | None) -> AudioCollate:
        """Rows -> batch; `stack` is the task's."""
        # loader workers need no vocabulary, and with it would get the whole backbone
        mute = replace(self._connected, encode=None, unknown=lacks_nothing)
        return AudioCollate(mute, stack, seed, augment)

    @property
    def _connected(self) -> AudioPreprocessing:
        if self._preprocessing is None:
            raise RuntimeError("the loaders need `connect` with a backbone first")
        return self._preprocessing

    def _check(self, splits: Mapping[SplitName, Examples],
               preprocessing: AudioPreprocessing) -> None:
        rate = preprocessing.sampling_rate

        def check(place: str, length: int) -> None:
            if length > preprocessing.longest * rate + 1e-6:
                raise InputError(
                    f"{place}: {length / rate:.2f} s is longer than the "
                    f"{preprocessing.longest:g} s that the backbone reads",
                    "cut it, remove it, or (for Whisper) give the backbone more seconds")
            if preprocessing.frames is not None and preprocessing.frames(length) < 1:
                raise InputError(f"{place}: {length / rate:.3f} s is too short for the backbone",
                                 "remove it")

        gathered("recordings", check,
                 [f"{split} split, {place}" for split in splits for place in splits[split].ids],
                 [length for split in splits for length in self.lengths(split)])

    def _at_rate(self, split: SplitName, inputs: Sequence[Any],
                 rate: int) -> Sequence[np.ndarray | Path | bytes]:
        """The split's recordings at `rate`, or their files where they do not fit into memory."""
        if split not in self._waves:
            return list(inputs)
        return [resample(wave, recorded, rate) for wave, recorded in self._waves[split]]

    def _resampled(self, rate: int) -> list[str]:
        other = Counter(recorded for sizes in self._sizes.values() for _, recorded in sizes
                        if recorded != rate)
        if not other:
            return []
        count, total = sum(other.values()), sum(len(sizes) for sizes in self._sizes.values())
        rates = ", ".join(f"{recorded}" for recorded in sorted(other))
        return [f"{count} of {total} recordings are resampled from {rates} to {rate} Hz"]
