"""Reads a folder in Hugging Face's layout through transformers, strictly and quietly."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from ftlab.backbones.attention import check_supported
from ftlab.backbones.block import lies_below
from ftlab.backbones.held_network import taken
from ftlab.backbones.source import DAMAGED_WEIGHTS, reason
from ftlab.backbones.unread_weights import UnreadWeights
from ftlab.backbones.untrusted_settings import bounded, closed, inert, room
from ftlab.errors import InputError

_UNUSABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
             RecursionError, StrictDataclassError)
# as constructors answer settings that fit no network, or need a package that is not here
_UNBUILDABLE = (ArithmeticError, AssertionError, AttributeError, ImportError, IndexError,
                KeyError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Checkpoint:
    """One pre-trained network in Hugging Face's layout, on its way into a task's model.

    Attributes:
        label: what messages call it.
        folder: with the configuration.
        config: transformers' own, of this build alone: heads may change it.
        dtype: of the weights in memory.
        weights: finds and checks the weight files.
        tokenizer: reads the fast tokenizer (raises InputError where there is none).
        meta: build on the meta device, without weights.
        unread: holds the weights of a network that is built so, new parts excepted, and gets
            them later; None for any other.
        finish: changes the network once it has its weights.
        new_tokens: that get embeddings.
        new_vocabulary: whether the network gets an output layer for other symbols than it knew.
    """

    label: str
    folder: Path
    config: Any
    dtype: torch.dtype
    weights: Callable[[], list[Path]]
    tokenizer: Callable[[], Any]
    meta: bool
    finish: Callable[[PreTrainedModel], None] = lambda network: None
    new_tokens: Sequence[str] = ()
    new_vocabulary: bool = False
    unread: list[UnreadWeights] | None = None

    def own_class(self, auto_classes: Sequence[str]) -> Any:
        """The first of transformers' Auto classes that has the architecture, or None."""
        autos = (getattr(transformers, name) for name in auto_classes)
        return next((auto for auto in autos if type(self.config) in auto._model_mapping), None)

    def network(self, auto: Any,
                new: Callable[[nn.Module], Sequence[str]] = lambda network: ()) -> PreTrainedModel:
        """The network that an Auto class makes, with its weights unless `meta`.

        Args:
            auto: of transformers.
            new: gives the paths that the weights may lack, since the task makes them anew.

        Raises:
            InputError: damaged files, or lacking tensors outside `new`; attention that it has not.
        """
        check_supported(auto._model_mapping[type(self.config)], self.config, self.label)
        if self.meta:
            network = empty_network(auto, self.config, self.dtype)
            self.finish(network)
            return network
        files = self.weights()
        if self.unread is not None:
            network = empty_network(auto, self.config, self.dtype)
            later = UnreadWeights(network, files, self.label)
            later.give_room(network, new(network))
            self.unread.append(later)
            return network.train()
        key = (auto, repr(self.config), self.config._attn_implementation, self.dtype,
               *((file, file.stat().st_mtime_ns) for file in files))
        network, lacking = taken(
            key, lambda: load_network(auto, self.config, self.dtype, files, self.label))
        roots = new(network)
        check_complete({name for name in lacking if not lies_below(name, roots)}, self.label)
        self.finish(network)
        return network


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no notes below errors from transformers, inside."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def read_config(folder: Path, dropout: float | None, label: str) -> Any:
    """The architecture's settings.

    Args:
        folder: has `config.json`.
        dropout: replaces every dropout probability; null leaves them.
        label: whose, for messages.

    Raises:
        InputError: no config, or one that this version of transformers cannot use.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"{label}: no config.json in {folder}",
                         "name a folder that transformers' save_pretrained has written")
    try:
        with closed():
            config = inert(transformers.AutoConfig.from_pretrained(os.fspath(folder),
                                                                   trust_remote_code=False))
    except _UNUSABLE as error:
        raise InputError(f"{label}: {folder / 'config.json'} cannot be used: {reason(error)}",
                         "check the file, or get it again") from error
    for name, value in list(vars(config).items()):
        if dropout is not None and _is_dropout(name, value):
            setattr(config, name, dropout)
    if hasattr(config, "use_cache"):
        config.use_cache = False  # keys and values for generation: memory for nothing here
    return config


def empty_network(auto: Any, config: Any, dtype: torch.dtype) -> PreTrainedModel:
    """The network's shape on the meta device, without weights.

    Raises:
        InputError: it is larger than the weights in its folder, or no network.
    """
    folder = Path(config.name_or_path)
    where = folder / "config.json"
    try:
        with torch.device("meta"), closed(), bounded(room(folder), where):
            return auto.from_config(config, dtype=dtype, trust_remote_code=False,
                                    **_options(auto, config))
    except _UNBUILDABLE as error:
        raise InputError(f"{where} describes a network that transformers cannot build: "
                         f"{reason(error)}", "check the file, or get it again") from error


def load_network(auto: Any, config: Any, dtype: torch.dtype, files: Sequence[Path],
                 label: str) -> tuple[PreTrainedModel, set[str]]:
    """The network with its weights, and the names of tensors that the files lack or misshape.

    Torch's generator is left as it was, whatever the files lack.

    Raises:
        InputError: damaged files.
    """
    try:
        folder = files[0].parent
        with torch.random.fork_rng(devices=[]), closed(), \
                bounded(room(folder), folder / "config.json"):
            network, info = auto.from_pretrained(
                os.fspath(folder), config=config, dtype=dtype, weights_only=True,
                use_safetensors=files[0].suffix == ".safetensors", output_loading_info=True,
                ignore_mismatched_sizes=True, trust_remote_code=False, **_options(auto, config))
    except DAMAGED_WEIGHTS as error:
        raise InputError(f"{label}: the weights cannot be read ({files[0]}): {reason(error)}",
                         "get the folder again") from error
    except _UNBUILDABLE as error:
        raise InputError(f"{label}: transformers cannot load what {folder} describes: "
                         f"{reason(error)}", "check its config.json, or get the folder again"
                         ) from error
    lacking = set(info["missing_keys"]) | {entry[0] for entry in info["mismatched_keys"]}
    return network.train(), lacking


def check_complete(lacking: set[str], label: str) -> None:
    """Refuse a network whose pre-trained part would be random.

    Raises:
        InputError: tensors are lacking.
    """
    if lacking:
        names = sorted(lacking)
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise InputError(f"{label}: the weights lack, or have in another shape: "
                         f"{', '.join(names[:5])}{more}",
                         "use a checkpoint of this architecture; if only a pooler is lacking, "
                         "set pooling: mean or first")


def _options(auto: Any, config: Any) -> dict[str, Any]:
    """No dense pooler where features are pooled: it would be trainable and never used."""
    if "Classification" in auto.__name__:
        return {}
    arguments = inspect.signature(auto._model_mapping[type(config)].__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in arguments else {}


def _is_dropout(name: str, value: Any) -> bool:
    spared = any(word in name for word in ("layerdrop", "layer_drop", "drop_path", "drop_connect"))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return "drop" in name and not spared and number and 0 <= value <= 1
