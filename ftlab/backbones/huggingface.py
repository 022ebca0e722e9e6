"""Networks in Hugging Face's layout, for any architecture that transformers' Auto classes know."""

from __future__ import annotations

from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import transformers
from torch import nn

from ftlab.backbones.base import Backbone, Preprocessing, TaskModel, TaskSpec
from ftlab.backbones.blocks import find_blocks, with_dropout
from ftlab.backbones.hub import find_folder, read_json, weight_files
from ftlab.backbones.images import image_preprocessing
from ftlab.backbones.pooling import PooledHead, Pooling
from ftlab.backbones.pretrained import (
    check_complete,
    empty_network,
    load_network,
    quiet,
    read_config,
)
from ftlab.backbones.source import check_sha256, sha256_of
from ftlab.backbones.tokens import load_tokenizer, text_preprocessing
from ftlab.errors import Incompatible, InputError

_POOLING = (*get_args(Pooling), "own")
_SENTENCE_TRANSFORMERS: dict[str, Pooling] = {
    "mean_tokens": "mean", "mean": "mean", "cls_token": "first", "cls": "first",
    "max_tokens": "max", "max": "max", "lasttoken": "last"}


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
        source: local folder, `package:NAME/PATH`, or hub id.
        revision: branch, tag or commit of a hub id; pin a commit for a repeatable study.
        dtype: of the weights in memory: float32, bfloat16 or float16.
        pooling: mean, first, last or max over tokens, or own; null takes what a
            sentence-transformers folder says (1_Pooling), and own for other folders.
        dropout: replaces every dropout probability of the network (not layer drop or stochastic
            depth); null leaves them.
        head_dropout: of a head on pooled features; an own head keeps its architecture's.
        tokenizer: folder or hub id of the tokenizer, where the source ships none.
        sha256: what the fingerprint of the weights must be, or begin with.
    """

    def __init__(self, source: str, revision: str | None = None,
                 dtype: Literal["float32", "bfloat16", "float16"] = "float32",
                 pooling: Literal["mean", "first", "last", "max", "own"] | None = None,
                 dropout: float | None = None, head_dropout: float = 0.1,
                 tokenizer: str | None = None, sha256: str | None = None) -> None:
        if dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"dtype must be float32, bfloat16 or float16, got {dtype!r}")
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
        self._folders: dict[bool, Path] = {}

    @property
    def label(self) -> str:
        """What messages call it."""
        at = f"@{self.revision}" if self.revision else ""
        return f"HuggingFace({self.source}{at})"

    @cached_property
    def preprocessing(self) -> Preprocessing:
        with quiet():
            config = self._config()
            if self._reads_images(config):
                return image_preprocessing(self._folder(weights=False), config, self.label)
            return text_preprocessing(config, self._tokenizer)

    @property
    def fingerprint(self) -> str:
        return sha256_of(self._weights())

    def build(self, task: TaskSpec, meta: bool = False) -> TaskModel:
        with quiet():
            config = self._config()
            if not self._reads_images(config):
                config.pad_token_id = self._tokenizer.pad_token_id
            pooling = self.pooling or self._folder_pooling() or "own"
            auto = _own_class(task, config)
            if pooling == "own" and auto is not None:
                return self._with_own_head(auto, config, task.outputs, meta)
            mode: Pooling = "mean" if pooling == "own" else pooling
            return self._with_pooled_head(mode, config, task.outputs, meta)

    def _with_own_head(self, auto: Any, config: Any, outputs: int, meta: bool) -> TaskModel:
        config.num_labels = outputs
        dtype = getattr(torch, self.dtype)
        if meta:
            network = empty_network(auto, config, dtype)
        else:
            network, lacking = load_network(auto, config, dtype, self._weights(), self.label)
        head = _head_paths(network)
        if not meta:
            roots = tuple(f"{path}." for path in head)
            check_complete({name for name in lacking if not name.startswith(roots)}, self.label)
            for path in head:
                _renew(network, path)
        head = with_dropout(network, head)
        return TaskModel(network, find_blocks(network, head), head, read=attrgetter("logits"))

    def _with_pooled_head(self, mode: Pooling, config: Any, outputs: int,
                          meta: bool) -> TaskModel:
        auto = _headless_class(config, self.label)
        dtype = getattr(torch, self.dtype)
        width = _width(config, self.label)
        if meta:
            network = empty_network(auto, config, dtype)
            with torch.device("meta"):
                head = PooledHead(width, outputs, mode, self.head_dropout)
        else:
            network, lacking = load_network(auto, config, dtype, self._weights(), self.label)
            check_complete(lacking, self.label)
            head = PooledHead(width, outputs, mode, self.head_dropout)
        return TaskModel(network, find_blocks(network, ()), pooled_head=head.to(dtype))

    def _folder(self, weights: bool = True) -> Path:
        """Asks the hub once: what is built does not change below a session."""
        if weights not in self._folders:
            self._folders[weights] = find_folder(self.source, self.revision, weights)
        return self._folders[weights]

    def _weights(self) -> list[Path]:
        files = weight_files(self._folder())
        check_sha256(files, self.sha256, self.label)
        return files

    @cached_property
    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            return load_tokenizer(self._folder(weights=False), self.label)
        return load_tokenizer(find_folder(self.tokenizer, None, weights=False), self.label)

    def _config(self) -> Any:
        return read_config(self._folder(weights=False), self.dropout, self.label)

    def _reads_images(self, config: Any) -> bool:
        if type(config) in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
            return False
        return (type(config) in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
                or (self._folder(weights=False) / "preprocessor_config.json").is_file()
                or (hasattr(config, "num_channels") and not hasattr(config, "vocab_size")))

    def _folder_pooling(self) -> Pooling | None:
        path = self._folder(weights=False) / "1_Pooling" / "config.json"
        if not path.is_file():
            return None
        settings = read_json(path)
        modes = [name.removeprefix("pooling_mode_") for name, value in settings.items()
                 if name.startswith("pooling_mode_") and value is True]
        if isinstance(mode := settings.get("pooling_mode"), str):
            modes = [mode]
        if len(modes) != 1 or modes[0] not in _SENTENCE_TRANSFORMERS:
            raise InputError(f"{path}: pooling {' + '.join(modes) or 'nothing'} is not supported",
                             "set pooling to mean, first, last or max")
        return _SENTENCE_TRANSFORMERS[modes[0]]


def _own_class(task: TaskSpec, config: Any) -> Any:
    """The task's first Auto class that knows the architecture, or None."""
    autos = (getattr(transformers, name) for name in task.auto_classes)
    return next((auto for auto in autos if type(config) in auto._model_mapping), None)


def _headless_class(config: Any, label: str) -> Any:
    """The Auto class of the bare network; of an encoder-decoder, its encoder."""
    encoder_only = getattr(config, "is_encoder_decoder", False)
    auto: Any = transformers.AutoModelForTextEncoding if encoder_only else transformers.AutoModel
    if type(config) not in auto._model_mapping:
        raise Incompatible(f"{label}: transformers has no headless network for "
                           f"{config.model_type} whose features could be pooled",
                           "set pooling: own")
    return auto


def _head_paths(network: nn.Module) -> list[str]:
    """What a classification class has beside its base model, the largest child."""
    sizes = {name: sum(p.numel() for p in child.parameters())
             for name, child in network.named_children()}
    base = getattr(network, "base_model_prefix", "")
    base = base if base in sizes else max(sizes, key=lambda name: sizes[name])
    return [name for name, size in sizes.items() if name != base and size]


def _renew(network: Any, path: str) -> None:
    """Initialise a part as its architecture does, from torch's generator."""
    part = network.get_submodule(path)
    for tensor in (*part.parameters(), *part.buffers()):
        tensor._is_hf_initialized = False  # else transformers keeps what was loaded
    with torch.no_grad():
        part.apply(network._init_weights)


def _width(config: Any, label: str) -> int:
    """Of the features that the headless network returns."""
    for name in ("hidden_size", "d_model", "hidden_dim"):
        if isinstance(width := getattr(config, name, None), int):
            return width
    if isinstance(widths := getattr(config, "hidden_sizes", None), list | tuple):
        return int(widths[-1])
    raise Incompatible(f"{label}: {config.model_type} does not say how wide its features are",
                       "set pooling: own")
