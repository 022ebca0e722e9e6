"""Settings that a stranger wrote: what a folder in Hugging Face's layout may not ask for.

transformers obeys its folders: it imports the code that `auto_map` names, fetches and runs the
kernel that `attn_implementation` names, loads the adapter that lies beside the weights, and makes
as many layers as `config.json` counts. Here a folder is read before transformers reads it, and
transformers is called where it can neither fetch nor ask.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import constants
from torch import nn
from torch.nn.modules import module as torch_module
from transformers import PreTrainedConfig, dynamic_module_utils
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.image_processing_base import ImageProcessingMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from ftlab.errors import InputError
from ftlab.interchange import parse_json, read_bytes

_FILES = ("config*.json", "generation_config.json", "tokenizer_config.json",
          "preprocessor_config.json", "processor_config.json", "special_tokens_map.json",
          "added_tokens.json")
_LONGEST = 2**26  # bytes of a file of settings
_DEEPEST, _MOST_VALUES = 100, 1_000_000
# under these keys a file names a class, which transformers looks up among all that it has
_CLASSES = ("tokenizer_class", "image_processor_type", "feature_extractor_type")
_READERS = (PreTrainedTokenizerBase, ImageProcessingMixin, FeatureExtractionMixin)
# keys that say how many modules a network has
_COUNTS = {
    re.compile(r"(num|n)_.*(layer|block|stage|level)s?|(.*_)?(layers|blocks|depths?|stages)"): 2_000,
    re.compile(r"(num|n)_.*(expert|head|codebook|group|quer)(s|y|ies)?"): 100_000,
    re.compile(r"num_labels"): 1_000_000}
_LABELS = ("label2id", "id2label")  # whose keys are a data set's
_MOST_MODULES = 100_000
UNCHECKED = 10**13
"""Numbers of a network whose weights are not here to compare it with."""
# what makes transformers run code, fetch kernels, or read weights that nobody has checked
_DROPPED = ("auto_map", "custom_pipelines", "transformers_weights", "kernel_config")
_IMPLEMENTATIONS = ("_attn_implementation_internal", "_experts_implementation_internal")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of settings, which is neither huge nor deep.

    Raises:
        InputError: it is not one.
    """
    mend = "get the file again"
    content = parse_json(read_bytes(path, mend, _LONGEST), path, mend)
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a JSON object", mend)
    return content


def check_folder(folder: Path) -> None:
    """Refuse a folder whose settings make transformers run, fetch or build what they should not.

    Raises:
        InputError: with the file and the rule.
    """
    if (folder / "adapter_config.json").is_file() and (folder / "config.json").is_file():
        raise InputError(f"{folder}: a PEFT adapter lies beside the network (adapter_config.json), "
                         "and transformers would load it into the network unseen",
                         "merge it (merge_and_unload), or take adapter_config.json away to start "
                         "from the network without it")
    for path in sorted({path for pattern in _FILES for path in folder.glob(pattern)}):
        if path.is_file():
            for keys, value in _values(read_json(path), path):
                if keys[-1] in _CLASSES and isinstance(value, str):
                    _check_class(keys, value, path)
                elif path.name.startswith("config"):
                    _check_count(keys, value, path)


def _values(settings: Mapping[str, Any], path: Path) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each value with the keys that lead to it; those in lists have the list's keys."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), settings)]
    while waiting:
        keys, value = waiting.pop()
        if len(keys) > _DEEPEST:
            raise InputError(f"{path} cannot be used: nested too deep", "get the file again")
        more = len(value) if isinstance(value, dict | list) else 0
        if len(waiting) + more >= _MOST_VALUES:
            raise InputError(f"{path}: more than {_MOST_VALUES:,} values", "get the file again")
        if isinstance(value, dict):
            waiting += [((*keys, str(key)), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            # a level more, for its depth
            waiting += [(("", *keys), inner) for inner in value]
        elif keys:
            yield keys, value


def _check_class(keys: Sequence[str], name: str, path: Path) -> None:
    """Refuse a class that reads no examples: an Auto class would load any that is named."""
    for spelling in {name, name.removesuffix("Fast")}:
        named = getattr(transformers, spelling, None)
        stands_in = type(named).__name__ == "DummyObject"  # for a class that lacks its package
        reads = isinstance(named, type) and issubclass(named, _READERS)
        if named is not None and not reads and not stands_in:
            raise InputError(f"{path}: {keys[-1]} is {name!r}, which is not a class of that kind",
                             "name the tokenizer's or processor's own class")


def _check_count(keys: Sequence[str], value: Any, path: Path) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or keys[0] in _LABELS:
        return
    most = next((most for key, most in _COUNTS.items() if key.fullmatch(keys[-1])), None)
    if most is not None and not -1 <= value <= most:  # -1 stands for none
        raise InputError(f"{path}: {'.'.join(filter(None, keys))} is {value}, which is "
                         + (f"above {most:,}" if value > most else "negative"),
                         "mend the number, or get the file again")


@contextmanager
def closed() -> Iterator[None]:
    """Call transformers inside, for what is on this machine: it fetches nothing and asks nobody.

    Classes that it looks up by a folder's word do not pass `trust_remote_code` on, and then ask
    on the terminal whether code may run.
    """
    before = constants.HF_HUB_OFFLINE, dynamic_module_utils.TIME_OUT_REMOTE_CODE
    constants.HF_HUB_OFFLINE, dynamic_module_utils.TIME_OUT_REMOTE_CODE = True, 0
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, dynamic_module_utils.TIME_OUT_REMOTE_CODE = before


def inert(config: Any) -> Any:
    """A configuration without what would make a network of it run or fetch anything, all parts."""
    for part in _parts(config):
        for name in _DROPPED:
            vars(part).pop(name, None)
        for name in _IMPLEMENTATIONS:
            if name in vars(part):
                vars(part)[name] = None
    return config


def _parts(value: Any) -> Iterator[PreTrainedConfig]:
    """A configuration and those within it."""
    if isinstance(value, PreTrainedConfig):
        yield value
        value = vars(value)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _parts(inner)


def room(folder: Path) -> int:
    """Numbers that a network may have by the size of its weight files, as far as they are here.

    Four a byte: packed weights of four bits have two, and those that are tied are built twice.
    Positions and masks come on top.
    """
    files = [*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*.bin")]
    size = sum(path.stat().st_size for path in files if path.is_file())
    return 4 * size + 2**26 if size else UNCHECKED


@contextmanager
def bounded(most: int, where: Path) -> Iterator[None]:
    """Refuse, while it is built, a network that is larger than its weights are.

    Args:
        most: numbers in its parameters and buffers.
        where: its configuration, for messages.

    Raises:
        InputError: it is larger, or has more modules than any.
    """
    numbers = modules = 0
    mend = "get the folder again: its settings are not those of its weights"

    def count_numbers(owner: nn.Module, name: str, tensor: torch.Tensor | None) -> None:
        nonlocal numbers
        if tensor is not None and tensor.is_meta:  # what is loaded replaces these
            numbers += tensor.numel()
            if numbers > most:
                raise InputError(f"{where} describes a network of more than {most:,} numbers, "
                                 "which its weight files cannot fill", mend)

    def count_modules(owner: nn.Module, name: str, module: nn.Module | None) -> None:
        nonlocal modules
        modules += 1
        if modules > _MOST_MODULES:
            raise InputError(f"{where} describes a network of more than {_MOST_MODULES:,} modules",
                             mend)

    hooks: list[tuple[Callable[..., Any], Callable[..., None]]] = [
        (torch_module.register_module_parameter_registration_hook, count_numbers),
        (torch_module.register_module_buffer_registration_hook, count_numbers),
        (torch_module.register_module_module_registration_hook, count_modules)]
    handles = [register(hook) for register, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
