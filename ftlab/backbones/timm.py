"""The image models of timm (PyTorch Image Models)."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ftlab.backbones.base import Backbone, OutputType, TaskSpec
from ftlab.backbones.efficientnet_names import as_timm, is_efficientnet_pytorch
from ftlab.backbones.execution_order import in_execution_order
from ftlab.backbones.export_code import CodeLines, PlainNetwork
from ftlab.backbones.find_blocks import find_blocks, with_dropout
from ftlab.backbones.hub import find_folder, weight_files
from ftlab.backbones.preprocessing import ImagePreprocessing
from ftlab.backbones.source import check_sha256
from ftlab.backbones.source_layer import SourceLayer, lacking, source_layer
from ftlab.backbones.task_model import TaskModel
from ftlab.backbones.weight_files import fingerprint, read_state, weight_file
from ftlab.errors import Incompatible, InputError
from ftlab.wording import closest

_FILE = re.compile(r"[/\\:.]")
_MISFIT = (RuntimeError, ValueError, AssertionError, TypeError, KeyError)


_CALL = """
def compute(x):
    return model(x)
"""


class Timm(Backbone):
    """An image model of timm (Wightman 2019); its classifier is replaced by a new head.

    Needs the extra `timm`. https://github.com/huggingface/pytorch-image-models

    Args:
        name: as timm lists it, with the tag of a set of weights (vit_tiny_patch16_224.dino_in1k)
            or without (its default one). The tag also says how images are prepared.
        weights: DEFAULT for the set that the name gives (downloaded from the hub), a file
            (.safetensors or .pth, with timm's names of tensors, or an EfficientNet's with those of
            efficientnet_pytorch) or package:NAME/PATH; null starts at random.
        sha256: what the fingerprint of the weights must be, or begin with.
        dropout: replaces the probability of every dropout layer, of the one before the head too
            (not of stochastic depth); null leaves them.
        image_size: height and width of the images; null takes what the weights were trained with.
            A transformer's position embeddings are interpolated to it.
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
        """The name in messages."""
        return f"Timm({self.name}, {self.weights})"

    @cached_property
    def preprocessing(self) -> ImagePreprocessing:
        data = _timm().data.resolve_data_config({}, pretrained_cfg=self._published.to_dict())
        edge = self.image_size
        size = data["input_size"][1:] if edge is None else (edge, edge)
        return ImagePreprocessing("x", tuple(size), tuple(data["mean"]), tuple(data["std"]),
                                  data["interpolation"], self._published.fixed_input_size)

    @property
    def fingerprint(self) -> str:
        """Sha256 of the weight file; of the name and the word random where there is none."""
        return fingerprint(self._weights(), self.name)

    def build(self, task: TaskSpec, output_type: OutputType | None = None,
              meta: bool = False) -> TaskModel:
        if (output_type or task.output_type) != "vector":
            raise Incompatible(f"{self.label} classifies images; it gives no "
                               f"{output_type or task.output_type}", "choose another backbone")
        file = None if meta else self._weights()
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            empty = self._create()
            head = self._new_head(empty, task.outputs)
        blocks = in_execution_order(empty, find_blocks(empty, head),
                                    lambda: self._try(empty, task.outputs))
        network = empty
        if not meta:
            network = self._create() if file is None else self._load(file)
            self._new_head(network, task.outputs)
        return TaskModel(network.train(), blocks, head)

    def export_code(self, model: TaskModel, task: TaskSpec,
                    image_size: tuple[int, int] | None) -> PlainNetwork:
        options = {"num_classes": task.outputs, **self._size, "pretrained": False}
        arguments = "".join(f", {name}={value!r}" for name, value in options.items())
        build = CodeLines(f"model = timm.create_model({self.name!r}{arguments})", ["import timm"],
                          ["timm"])
        state = {_unwrapped(name, model): tensor
                 for name, tensor in model.network.state_dict().items()}
        return PlainNetwork("timm", self.name, build, state, _CALL, {"options": options})

    def source_layer(self, path: str) -> SourceLayer:
        file, name = self._weights(), self._published.classifier
        if file is None:
            raise lacking(f"{self.label}: its weights are random, and so would a classifier be")
        state = read_state(file, self.label)
        name = "_fc" if is_efficientnet_pytorch(state) else str(name)
        return source_layer(state, name, self.label)

    @property
    def _size(self) -> dict[str, Any]:
        """The argument that makes a transformer for images of another size."""
        fixed = self.image_size is not None and self._published.fixed_input_size
        return {"img_size": self.image_size} if fixed else {}

    @cached_property
    def _published(self) -> Any:
        """Timm's entry of the network and its set of weights."""
        timm = _timm()
        architecture, _, tag = self.name.partition(".")
        names = timm.list_models()
        if architecture not in names:
            near = closest(architecture, names, 3)
            raise InputError(f"{self.label}: timm has no network {architecture!r}",
                             f"did you mean {' or '.join(near)}?" if near else
                             "timm.list_models('*word*') finds names")
        tagged = timm.list_pretrained(f"{architecture}.*")
        if tag and self.name not in tagged:
            raise InputError(f"{self.label}: timm has no weights {tag!r} of {architecture}",
                             f"choose one of {', '.join(tagged)}" if tagged
                             else "leave the tag out")
        return timm.get_pretrained_cfg(self.name)

    def _weights(self) -> Path | None:
        """The checked file of weights, downloaded where it is a published set."""
        published = self._published
        if self.weights is not None and not _FILE.search(self.weights) \
                and self.weights != "DEFAULT":
            raise InputError(f"{self.label}: {self.weights} is no file",
                             f"a tag is part of the name: {published.architecture}.{self.weights}")
        if self.weights != "DEFAULT":
            return weight_file(self.name, self.weights, self.sha256, self.label)
        if not published.hf_hub_id or published.hf_hub_filename or published.custom_load:
            tags = ", ".join(_timm().list_pretrained(f"{published.architecture}.*"))
            where = f", but at {published.url} in another layout" if published.url else ""
            raise InputError(f"{self.label}: the hub has no weights for it in timm's layout{where}",
                             f"name a file, or set weights: null; tags are: {tags or 'none'}")
        files = weight_files(find_folder(published.hf_hub_id, None))
        check_sha256(files, self.sha256, self.label)
        return files[0]

    def _create(self, **options: Any) -> nn.Module:
        """The network with the published number of classes, or as `options` say."""
        try:
            return _timm().create_model(self.name, **self._size, **options)
        except _MISFIT as error:
            if options.get("pretrained") or self.image_size is None:
                raise
            raise self._wrong_size(error) from error

    def _load(self, file: Path) -> nn.Module:
        """The network with a file's weights; torch's generator is left as it was."""
        state, published = read_state(file, self.label), self._published
        other = is_efficientnet_pytorch(state)
        if other and self.name.startswith("efficientnet"):  # equal tensors, another padding and epsilon
            raise InputError(f"{self.label}: {file} is of efficientnet_pytorch, whose networks pad as "
                             "TensorFlow does", f"name tf_{self.name}")
        names = "_fc" if other else published.classifier or ()
        rows = [len(state[f"{name}.weight"]) for name in
                ([names] if isinstance(names, str) else names) if f"{name}.weight" in state]
        # without a classifier in the file there is none to fill; timm then checks every tensor
        classes = rows[0] if rows else published.num_classes * (self.weights == "DEFAULT")
        overlay = {"num_classes": classes, "label_offset": None, "custom_load": False}
        try:
            with torch.random.fork_rng(devices=[]):
                overlay |= {"state_dict": as_timm(state, self._create().state_dict())} if other \
                    else {"file": str(file)}
                del state
                return self._create(pretrained=True, num_classes=classes,
                                    pretrained_cfg_overlay=overlay)
        except _MISFIT as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()
            raise InputError(f"{self.label}: {file} does not fit: "
                             f"{reason[min(1, len(reason) - 1)].strip()[:200]}",
                             "name the network the weights are of") from error

    def _new_head(self, network: Any, outputs: int) -> list[str]:
        """Replace the classifier; the paths of what is new, with the dropout before it."""
        network.reset_classifier(outputs)
        new = network.get_classifier()
        layers = list(new) if isinstance(new, tuple | list) else [new]
        paths = [path for path, module in network.named_modules()
                 if any(module is layer for layer in layers)]
        head = with_dropout(network, paths)
        if not any(isinstance(part, nn.Dropout) for path in head
                   for part in network.get_submodule(path).modules()):
            # these drop out in the network's own forward, whose mode is the first block's
            share = getattr(network, "drop_rate", 0.0) if self.dropout is None else self.dropout
            network.drop_rate = 0.0
            for path in paths if share else ():
                network.set_submodule(
                    path, nn.Sequential(nn.Dropout(share), network.get_submodule(path)))
        for module in network.modules():
            if self.dropout is not None and isinstance(module, nn.Dropout):
                module.p = self.dropout
        return head

    def _try(self, network: nn.Module, outputs: int) -> None:
        """Call the network (on the meta device) as the data module will.

        Raises:
            InputError: it cannot read images of this size.
            Incompatible: it gives no vector.
        """
        images = torch.empty(2, 3, *self.preprocessing.size, device="meta")
        try:
            with torch.no_grad():
                given = network.eval()(images)
        except _MISFIT as error:
            raise self._wrong_size(error) from error
        if not isinstance(given, torch.Tensor) or given.shape != (2, outputs):
            raise Incompatible(f"{self.label} gives no vector for an image",
                               "choose a classification network")

    def _wrong_size(self, error: Exception) -> InputError:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return InputError(f"{self.label}: image_size {self.image_size} does not fit: {reason}",
                          "leave image_size out, or take a multiple of the patch size")


def _unwrapped(name: str, model: TaskModel) -> str:
    """A name without the `Sequential` in which a dropout was put before the classifier."""
    for path in model.head.paths:
        inner = path.removeprefix("network.")
        if name.startswith(f"{inner}.1.") and isinstance(model.get_submodule(path), nn.Sequential):
            return f"{inner}.{name.removeprefix(f'{inner}.1.')}"
    return name


def _timm() -> ModuleType:
    """The library, imported when it is first needed.

    Raises:
        InputError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise InputError(f"Timm needs the package timm ({error})",
                         "pip install 'ftlab[timm]'") from error
    return timm
