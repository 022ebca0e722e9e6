"""Networks of torchvision and timm: a state dict and how to build what it goes into."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from ftlab.backbones.model import TaskModel
from ftlab.backbones.timm import Timm
from ftlab.backbones.torchvision import Torchvision
from ftlab.exports.loading import Loading
from ftlab.exports.transformers_folder import check_stock
from ftlab.tasks.base import Task

WEIGHTS = "model.safetensors"


def write_state(loading: Loading, model: TaskModel, backbone: Torchvision | Timm, task: Task,
                folder: Path) -> None:
    """Weights as safetensors, with the name of the network and the names of the classes.

    Raises:
        Incompatible: the network has modules that the library's lacks.
    """
    options: dict[str, Any] = {"num_classes": task.outputs}
    make: Callable[[], nn.Module]
    if isinstance(backbone, Torchvision):
        from torchvision.models import get_model

        library, built = "torchvision", "torchvision.models.get_model"
        options |= {"weights": None, **_torchvision_options(backbone)}
        make = lambda: get_model(backbone.name, **options)
        names = {name: name for name in model.network.state_dict()}
    else:
        from timm import create_model

        library, built = "timm", "timm.create_model"
        if backbone.image_size is not None and backbone.preprocessing.fixed_size:
            options["img_size"] = backbone.image_size
        options["pretrained"] = False
        make = lambda: create_model(backbone.name, **options)
        names = {name: _unwrapped(name, model) for name in model.network.state_dict()}
    state = {names[name]: tensor.detach().contiguous()
             for name, tensor in model.network.state_dict().items()}
    check_stock(_Named(state), make, f"{library}'s {backbone.name}")
    save_file(state, folder / WEIGHTS)
    classes = next((getattr(task, name) for name in ("classes", "labels") if hasattr(task, name)),
                   None)
    said = {"library": library, "name": backbone.name, "options": options, "classes": classes}
    (folder / "config.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    arguments = "".join(f", {name}={value!r}" for name, value in options.items())
    loading.imports |= {f"import {library}", "from safetensors.torch import load_file"}
    loading.packages.add(library)
    loading.network = (
        f"model = {built}({backbone.name!r}{arguments})\n"
        f'model.load_state_dict(load_file(f"{{folder}}/{WEIGHTS}"))\n'
        "model.eval()\n\ndef compute(**inputs):\n    return model(inputs[\"x\"])")


def _torchvision_options(backbone: Torchvision) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if backbone.name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": False,
                   "transform_input": backbone.weights is not None}
    if backbone.image_size is not None and backbone.name.startswith("vit_"):
        options["image_size"] = backbone.image_size
    if backbone.image_size is not None and backbone.name.startswith("maxvit_"):
        options["input_size"] = (backbone.image_size, backbone.image_size)
    return options


def _unwrapped(name: str, model: TaskModel) -> str:
    """A name without the `Sequential` in which a dropout was put before timm's classifier."""
    for path in model.head.paths:
        inner = path.removeprefix("network.")
        if name.startswith(f"{inner}.1.") and isinstance(model.get_submodule(path), nn.Sequential):
            return f"{inner}.{name.removeprefix(f'{inner}.1.')}"
    return name


class _Named:
    """Stands in for a network whose tensors have these names."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state_dict = lambda: state
