"""The settings of a speech network: Whisper's window and language, characters."""

from __future__ import annotations

import json
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from ftlab.backbones.front_end import FILE, check_told
from ftlab.backbones.source import reason as first_line
from ftlab.backbones.untrusted_settings import closed
from ftlab.errors import Incompatible, InputError

# settings of the folder's own class alone, where an extractor has it
_ONLY_ITS_CLASS = ("sampling_rate", "do_normalize", "feature_size", "hop_length", "n_fft")
_ENGLISH_VOCABULARY = 51864  # OpenAI's own rule: more tokens are many languages


@dataclass(frozen=True)
class Speech:
    """Settings of speech networks, for `HuggingFace`.

    Args:
        seconds: of audio that Whisper reads, shorter recordings being padded to it; null for its
            own 30, which cost the same for a short recording as for a long one. Untuned, Whisper
            tends to repeat itself where it reads less.
        language: that a multilingual Whisper reads and writes, for instance en; not needed where
            nothing is written.
        characters: that a speech encoder shall write with a new output layer, which is its head,
            for instance "abcdefghijklmnopqrstuvwxyz'"; spaces are understood. Null keeps the
            checkpoint's own.
    """

    seconds: float | None = None
    language: str | None = None
    characters: str | None = None

    def __post_init__(self) -> None:
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds must be above 0, got {self.seconds}")
        if self.language is not None and self.language.lower() not in _languages():
            raise ValueError("language must be one that Whisper knows, for instance en or english, "
                             f"got {self.language!r}")
        if self.characters is not None and len(set(self.characters)) < len(self.characters):
            raise ValueError(f"characters must differ from each other, got {self.characters!r}")

    def check(self, config: Any, label: str) -> None:
        """Refuse settings that an architecture does not have.

        Args:
            config: the architecture's settings.
            label: whose, for messages.

        Raises:
            Incompatible: with the setting.
        """
        if config.model_type != "whisper":
            for name in ("seconds", "language"):
                if getattr(self, name) is not None:
                    raise Incompatible(f"{label}: {name} is a setting of Whisper, not of "
                                       f"{config.model_type}", f"leave out {name}")
        elif self.language is not None and not _multilingual(config):
            raise Incompatible(f"{label}: it knows one language alone", "leave out language")
        if self.characters is not None and type(config) not in transformers.MODEL_FOR_CTC_MAPPING:
            raise Incompatible(f"{label}: characters is a setting of speech encoders (wav2vec2, "
                               f"HuBERT, WavLM), not of {config.model_type}",
                               "leave out characters")


def _languages() -> set[str]:
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    return {*TO_LANGUAGE_CODE, *TO_LANGUAGE_CODE.values()}


def _multilingual(config: Any) -> bool:
    return bool(config.vocab_size > _ENGLISH_VOCABULARY)


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
    with tempfile.TemporaryDirectory() as folder:  # transformers reads vocabularies from files
        path = Path(folder) / "vocab.json"
        path.write_text(json.dumps({symbol: i for i, symbol in enumerate(symbols)}))
        return transformers.Wav2Vec2CTCTokenizer(os.fspath(path), bos_token=None, eos_token=None)


def settle_characters(config: Any, characters: str) -> None:
    """Give the configuration an output layer for `character_tokenizer(characters)`."""
    tokenizer = character_tokenizer(characters)
    config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    config.bos_token_id = config.eos_token_id = None


def settle_whisper(network: Any, folder: Path, label: str, speech: Speech) -> None:
    """Shorten Whisper's encoder to `speech.seconds`, fix its positions, set the language.

    The encoder's positions are sinusoids that are never trained (Radford et al. 2022,
    https://arxiv.org/abs/2212.04356), so they become a buffer. Reading fewer of them is what
    whisper.cpp calls the audio context.
    """
    encoder = network.get_encoder() if hasattr(network, "proj_out") else network.encoder
    table = encoder.embed_positions
    positions = whisper_positions(read_extractor(folder, network.config, label), network.config,
                                  speech.seconds, label)
    rows = table.weight.detach()[:positions].clone()
    del table.weight
    table.register_buffer("weight", rows)
    table.num_embeddings = encoder.max_source_positions = positions
    network.config.max_source_positions = positions
    if speech.language is not None and network.can_generate():
        network.generation_config.language = speech.language
        network.generation_config.task = "transcribe"


def whisper_positions(extractor: Any, config: Any, seconds: float | None, label: str) -> int:
    """Encoder positions, each of two spectrogram frames, that hold `seconds`; all for None.

    Raises:
        InputError: more than the network has.
    """
    if seconds is None:
        return int(config.max_source_positions)
    step = 2 * extractor.hop_length / extractor.sampling_rate
    positions = math.ceil(seconds / step - 1e-6)
    if positions > config.max_source_positions:
        raise InputError(f"{label}: seconds is {seconds:g}, and it reads at most "
                         f"{config.max_source_positions * step:g}",
                         "lower seconds, or leave it out")
    return positions


def set_language(tokenizer: Any, config: Any, label: str, language: str | None) -> None:
    """Put the language into the tokens that begin each of Whisper's transcripts.

    Raises:
        Incompatible: a multilingual network without one.
    """
    if _multilingual(config) and language is None:
        raise Incompatible(f"{label}: it knows many languages, and training needs to say which",
                           "set speech: {language: ...}, for instance en")
    if language is not None:
        tokenizer.set_prefix_tokens(language=language, task="transcribe", predict_timestamps=False)


def read_extractor(folder: Path, config: Any, label: str) -> Any:
    """The folder's feature extractor; its class fills in what the file leaves out.

    Args:
        folder: of the file.
        config: the architecture's settings, which transformers takes the class from where the file
            names none.
        label: whose, for messages.

    Raises:
        InputError: there is none, it cannot be read, or it names no class and leaves out what only
            that defines.
    """
    try:
        with closed():
            extractor = transformers.AutoFeatureExtractor.from_pretrained(
                os.fspath(folder), config=config, trust_remote_code=False)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
            RuntimeError, ImportError) as error:  # the last of a package that its class needs
        reason = f" that can be read ({first_line(error)})" if (folder / FILE).is_file() else ""
        raise InputError(f"{label}: no feature extractor{reason} in {folder}",
                         "name a folder with preprocessor_config.json in it, here or as "
                         "preprocessor") from error
    keys = [key for key in _ONLY_ITS_CLASS if hasattr(extractor, key)]
    check_told(folder, "feature_extractor", extractor, keys, label)
    return extractor
