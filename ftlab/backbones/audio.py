"""How a network wants its sound, from Hugging Face's feature extractor files."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

from ftlab.backbones.preprocessing import AudioPreprocessing
from ftlab.errors import Incompatible, InputError

_ENGLISH_VOCABULARY = 51864  # OpenAI's own rule: more tokens are many languages


def audio_preprocessing(folder: Path, config: Any, label: str, tokenizer: Any = None,
                        seconds: float | None = None) -> AudioPreprocessing:
    """Log-mel spectrograms for Whisper, normalised waveforms for wav2vec2 and its kin.

    Args:
        folder: with `preprocessor_config.json` or `processor_config.json`.
        config: the architecture's settings.
        label: whose, for messages.
        tokenizer: of the transcripts, where the network has a vocabulary.
        seconds: of audio that Whisper reads; None for its own 30.

    Raises:
        InputError: no feature extractor in the folder.
        Incompatible: it wants something else than log-mel spectrograms or waveforms.
    """
    extractor = _extractor(folder, label)
    if config.model_type == "whisper":
        samples = 2 * whisper_positions(extractor, config, seconds) * extractor.hop_length
        encode = _WhisperLabels(tokenizer, config.decoder_start_token_id) if tokenizer else None
        return AudioPreprocessing(
            extractor.sampling_rate, _LogMel(extractor, samples), samples / extractor.sampling_rate,
            encode, longest_labels=config.max_target_positions, spectrogram=True)
    if not isinstance(extractor, transformers.Wav2Vec2FeatureExtractor):
        raise Incompatible(f"{label}: {type(extractor).__name__} is not supported",
                           "choose Whisper, wav2vec2, HuBERT, WavLM or another model that reads "
                           "waveforms")
    characters = _Characters(tokenizer) if tokenizer else None
    return AudioPreprocessing(
        extractor.sampling_rate, _Waveform(extractor), math.inf,
        characters, _Unknown(tokenizer) if tokenizer else _nothing,
        frames=_Frames(tuple(config.conv_kernel), tuple(config.conv_stride)))


def settle_audio(config: Any) -> None:
    """Switch off what the network would randomly do to its own input and layers in training.

    Masking (SpecAugment) is augmentation, and a data module's for every technique alike. Both it
    and layer drop would act or not by whether the first block trains, and a dropped layer has no
    gradient, which DDP takes for an error.
    """
    for name in ("mask_time_prob", "mask_feature_prob", "layerdrop", "encoder_layerdrop",
                 "decoder_layerdrop"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    if hasattr(config, "apply_spec_augment"):
        config.apply_spec_augment = False


def character_tokenizer(characters: str) -> Any:
    """A tokenizer of single characters, with a blank, an unknown symbol and `|` between words."""
    symbols = ["<pad>", "<unk>", "|", *(c for c in characters if c not in " |")]
    with tempfile.TemporaryDirectory() as folder:  # transformers reads vocabularies from files alone
        path = Path(folder) / "vocab.json"
        path.write_text(json.dumps({symbol: i for i, symbol in enumerate(symbols)}))
        return transformers.Wav2Vec2CTCTokenizer(os.fspath(path), bos_token=None, eos_token=None)


def settle_characters(config: Any, characters: str, label: str) -> None:
    """Give the configuration an output layer for `character_tokenizer(characters)`.

    Raises:
        Incompatible: not a network with connectionist temporal classification.
    """
    if type(config) not in transformers.MODEL_FOR_CTC_MAPPING:
        raise Incompatible(f"{label}: characters is a setting of speech encoders (wav2vec2, "
                           f"HuBERT, WavLM), not of {config.model_type}", "leave out characters")
    tokenizer = character_tokenizer(characters)
    config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    config.bos_token_id = config.eos_token_id = None


def check_whisper(config: Any, label: str, seconds: float | None, language: str | None) -> None:
    """Refuse Whisper's settings for other networks.

    Raises:
        Incompatible: with which setting.
    """
    if config.model_type != "whisper":
        for name, value in (("seconds", seconds), ("language", language)):
            if value is not None:
                raise Incompatible(f"{label}: {name} is a setting of Whisper, not of "
                                   f"{config.model_type}", f"leave out {name}")


def settle_whisper(network: Any, folder: Path, label: str, seconds: float | None,
                   language: str | None) -> None:
    """Shorten Whisper's encoder to `seconds`, fix its positions, tell it the language.

    The encoder's positions are sinusoids that are never trained (Radford et al. 2022,
    https://arxiv.org/abs/2212.04356), so they become a buffer. Reading fewer of them is what
    whisper.cpp calls the audio context.
    """
    encoder = network.get_encoder() if hasattr(network, "proj_out") else network.encoder
    table = encoder.embed_positions
    positions = whisper_positions(_extractor(folder, label), network.config, seconds)
    rows = table.weight.detach()[:positions].clone()
    del table.weight
    table.register_buffer("weight", rows)
    table.num_embeddings = encoder.max_source_positions = positions
    network.config.max_source_positions = positions
    if language is not None and network.can_generate():
        network.generation_config.language = language
        network.generation_config.task = "transcribe"


def whisper_positions(extractor: Any, config: Any, seconds: float | None) -> int:
    """Encoder positions, each of two spectrogram frames, that hold `seconds`; all for None.

    Raises:
        ValueError: more than the network has.
    """
    if seconds is None:
        return int(config.max_source_positions)
    step = 2 * extractor.hop_length / extractor.sampling_rate
    positions = math.ceil(seconds / step - 1e-6)
    if positions > config.max_source_positions:
        raise ValueError(f"seconds must be at most {config.max_source_positions * step:g}, "
                         f"got {seconds:g}")
    return positions


def set_language(tokenizer: Any, config: Any, label: str, language: str | None) -> None:
    """Put the language into the tokens that begin each of Whisper's transcripts.

    Raises:
        Incompatible: a multilingual network without one, or another with one.
        ValueError: Whisper does not know the language.
    """
    multilingual = config.vocab_size > _ENGLISH_VOCABULARY
    if multilingual and language is None:
        raise Incompatible(f"{label}: it knows many languages, and training needs to say which",
                           "set language, for instance language: en")
    if language is not None:
        if not multilingual:
            raise Incompatible(f"{label}: it knows one language alone", "leave out language")
        tokenizer.set_prefix_tokens(language=language, task="transcribe", predict_timestamps=False)


def _extractor(folder: Path, label: str) -> Any:
    try:
        return transformers.AutoFeatureExtractor.from_pretrained(os.fspath(folder))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{label}: no feature extractor in {folder}",
                         "name a folder with preprocessor_config.json in it") from error


def _nothing(transcript: str) -> set[str]:
    return set()


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
        features = self.extractor(list(waveforms), sampling_rate=self.extractor.sampling_rate,
                                  padding=True, return_tensors="pt")
        # int32 as it comes; transformers sums the mask into lengths
        return {name: value if value.is_floating_point() else value.to(torch.long)
                for name, value in features.items()}  # (B, N)


@dataclass(frozen=True)
class _WhisperLabels:
    tokenizer: Any
    start: int

    def __call__(self, transcripts: Sequence[str]) -> list[list[int]]:
        """Ids behind the start token, which the network puts in front itself."""
        # Whisper was trained on transcripts with a space in front, and writes them so
        found = self.tokenizer([" " + text.strip() for text in transcripts])["input_ids"]
        return [ids[1:] if ids[0] == self.start else ids for ids in found]


@dataclass(frozen=True)
class _Characters:
    tokenizer: Any

    def __call__(self, transcripts: Sequence[str]) -> list[list[int]]:
        return [list(self.tokenizer(text)["input_ids"]) for text in transcripts]


@dataclass(frozen=True)
class _Unknown:
    tokenizer: Any

    def __call__(self, transcript: str) -> set[str]:
        unknown = self.tokenizer.unk_token_id
        return {character for character in set(transcript)
                if not character.isspace() and unknown in self.tokenizer(character)["input_ids"]}


@dataclass(frozen=True)
class _Frames:
    kernels: tuple[int, ...]
    strides: tuple[int, ...]

    def __call__(self, samples: int) -> int:
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples = (samples - kernel) // stride + 1
        return max(0, samples)

