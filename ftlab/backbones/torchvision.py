"""Torchvision's classification networks."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cached_property
from hashlib import sha256 as hash_of
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models.vision_transformer import interpolate_embeddings

from ftlab.backbones.base import Backbone, Form, TaskSpec
from ftlab.backbones.blocks import find_blocks, with_dropout
from ftlab.backbones.model import TaskModel
from ftlab.backbones.preprocessing import ImagePreprocessing
from ftlab.backbones.source import check_sha256, resolve_path, sha256_of
from ftlab.errors import Incompatible, InputError

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")  # as torch.hub names its files
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # training-time heads of GoogLeNet and Inception
_FILE = re.compile(r"[/\\:.]")
# torchvision renamed these after it had published weights
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
_UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, UnpicklingError, SafetensorError)


class Torchvision(Backbone):
    """A classification network of torchvision; its last layer is replaced by a new head.

    Args:
        name: as in torchvision.models, for instance mobilenet_v2.
        weights: a published set (IMAGENET1K_V1, or DEFAULT for the best; downloaded), a file
            (.pth or .safetensors) or package:NAME/PATH; null starts at random. A file name that
            carries a hash, as torchvision's do, is held to it.
        sha256: what the fingerprint of the weights must be, or begin with.
        dropout: replaces the probability of every dropout layer (not stochastic depth); null
            leaves them.
        image_size: height and width of the images; null takes what the weights were trained with.
            A vision transformer's position embeddings are interpolated to it.
    """

    def __init__(self, name: str, weights: str | None = "DEFAULT", sha256: str | None = None,
                 dropout: float | None = None, image_size: int | None = None) -> None:
        if dropout is not None and not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        self.name = name
        self.weights = weights
        self.sha256 = sha256
        self.dropout = dropout
        self.image_size = image_size

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"Torchvision({self.name}, {self.weights})"

    @cached_property
    def preprocessing(self) -> ImagePreprocessing:
        transforms = self._published().transforms()
        edge = self.image_size or transforms.crop_size[0]
        return ImagePreprocessing("x", (edge, edge), tuple(transforms.mean), tuple(transforms.std),
                                  transforms.interpolation.value, self._fixed)

    @property
    def fingerprint(self) -> str:
        """Sha256 of the weight file; of the name and the word random where there is none."""
        file = self._weights()
        return hash_of(f"{self.name} random".encode()).hexdigest() if file is None \
            else sha256_of([file])

    def build(self, task: TaskSpec, form: Form | None = None, meta: bool = False) -> TaskModel:
        if (form or task.form) != "vector":
            raise Incompatible(f"{self.label} classifies images; it gives no {form or task.form}",
                               "choose another backbone")
        file = None if meta else self._weights()
        network = self._network() if file is None and not meta else self._empty_network()
        path, layer = _last_layer(network)
        if file is not None:
            self._load(network, file, path)
        with torch.device("meta" if meta else "cpu"):
            network.set_submodule(path, _like(layer, task.outputs))
        for module in network.modules():
            if self.dropout is not None and isinstance(module, nn.Dropout):
                module.p = self.dropout
        head = with_dropout(network, [path])
        return TaskModel(network, find_blocks(network, head), head)

    def _published(self) -> Any:
        """The weights' entry in torchvision's list; the default one for a file or null."""
        entries = models.get_model_weights(self._known_name)
        if self.weights is None or _FILE.search(self.weights):
            return entries["DEFAULT"]
        if self.weights not in entries.__members__:
            raise InputError(f"{self.label}: no published weights {self.weights!r}",
                             f"choose one of {', '.join(entries.__members__)}, or a file")
        return entries[self.weights]

    @cached_property
    def _known_name(self) -> str:
        names = models.list_models(module=models)
        if self.name in names:
            return self.name
        near = get_close_matches(self.name.lower(), names, n=3)
        raise InputError(f"{self.label}: torchvision has no classification network {self.name!r}",
                         f"did you mean {' or '.join(near)}?" if near else
                         f"choose one of {', '.join(names)}")

    @property
    def _fixed(self) -> bool:
        return self._known_name.startswith(("vit_", "maxvit_"))

    def _network(self) -> nn.Module:
        options: dict[str, Any] = {}
        if self._known_name in ("googlenet", "inception_v3"):
            # weights were trained with another normalisation, which the network converts to
            options = {"aux_logits": False, "init_weights": self.weights is None,
                       "transform_input": self.weights is not None}
        if self.image_size is not None and self._fixed:
            vit = self._known_name.startswith("vit_")
            size = self.image_size if vit else (self.image_size, self.image_size)
            options = {"image_size" if vit else "input_size": size}
        try:
            return models.get_model(self._known_name, weights=None, **options)
        except (ValueError, AssertionError) as error:  # torchvision asserts the patch size
            raise InputError(f"{self.label}: image_size {self.image_size} does not fit: {error}",
                             "leave image_size out, or take a multiple of the patch size") from None

    def _empty_network(self) -> nn.Module:
        """On the meta device: filling weights that are overwritten takes longer than loading."""
        if self._known_name.startswith("regnet_"):  # computes its widths with tensors
            with torch.random.fork_rng(devices=[]):
                return self._network().to("meta")
        with torch.device("meta"):
            return self._network()

    def _weights(self) -> Path | None:
        """The checked file of weights, downloaded where they are a published set."""
        self._known_name  # noqa: B018  (a wrong name is told first)
        if self.weights is None:
            return None
        if _FILE.search(self.weights):
            file = resolve_path(self.weights)
            if not file.is_file():
                raise InputError(f"{self.label}: {file} is not a file", "name the weight file")
        else:
            file = _download(self._published().url, self.label)
        if match := _HASH_IN_NAME.search(file.name):
            check_sha256([file], match[1], self.label)
        check_sha256([file], self.sha256, self.label)
        return file

    def _load(self, network: nn.Module, file: Path, head: str) -> None:
        state = _read(file, self.label)
        state = {_OLD_DENSENET.sub(r"\1\2", name): tensor for name, tensor in state.items()
                 if not name.startswith((*_AUXILIARY, head + "."))}
        if self.image_size is not None and self._known_name.startswith("vit_"):
            patch = network.get_submodule("conv_proj").kernel_size[0]  # type: ignore[index]
            state = dict(interpolate_embeddings(self.image_size, patch, state))
        try:
            missing, unexpected = network.load_state_dict(state, strict=False, assign=True)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()
            raise InputError(f"{self.label}: {file} does not fit: {reason[min(1, len(reason) - 1)]}"
                             .replace("\t", ""), "name the network the weights are of") from error
        wrong = [name for name in missing if not name.startswith(head + ".")] + unexpected
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise InputError(f"{self.label}: {file} does not fit: {', '.join(wrong[:3])}{more} "
                             "missing or unexpected", "name the network the weights are of")


def _last_layer(network: nn.Module) -> tuple[str, nn.Module]:
    """The classification layer: the last linear one, or convolution (SqueezeNet)."""
    layers = list(network.named_modules())
    for kind in (nn.Linear, nn.Conv2d):
        found = [(path, module) for path, module in layers if isinstance(module, kind)]
        if found:
            return found[-1]
    raise ValueError(f"{type(network).__name__} has no classification layer")


def _like(layer: Any, outputs: int) -> nn.Module:
    """A new layer of another width, with torch's own initialisation."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, outputs, bias=bias)
    return nn.Conv2d(layer.in_channels, outputs, layer.kernel_size, bias=bias)


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


def _read(file: Path, label: str) -> dict[str, Tensor]:
    try:
        state = (load_file(file) if file.suffix == ".safetensors"
                 else torch.load(file, map_location="cpu", weights_only=True))
    except _UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{label}: {file} cannot be read: {reason}",
                         "get the file again") from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise InputError(f"{label}: {file} holds no plain state dict",
                         "save it with torch.save(network.state_dict(), file)")
    return state
