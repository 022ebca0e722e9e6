"""Folders of transformers: a whole network, or a PEFT adapter beside the network it adapts."""

from __future__ import annotations

import copy
import inspect
import os
import warnings
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor

from ftlab.backbones.forms.causal import CausalModel
from ftlab.backbones.forms.encoder_decoder import EncoderDecoderModel
from ftlab.backbones.model import TaskModel
from ftlab.backbones.outside import Origin
from ftlab.backbones.pretrained import quiet, read_config
from ftlab.backbones.source import is_hub_id
from ftlab.errors import Incompatible
from ftlab.exports.heads import add_outputs
from ftlab.exports.loading import Loading
from ftlab.tasks.base import Task

_AUTOS = (
    "AutoModelForSequenceClassification", "AutoModelForImageClassification",
    "AutoModelForAudioClassification", "AutoModelForTokenClassification",
    "AutoModelForObjectDetection", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM",
    "AutoModelForSpeechSeq2Seq", "AutoModelForCTC", "AutoModel",
)
_WITHIN_BASE = ("num_labels", "pad_token_id", "num_denoising", "anchor_image_size", "eval_size")
_MERGE = "export it with --merged"


def write_whole(loading: Loading, model: TaskModel, task: Task, inputs: dict[str, Tensor],
                folder: Path, sentences: int | None) -> None:
    """The network as `from_pretrained` loads it.

    Raises:
        Incompatible: the network has modules that its class in transformers lacks.
    """
    network: Any = model.network
    _name_outputs(network.config, model, task)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        stock = type(network)(network.config).state_dict()
    check_stock(network.state_dict().keys(), stock.keys(), type(network).__name__)
    for parameter in network.parameters():  # those of CNNs may lie channels last
        parameter.data = parameter.data.contiguous()
    with quiet():
        network.save_pretrained(folder)
    name = _public_name(network)
    loading.imports.add(f"from transformers import {name}")
    loading.packages.add("transformers")
    loading.network = f"model = {name}.from_pretrained(folder{_without_pooler(network)}).eval()"
    add_outputs(loading, model, inputs, folder, sentences)


def check_stock(own: AbstractSet[str], stock: AbstractSet[str], name: str) -> None:
    """Refuse a network that no other library can build.

    Args:
        own: names of its tensors.
        stock: of those that the library's network has.
        name: of that, for messages.

    Raises:
        Incompatible: it has tensors that the library's lacks.
    """
    if more := sorted(own - stock):
        rest = f" and {len(more) - 2} more" if len(more) > 2 else ""
        raise Incompatible(f"the technique has put modules into the network that {name} lacks, and "
                           f"no other library knows: {', '.join(more[:2])}{rest}",
                           "load it in Python with ftlab: `ftlab predict` does")


def write_adapter(loading: Loading, model: TaskModel, origin: Origin,
                  inputs: dict[str, Tensor], folder: Path) -> str:
    """What PEFT put beside the frozen network, as `PeftModel.from_pretrained` loads it.

    Returns:
        The folder of the network that was adapted.

    Raises:
        Incompatible: the network that was adapted is not what transformers loads.
    """
    if origin.changed:
        raise Incompatible(origin.changed, _MERGE)
    inside = "network.base_model" if isinstance(model.network, PeftModel) else "network"
    trunk: Any = model.get_submodule(inside)
    heads = [path.removeprefix(f"{inside}.") for path in model.head.paths
             if path.startswith(f"{inside}.")
             and any(True for _ in model.get_submodule(path).parameters())]
    if isinstance(model.network, PeftModel):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT's about transformers, at every look
            model.network.save_pretrained(os.fspath(folder))
        state = {name: tensor for name, tensor in trunk.state_dict().items()
                 if name.startswith(tuple(f"{path}." for path in heads))}
        if state:
            save_file(state, folder / "task_head.safetensors")
    else:
        state = {}
        _write_injected(model, heads, origin, folder)
    name = _public_name(trunk)
    loading.imports |= {f"from transformers import {name}", "from peft import PeftModel"}
    loading.packages |= {"transformers", "peft"}
    loading.base = _written(origin.source, loading)
    loading.base_moves = origin.source.startswith("package:") or is_hub_id(origin.source)
    options = _differing(trunk, read_config(origin.folder, None, origin.source), bool(heads))
    revision = f", revision={origin.revision!r}" if origin.revision else ""
    loading.network = (f"model = {name}.from_pretrained(\n    base{revision}, "
                       f"dtype={next(trunk.parameters()).dtype}{options}{_without_pooler(trunk)})")
    if state:
        loading.imports.add("from safetensors.torch import load_file")
        loading.network += ('\nmodel.load_state_dict(load_file(f"{folder}/task_head.safetensors"), '
                            'strict=False)')
    loading.network += "\nmodel = PeftModel.from_pretrained(model, folder).eval()"
    add_outputs(loading, model, inputs, folder, None)
    return str(origin.folder)


def _write_injected(model: TaskModel, heads: list[str], origin: Origin,
                    folder: Path) -> None:
    network: Any = model.network
    config = copy.copy(network.peft_config["default"])
    config.base_model_name_or_path, config.revision = origin.source, origin.revision
    config.modules_to_save = heads or None
    config.inference_mode = True
    config.task_type = ("CAUSAL_LM" if isinstance(model, CausalModel) else
                        "SEQ_2_SEQ_LM" if isinstance(model, EncoderDecoderModel)
                        and network.main_input_name == "input_ids" else None)
    config.save_pretrained(folder)
    state = get_peft_model_state_dict(network, adapter_name="default", save_embedding_layers=False)
    for path in heads:
        state |= {f"{path}.{name}": tensor
                  for name, tensor in network.get_submodule(path).state_dict().items()}
    save_file({f"base_model.model.{name}": tensor.detach().clone().contiguous()
               for name, tensor in state.items()}, folder / "adapter_model.safetensors")


def unload(model: TaskModel) -> None:
    """Put the layers that PEFT has merged into in the place of its own."""
    network: Any = model.network
    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            network.set_submodule(name, module.get_base_layer())
    if hasattr(network, "peft_config"):
        del network.peft_config


def _public_name(network: Any) -> str:
    """The Auto class that leads to the network's own, or that one."""
    for name in _AUTOS:
        if getattr(transformers, name)._model_mapping.get(type(network.config), None) is type(network):
            return name
    return type(network).__name__


def _without_pooler(network: Any) -> str:
    """A bare network without its pooler says so, or transformers would add a random one."""
    takes = "add_pooling_layer" in inspect.signature(type(network).__init__).parameters
    return ", add_pooling_layer=False" if takes and getattr(network, "pooler", None) is None else ""


def _differing(trunk: Any, base: Any, new_head: bool) -> str:
    """Settings in which the network differs from what its folder says, as arguments."""
    found = {name: getattr(trunk.config, name) for name in _WITHIN_BASE
             if getattr(trunk.config, name, None) != getattr(base, name, None)}
    if new_head:  # the base's own may be another, of the same width or not
        found["num_labels"] = trunk.config.num_labels
    if not found:
        return ""
    said = "".join(f", {name}={value!r}" for name, value in found.items())
    return f"{said}, ignore_mismatched_sizes=True"


def _written(source: str, loading: Loading) -> str:
    """An expression for the folder of a source, wherever the code runs."""
    if not source.startswith("package:"):
        return repr(source)
    loading.imports.add("from importlib.util import find_spec")
    name, _, inside = source.removeprefix("package:").partition("/")
    return f"find_spec({name!r}).submodule_search_locations[0] + {'/' + inside!r}"


def _name_outputs(config: Any, model: TaskModel, task: Task) -> None:
    """Names of classes where transformers' own pipelines look for them."""
    if model.pooled_head is not None or task.form not in ("vector", "tokens", "boxes"):
        return
    if task.names:
        config.id2label = dict(enumerate(task.names))
        config.label2id = {name: number for number, name in enumerate(task.names)}
    if task.problem_type is not None:
        config.problem_type = task.problem_type


def network_of(model: TaskModel) -> Any:
    """A model's network of transformers, without what PEFT put around it; None of another library."""
    network: Any = model.network.get_base_model() if isinstance(model.network, PeftModel) \
        else model.network
    return network if isinstance(network, transformers.PreTrainedModel) else None
