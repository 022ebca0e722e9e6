"""Preprocessing: how raw examples become a network's inputs, as data modules apply it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ftlab.errors import InputError

_FEW = 20  # tokens that were added; more are another network's vocabulary


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer's tokens, and the network's embeddings for them.

    Attributes:
        label: whose they are, for messages.
        tokens: of the tokenizer.
        rows: embeddings of the network.
        lacking: tokens without an embedding, by id.
    """

    label: str
    tokens: int
    rows: int
    lacking: Mapping[int, str] = field(default_factory=dict)

    def check(self, ids: Iterable[int], place: str = "") -> None:
        """Refuse token ids that the network has no embedding for.

        Args:
            ids: that the network is going to read or write.
            place: where they come from.

        Raises:
            InputError: one of them is beyond the embeddings.
        """
        if not self.lacking or not (beyond := sorted(self.lacking.keys() & set(ids))):
            return
        at = f"{place}: " if place else ""
        raise InputError(
            f"{at}{self.label}: its tokenizer has {self.tokens} tokens and its network embeddings "
            f"for {self.rows}, so {self.lacking[beyond[0]]!r} has none (id {beyond[0]})",
            "give tokenizer: the network's own" if len(self.lacking) > _FEW else
            f"set new_tokens: {json.dumps(list(self.lacking.values()), ensure_ascii=False)}, or "
            f"save the network after resize_token_embeddings({max(self.lacking) + 1})")


@dataclass(frozen=True)
class PairPreprocessing:
    """Two texts an example to token ids and types, and these to a padded batch.

    Attributes:
        encode: pairs, longest allowed length in tokens (special tokens included) -> token ids a
            pair, as many token types, and how many of the pairs were cut. The longer text of a
            pair loses its end first.
        pad: token ids and types of a batch -> the network's inputs, each (B, T).
        types: whether the network reads token types, which say to which text a token belongs;
            where it does not, `TextPreprocessing.pad` pads the ids.
        separates: whether the tokenizer puts anything between the two.
    """

    encode: Callable[[Sequence[tuple[str, str]], int],
                     tuple[list[list[int]], list[list[int]], int]]
    pad: Callable[[Sequence[tuple[Sequence[int], Sequence[int]]]], dict[str, Tensor]]
    types: bool
    separates: bool


@dataclass(frozen=True)
class TextPreprocessing:
    """Texts to token ids, and token ids to a padded batch.

    Attributes:
        encode: texts, longest allowed length in tokens (special tokens included) ->
            token ids a text, and how many of the texts were cut.
        pad: token ids of a batch -> the network's inputs, each (B, T).
        longest: tokens the network can read.
        tokenizer: transformers' fast tokenizer, for data modules that place tokens themselves
            (prompts and answers, words and tags).
        pairs: of two texts an example.
        vocabulary: for data modules that place tokens themselves, to check them.
    """

    encode: Callable[[Sequence[str], int], tuple[list[list[int]], int]]
    pad: Callable[[Sequence[Sequence[int]]], dict[str, Tensor]]
    longest: int
    tokenizer: Any = None
    pairs: PairPreprocessing | None = None
    vocabulary: Vocabulary | None = None


def lacks_nothing(transcript: str) -> set[str]:
    """The characters of a transcript that a vocabulary of bytes, or none, lacks."""
    return set()


class OwnFit(Protocol):
    """uint8 (3, H, W) -> uint8 (3, h, w), as a processor of transformers does it."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, h and w."""

    @property
    def processor(self) -> Any:
        """The tokenizer of transformers, for exports."""

    def __call__(self, image: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class ImagePreprocessing:
    """How the backbone wants its images.

    Attributes:
        input_name: the network's keyword argument for the images.
        size: height and width it was trained with.
        mean, std: of the three channels, for values in 0..1.
        interpolation: `nearest`, `bilinear` or `bicubic`.
        fixed_size: whether another size is refused (no interpolated positions, or boxes that are
            relative to the size).
        multiple: what height and width must be multiples of.
        fits: how the network's own library brings images to its size (None) or to another; None
            where data modules do as they think right.
        patch_size: height and width of the patches that are the network's tokens; None where its
            settings name none.
    """

    input_name: str
    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    fixed_size: bool = False
    multiple: int = 1
    fits: Callable[[tuple[int, int] | None], OwnFit] | None = None
    patch_size: int | None = None


@dataclass(frozen=True)
class ImageFit:
    """How images are brought to one size.

    Attributes:
        size: height and width.
        crops: whether what covers the size is cut to its centre; stretched to it otherwise.
        processor: of transformers, that does it in its own way instead.
    """

    size: tuple[int, int]
    crops: bool
    processor: Any = None


@dataclass(frozen=True)
class AudioPreprocessing:
    """Waveforms to the network's inputs, and transcripts to label ids.

    Attributes:
        sampling_rate: in Hz, that the network wants.
        features: mono waveforms (float32, each (N,)) of that rate -> the network's inputs.
        longest: seconds the network can read; infinite where there is no limit.
        encode: transcripts -> label ids; None where the network has no vocabulary.
        unknown: the characters of a transcript that the vocabulary lacks.
        frames: how many output frames a waveform of N samples gives, where the network reads
            waveforms of any length; a character needs one.
        longest_labels: label ids that the network can write; None where there is no limit.
        spectrogram: whether the inputs are spectrograms, `input_features` (B, bands, frames)
            padded to `longest`.
    """

    sampling_rate: int
    features: Callable[[Sequence[np.ndarray]], dict[str, Tensor]]
    longest: float
    encode: Callable[[Sequence[str]], list[list[int]]] | None = None
    unknown: Callable[[str], set[str]] = lacks_nothing
    frames: Callable[[int], int] | None = None
    longest_labels: int | None = None
    spectrogram: bool = False


Preprocessing = TextPreprocessing | ImagePreprocessing | AudioPreprocessing
