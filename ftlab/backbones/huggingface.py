"""Networks in Hugging Face's layout, for any architecture that transformers' Auto classes know."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import transformers

from ftlab.backbones.attention import Attention, check_attention
from ftlab.backbones.audio_preprocessing import audio_preprocessing
from ftlab.backbones.base import Backbone, OutputType, TaskSpec
from ftlab.backbones.export_code import Origin
from ftlab.backbones.front_end import has_front_end
from ftlab.backbones.gguf_file import gguf_files, is_gguf
from ftlab.backbones.heads.detection import build_boxes
from ftlab.backbones.heads.embedding import build_embedding
from ftlab.backbones.heads.masked import build_masked
from ftlab.backbones.heads.per_token import build_tokens
from ftlab.backbones.heads.pooled import build_vector
from ftlab.backbones.heads.segmentation import build_pixels
from ftlab.backbones.heads.single_precision import widen_head
from ftlab.backbones.heads.text import build_text
from ftlab.backbones.hub import find_folder, find_tokenizer, weight_files
from ftlab.backbones.image_preprocessing import image_preprocessing
from ftlab.backbones.load_pretrained import Checkpoint, quiet, read_config
from ftlab.backbones.new_tokens import add_embeddings, add_tokens
from ftlab.backbones.pooling import Pooling, folder_pooling
from ftlab.backbones.preprocessing import Preprocessing, Vocabulary
from ftlab.backbones.quantization import Quantization, dequantize
from ftlab.backbones.source import WholeOnly, check_sha256, sha256_of
from ftlab.backbones.source_layer import SourceLayer, lacking, read_tensors, source_layer
from ftlab.backbones.speech_settings import (
    Speech,
    character_tokenizer,
    set_language,
    settle_audio,
    settle_characters,
    settle_whisper,
)
from ftlab.backbones.task_model import TaskModel
from ftlab.backbones.text_preprocessing import (
    check_vocabulary,
    from_padding,
    has_tokenizer,
    load_tokenizer,
    read_vocabulary,
    text_preprocessing,
)
from ftlab.backbones.unread_weights import UnreadWeights
from ftlab.backbones.waveforms import settle_padding

_POOLING = (*get_args(Pooling), "own")
_AUDIO = (transformers.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING, transformers.MODEL_FOR_CTC_MAPPING,
          transformers.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING)
_IMAGE = (transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, transformers.MODEL_FOR_OBJECT_DETECTION_MAPPING,
          transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING)


class HuggingFace(Backbone):
    """A network from a folder in Hugging Face's layout.

    Weights come from safetensors, or from `pytorch_model.bin` read with `weights_only`; code in
    the folder is never run. Weights that the architecture needs and the folder lacks are an
    error, except for the head, which is always new: a classifier that the checkpoint ships is
    not used, so that all runs start equal.

    With `pooling: own` the head is the architecture's (what transformers' classification class
    has outside its base model); where transformers has none, the head is a linear layer on
    pooled features: the mean over a text's real tokens; for images `pooler_output`, else the
    mean over positions.

    Args:
        source: local folder, `package:NAME/PATH`, or hub id; or, of a language model, a .gguf
            file.
        revision: branch, tag or commit of a hub id; pin a commit for a repeatable study.
        dtype: of the weights in memory: float32, bfloat16 or float16; a new head has float32.
        pooling: mean, first, last or max over tokens, or own; null takes what a
            sentence-transformers folder says (1_Pooling), and own for other folders.
        dropout: replaces every dropout probability of the network (not layer drop or stochastic
            depth); null leaves them.
        head_dropout: of a head on pooled features; an own head keeps its architecture's.
        tokenizer: folder or hub id of the tokenizer, where the source ships none; pin a hub id
            as NAME@REVISION.
        preprocessor: folder or hub id of the image processor or feature extractor, where the
            source ships none; pinned as the tokenizer.
        sha256: what the fingerprint of the weights must be, or begin with.
        speech: how a speech network reads and writes.
        new_tokens: words or marks that the vocabulary lacks, or has without an embedding, each to
            be one token; their embeddings start near the mean of the pieces that they were, and
            train with every technique.
        quantize: the base's linear layers to 4 or 8 bits; null leaves them.
        attention: the function that computes attention; null leaves the choice to transformers.
    """

    def __init__(self, source: str, revision: str | None = None,
                 dtype: Literal["float32", "bfloat16", "float16"] = "float32",
                 pooling: Literal["mean", "first", "last", "max", "own"] | None = None,
                 dropout: float | None = None, head_dropout: float = 0.1,
                 tokenizer: str | None = None, sha256: str | None = None,
                 speech: Speech = Speech(), new_tokens: list[str] | None = None,
                 preprocessor: str | None = None, quantize: Quantization | None = None,
                 attention: Attention | None = None) -> None:
        if dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"dtype must be float32, bfloat16 or float16, got {dtype!r}")
        if attention not in (None, *get_args(Attention)):
            raise ValueError(f"attention must be one of {get_args(Attention)}, got {attention!r}")
        if pooling is not None and pooling not in _POOLING:
            raise ValueError(f"pooling must be one of {_POOLING}, got {pooling!r}")
        for name, value in (("dropout", dropout), ("head_dropout", head_dropout)):
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {value}")
        self.source = source
        self.revision = revision
        self.dtype = dtype
        self.pooling = pooling
        self.dropout = dropout
        self.head_dropout = head_dropout
        self.tokenizer = tokenizer
        self.sha256 = sha256
        self.speech = speech
        self.new_tokens = new_tokens
        self.preprocessor = preprocessor
        self.quantize = quantize
        self.attention = attention
        self._folders: dict[bool, Path] = {}
        self._pieces: dict[str, list[int]] = {}
        self._new_ids: list[int] = []

    @property
    def label(self) -> str:
        """The name in messages."""
        at = f"@{self.revision}" if self.revision else ""
        return f"HuggingFace({self.source}{at})"

    @cached_property
    def preprocessing(self) -> Preprocessing:
        with quiet():
            config = self._config()
            folder = self._folder(weights=False)
            match self._modality(config):
                case "image":
                    return image_preprocessing(self._front_end, config, self.label)
                case "audio":
                    readable = self.speech.characters or self.tokenizer or has_tokenizer(folder)
                    return audio_preprocessing(self._front_end, config, self.label,
                                               self._read_tokenizer if readable else None,
                                               self._vocabulary_of, self.speech.seconds)
                case "text":
                    return text_preprocessing(config, self._tokenizer, self._vocabulary_of(self._tokenizer))

    @property
    def fingerprint(self) -> str:
        return sha256_of(self._shipped())

    @property
    def origin(self) -> Origin:
        return Origin(self.source, self.revision)

    def build_unread(self, task: TaskSpec, output_type: OutputType | None = None) -> TaskModel:
        if is_gguf(self.source) or self.quantize is not None or self.new_tokens:
            raise WholeOnly("GGUF, quantize or new_tokens")
        if self._modality(self._config()) == "audio":
            raise WholeOnly("a network for sound")
        unread: list[UnreadWeights] = []
        model = self.build(task, output_type, unread=unread)
        model.unread, = unread
        return model

    def build(self, task: TaskSpec, output_type: OutputType | None = None, meta: bool = False,
              unread: list[UnreadWeights] | None = None) -> TaskModel:
        with quiet():
            checkpoint = self._checkpoint(meta, unread)
            pooling = self.pooling or folder_pooling(self._folder(weights=False))
            pool_over = None if pooling == "own" else pooling
            match output_type or task.output_type:
                case "vector":
                    model = build_vector(checkpoint, task, pool_over, self.head_dropout)
                case "tokens":
                    model = build_tokens(checkpoint, task)
                case "boxes":
                    model = build_boxes(checkpoint, task)
                case "pixels":
                    model = build_pixels(checkpoint, task)
                case "text":
                    model = build_text(checkpoint, task)
                case "masked":
                    model = build_masked(checkpoint, task)
                case "embedding":
                    model = build_embedding(checkpoint, pool_over)
        model.new_ids = self._new_ids
        widen_head(model)
        if self.quantize is not None:
            self.quantize.apply(model, self.label)
            if self.dequantized:
                dequantize(model)
        return model

    def source_layer(self, path: str) -> SourceLayer:
        if is_gguf(self.source):
            raise lacking(f"{self.label}: a GGUF file has no classifier")
        if self._config().problem_type == "multi_label_classification":
            raise lacking(f"{self.label}: the checkpoint's classes do not exclude each other")
        names = [f"{path}.weight", f"{path}.bias"]
        return source_layer(read_tensors(self._weights(), names, self.label), path, self.label)

    def _checkpoint(self, meta: bool, unread: list[UnreadWeights] | None) -> Checkpoint:
        config = self._config()
        if self._modality(config) == "text":
            rows = getattr(config, "vocab_size", None)
            if rows is None or self._tokenizer.pad_token_id < rows:  # a new one gets its row later
                config.pad_token_id = self._tokenizer.pad_token_id
        return Checkpoint(self.label, self._folder(weights=False), config,
                          getattr(torch, self.dtype), self._weights,
                          self._read_tokenizer, meta, self._finish,
                          self.new_tokens or (), bool(self.speech.characters), unread)

    def _finish(self, network: Any) -> None:
        if network.config.model_type == "whisper":
            settle_whisper(network, self._front_end, self.label, self.speech)
        if self._modality(network.config) == "audio" and hasattr(network.config, "conv_kernel"):
            settle_padding(network)
        if self.new_tokens:
            tokens = self._tokenizer.get_vocab()
            pieces = {tokens[token]: pieces_of for token, pieces_of in self._pieces.items()}
            self._new_ids = add_embeddings(network, pieces, self.label)
            if self._tokenizer.pad_token_id in self._new_ids and not from_padding(network.config):
                network.config.pad_token_id = self._tokenizer.pad_token_id

    def _folder(self, weights: bool = True) -> Path:
        """Asks the hub once: what is built does not change below a session."""
        if weights not in self._folders:
            self._folders[weights] = find_folder(self.source, self.revision, weights)
        return self._folders[weights]

    @property
    def _front_end(self) -> Path:
        """The folder that says how images or sound become inputs."""
        return (self._folder(weights=False) if self.preprocessor is None
                else find_tokenizer(self.preprocessor))

    def _weights(self) -> list[Path]:
        self._shipped()
        return weight_files(self._folder())

    def _shipped(self) -> list[Path]:
        """The files that the weights come from, checked."""
        files = gguf_files(self.source) if is_gguf(self.source) else weight_files(self._folder())
        check_sha256(files, self.sha256, self.label)
        return files

    def _read_tokenizer(self) -> Any:
        with quiet():
            return self._tokenizer

    @cached_property
    def _tokenizer(self) -> Any:
        if self.speech.characters:
            return character_tokenizer(self.speech.characters)
        folder = (self._folder(weights=False) if self.tokenizer is None
                  else find_tokenizer(self.tokenizer))
        config = self._config()
        fast = self._modality(config) != "audio"
        tokenizer = load_tokenizer(folder, self.label, config, fast)
        if config.model_type == "whisper":
            set_language(tokenizer, config, self.label, self.speech.language)
        vocabulary = read_vocabulary(config, tokenizer, self.label)
        if self.new_tokens and vocabulary is not None:
            self._pieces = add_tokens(tokenizer, self.new_tokens, self.label, vocabulary.rows)
        if type(config) not in transformers.MODEL_FOR_CTC_MAPPING:  # whose output layer is checked
            check_vocabulary(self._vocabulary_of(tokenizer), tokenizer)
        return tokenizer

    def _vocabulary_of(self, tokenizer: Any) -> Vocabulary | None:
        return read_vocabulary(self._config(), tokenizer, self.label, self.new_tokens or ())

    def _config(self) -> Any:
        config = read_config(self._folder(weights=False), self.dropout, self.label)
        if self.attention is not None:
            check_attention(self.attention, self.dtype, self.label)
            config._attn_implementation = self.attention
        self.speech.check(config, self.label)
        if self.speech.characters:
            settle_characters(config, self.speech.characters)
        if self._modality(config) == "audio":
            settle_audio(config)
        return config

    def _modality(self, config: Any) -> Literal["text", "image", "audio"]:
        kind = type(config)
        if kind in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
            return "text"
        if any(kind in mapping for mapping in _AUDIO):
            return "audio"
        reads_images = (any(kind in mapping for mapping in _IMAGE)
                        or has_front_end(self._front_end, "image_processor")
                        or (hasattr(config, "num_channels") and not hasattr(config, "vocab_size")))
        return "image" if reads_images else "text"
