"""Torchvision's networks by name, and their weight files: found, checked, downloaded, read."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import sha256 as hash_of
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError
from zipfile import is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from ftlab.backbones.source import DAMAGED_WEIGHTS, check_sha256, reason, resolve_path, sha256_of
from ftlab.errors import InputError
from ftlab.wording import closest

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")  # as torch.hub names its files
# training-time heads of GoogLeNet, Inception, and FCN and DeepLab
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.", "aux_classifier.")
_FILE = re.compile(r"[/\\:.]")
# torchvision renamed these after it had published weights
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def check_name(name: str, label: str, module: ModuleType = models) -> str:
    """Return a name that torchvision has.

    Args:
        name: of a network.
        label: what messages call the backbone.
        module: where torchvision lists it: `torchvision.models`, or `models.detection`.

    Raises:
        InputError: there is no such network.
    """
    names = models.list_models(module=module)
    if name in names:
        return name
    near = closest(name, names, 3)
    kind = "classification" if module is models else module.__name__.rpartition(".")[2]
    raise InputError(f"{label}: torchvision has no {kind} network {name!r}",
                     f"did you mean {' or '.join(near)}?" if near else
                     f"choose one of {', '.join(names)}")


def published(name: str, weights: str | None, label: str) -> Any:
    """The weights' entry in torchvision's list, also of a file that is named as its download.

    The default one for another file or None.

    Raises:
        InputError: torchvision has published no such weights.
    """
    entries = models.get_model_weights(name)
    if weights is None or _FILE.search(weights):
        file = Path(weights or "").name
        return next((entry for entry in entries if entry.url.rpartition("/")[2] == file),
                    entries["DEFAULT"])
    if weights not in entries.__members__:
        raise InputError(f"{label}: no published weights {weights!r}",
                         f"choose one of {', '.join(entries.__members__)}, or a file")
    return entries[weights]


def weight_file(name: str, weights: str | None, sha256: str | None, label: str) -> Path | None:
    """The checked file of weights, downloaded where they are a published set; None for None.

    Args:
        name: of the network.
        weights: a published set, a file or package:NAME/PATH. A file name that carries a hash,
            as torchvision's do, is held to it.
        sha256: what the file's must be, or begin with.
        label: what messages call the backbone.

    Raises:
        InputError: the file does not exist, or it is another.
    """
    if weights is None:
        return None
    if _FILE.search(weights):
        file = resolve_path(weights)
        if not file.is_file():
            raise InputError(f"{label}: {file} is not a file", "name the weight file")
    else:
        file = _download(published(name, weights, label).url, label)
    if match := _HASH_IN_NAME.search(file.name):
        check_sha256([file], match[1], label)
    check_sha256([file], sha256, label)
    return file


def fingerprint(file: Path | None, name: str) -> str:
    """Sha256 of the weight file; of the name and the word random where there is none."""
    return hash_of(f"{name} random".encode()).hexdigest() if file is None else sha256_of([file])


def read_state(file: Path, label: str) -> dict[str, Tensor]:
    """A weight file's tensors by name, in torchvision's present spelling.

    Raises:
        InputError: the file is damaged, or holds something else.
    """
    try:
        # mapped, which torch's old format cannot be
        state = (load_file(file) if file.suffix == ".safetensors"
                 else torch.load(file, map_location="cpu", weights_only=True,
                                 mmap=is_zipfile(file)))
    except DAMAGED_WEIGHTS as error:
        raise InputError(f"{label}: {file} cannot be read: {reason(error)}",
                         "get the file again") from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise InputError(f"{label}: {file} holds no plain state dict",
                         "save it with torch.save(network.state_dict(), file)")
    return _with_versions({_OLD_DENSENET.sub(r"\1\2", name): tensor
                           for name, tensor in state.items() if not name.startswith(_AUXILIARY)},
                          getattr(state, "_metadata", None))


def _with_versions(state: Mapping[str, Tensor], versions: Any) -> OrderedDict[str, Tensor]:
    """A state dict with torch's note of each module's version, which MNASNet asks for."""
    ordered = OrderedDict(state)
    if versions is not None:
        # torch keeps them as an attribute, which OrderedDict does not declare
        ordered._metadata = versions  # type: ignore[attr-defined]
    return ordered


def load_state(network: nn.Module, state: Mapping[str, Tensor], new: tuple[str, ...], file: Path,
               label: str) -> None:
    """Put pre-trained tensors into a network, all of them.

    Args:
        network: on the meta device or not.
        state: tensors by name; those of `new` are left out.
        new: paths whose tensors the task makes anew.
        file: they come from, for messages.
        label: what messages call the backbone.

    Raises:
        InputError: the tensors are of another network.
    """
    roots = tuple(f"{path}." for path in new)
    versions = getattr(state, "_metadata", None)
    if versions is None:  # safetensors holds none
        versions = getattr(network.state_dict(), "_metadata", None)
    state = _with_versions({name: tensor for name, tensor in state.items()
                            if not name.startswith(roots)}, versions)
    try:
        missing, unexpected = network.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()
        raise InputError(f"{label}: {file} does not fit: {reason[min(1, len(reason) - 1)]}"
                         .replace("\t", ""), "name the network the weights are of") from error
    # FrozenBatchNorm2d, which published detectors were saved with, does not count batches
    counters = {name for name, buffer in network.named_buffers()
                if name.endswith("num_batches_tracked") and not buffer.is_meta}
    wrong = [name for name in missing
             if not name.startswith(roots) and name not in counters] + unexpected
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(f"{label}: {file} does not fit: {', '.join(wrong[:3])}{more} "
                         "missing or unexpected", "name the network the weights are of")


def make_network(name: str, pretrained: bool, empty: bool, **options: Any) -> nn.Module:
    """A classification network of torchvision without weights.

    Args:
        name: as `check_name` returns it.
        pretrained: whether weights will be loaded.
        empty: on the meta device: filling weights that are overwritten takes longer than loading.
        options: of torchvision's constructor.
    """
    if name in ("googlenet", "inception_v3"):
        # weights were trained with another normalisation, which the network converts to
        options |= {"aux_logits": False, "init_weights": not pretrained,
                    "transform_input": pretrained}
    if not empty:
        return models.get_model(name, weights=None, **options)
    if name.startswith("regnet_"):  # computes its widths with tensors
        with torch.random.fork_rng(devices=[]):
            return models.get_model(name, weights=None, **options).to("meta")
    with torch.device("meta"):
        return models.get_model(name, weights=None, **options)


def last_layer(network: nn.Module) -> tuple[str, nn.Module]:
    """The classification layer: the last linear one, or convolution (SqueezeNet)."""
    layers = list(network.named_modules())
    for kind in (nn.Linear, nn.Conv2d):
        matching = [(path, module) for path, module in layers if isinstance(module, kind)]
        if matching:
            return matching[-1]
    raise ValueError(f"{type(network).__name__} has no classification layer")


def _download(url: str, label: str) -> Path:
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.is_file():
        prefix = _HASH_IN_NAME.search(file.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), prefix and prefix[1], progress=False)
        except (URLError, RuntimeError, OSError) as error:
            raise InputError(f"{label}: {url} cannot be downloaded: {error}",
                             f"check the network, or put the file at {file}") from error
    return file
