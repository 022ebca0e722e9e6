"""How a network wants its sound, from Hugging Face's feature extractor files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from ftlab.backbones.preprocessing import AudioPreprocessing, Vocabulary, lacks_nothing
from ftlab.backbones.speech_settings import read_extractor, whisper_positions
from ftlab.errors import Incompatible


def audio_preprocessing(folder: Path, config: Any, label: str,
                        tokenizer: Callable[[], Any] | None,
                        vocabulary: Callable[[Any], Vocabulary | None],
                        seconds: float | None = None) -> AudioPreprocessing:
    """Log-mel spectrograms for Whisper, normalised waveforms for wav2vec2 and its kin.

    Args:
        folder: with `preprocessor_config.json` or `processor_config.json`.
        config: the architecture's settings.
        label: whose, for messages.
        tokenizer: reads that of the transcripts, where the network has a vocabulary; asked for by
            the first transcript, so that what writes nothing needs none.
        vocabulary: says of that tokenizer which tokens the network has embeddings for.
        seconds: of audio that Whisper reads; None for its own 30.

    Raises:
        InputError: no feature extractor in the folder, or too many seconds.
        Incompatible: it wants something else than log-mel spectrograms or waveforms.
    """
    extractor = read_extractor(folder, config, label)
    if config.model_type == "whisper":
        if extractor.feature_size != config.num_mel_bins:
            raise Incompatible(f"{label}: its feature extractor makes {extractor.feature_size} "
                               f"bands, and it reads {config.num_mel_bins}",
                               "mend feature_size in its preprocessor_config.json")
        positions = whisper_positions(extractor, config, seconds, label)
        samples = 2 * positions * extractor.hop_length
        _shorten(extractor, samples)
        encode = (_WhisperLabels(tokenizer, config.decoder_start_token_id, vocabulary)
                  if tokenizer else None)
        return AudioPreprocessing(
            extractor.sampling_rate, _LogMel(extractor, samples), samples / extractor.sampling_rate,
            encode, longest_labels=config.max_target_positions, spectrogram=True)
    if not (isinstance(extractor, transformers.Wav2Vec2FeatureExtractor)
            and hasattr(config, "conv_kernel")):  # Moonshine's is one too, and has no such layers
        raise Incompatible(f"{label}: {config.model_type} with {type(extractor).__name__} is not "
                           "supported",
                           "choose Whisper, wav2vec2, HuBERT, WavLM or another model that reads "
                           "waveforms")
    characters = _Characters(tokenizer) if tokenizer else None
    return AudioPreprocessing(
        extractor.sampling_rate, _Waveform(extractor), math.inf,
        characters, _Unknown(tokenizer) if tokenizer else lacks_nothing,
        frames=_Frames(tuple(config.conv_kernel), tuple(config.conv_stride)))


def _shorten(extractor: Any, samples: int) -> None:
    """Let Whisper's extractor say how much it reads, since it is saved beside the network.

    transformers takes whole seconds alone: with others its own calls end in a TypeError.
    """
    seconds = samples / extractor.sampling_rate
    extractor.chunk_length = int(seconds) if seconds.is_integer() else seconds
    extractor.n_samples, extractor.nb_max_frames = samples, samples // extractor.hop_length


def _spaced(transcript: str) -> str:
    """One plain space between words: vocabularies have no other white space."""
    return " ".join(transcript.split())


# Classes, not closures, so that loader workers can have them.


@dataclass(frozen=True)
class _LogMel:
    extractor: Any
    samples: int

    def __call__(self, waveforms: Sequence[np.ndarray]) -> dict[str, Tensor]:
        features = self.extractor(list(waveforms), sampling_rate=self.extractor.sampling_rate,
                                  max_length=self.samples, return_tensors="pt")
        return {"input_features": features["input_features"]}  # (B, bands, frames)


@dataclass(frozen=True)
class _Waveform:
    extractor: Any

    def __call__(self, waveforms: Sequence[np.ndarray]) -> dict[str, Tensor]:
        # without a mask, as some extractors give it, what is padding would be read as sound
        features = self.extractor(list(waveforms), sampling_rate=self.extractor.sampling_rate,
                                  padding=True, return_attention_mask=True, return_tensors="pt")
        # int32 as it comes; transformers sums the mask into lengths
        return {"input_values": features["input_values"],  # (B, N)
                "attention_mask": features["attention_mask"].to(torch.long)}


@dataclass(frozen=True)
class _WhisperLabels:
    tokenizer: Callable[[], Any]
    start: int
    vocabulary: Callable[[Any], Vocabulary | None]

    def __call__(self, transcripts: Sequence[str]) -> list[list[int]]:
        """Ids behind the start token, which the network puts in front itself."""
        # Whisper was trained on transcripts with a space in front, and writes them so
        tokenizer = self.tokenizer()
        rows = tokenizer([" " + _spaced(text) for text in transcripts])["input_ids"]
        vocabulary = self.vocabulary(tokenizer)
        if vocabulary is not None:
            vocabulary.check(chain.from_iterable(rows), "transcripts")
        return [ids[1:] if ids[0] == self.start else ids for ids in rows]


@dataclass(frozen=True)
class _Characters:
    tokenizer: Callable[[], Any]

    def __call__(self, transcripts: Sequence[str]) -> list[list[int]]:
        tokenizer = self.tokenizer()
        return [list(tokenizer(_spaced(text))["input_ids"]) for text in transcripts]


@dataclass(frozen=True)
class _Unknown:
    tokenizer: Callable[[], Any]
    lacks: dict[str, bool] = field(default_factory=lambda: {" ": False}, compare=False)
    """Remember of each character whether it is unknown: a lookup takes a tokenizer 0.1 ms."""

    def __call__(self, transcript: str) -> set[str]:
        characters = set(_spaced(transcript))
        if new := characters - self.lacks.keys():
            tokenizer = self.tokenizer()
            for character in new:
                self.lacks[character] = (
                    tokenizer.unk_token_id in tokenizer(character)["input_ids"])
        return {character for character in characters if self.lacks[character]}


@dataclass(frozen=True)
class _Frames:
    kernels: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, samples: int) -> int:
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples = (samples - kernel) // stride + 1
        return max(0, samples)
