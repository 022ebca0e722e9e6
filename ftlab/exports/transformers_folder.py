"""Folders of transformers: a whole network, or a PEFT adapter beside the network it adapts."""

from __future__ import annotations

import copy
import inspect
import os
import warnings
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.integrations.peft import PeftAdapterMixin

from ftlab.backbones.load_pretrained import quiet
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.exports.head_code import add_outputs, has_virtual_tokens
from ftlab.exports.loading_code import LoadingCode
from ftlab.tasks.base import Task

_AUTOS = (
    "AutoModelForSequenceClassification", "AutoModelForImageClassification",
    "AutoModelForAudioClassification", "AutoModelForTokenClassification",
    "AutoModelForObjectDetection", "AutoModelForSemanticSegmentation", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM",
    "AutoModelForSpeechSeq2Seq", "AutoModelForCTC", "AutoModel",
)
_NAMED = ("vector", "tokens", "boxes", "pixels")
"""Output types whose outputs have names."""
_TASK_TYPES = {
    "AutoModelForSequenceClassification": "SEQ_CLS", "AutoModelForTokenClassification": "TOKEN_CLS",
    "AutoModelForCausalLM": "CAUSAL_LM", "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
}


def write_whole(loading: LoadingCode, model: TaskModel, task: Task, inputs: dict[str, Tensor],
                folder: Path, sentences: int | None) -> None:
    """The network as `from_pretrained` loads it.

    Raises:
        Incompatible: the network has modules that its class in transformers lacks.
    """
    network: Any = model.network
    _save(network, model, task, folder)
    name = _public_name(network)
    loading.imports.add(f"from transformers import {name}")
    loading.packages.add("transformers")
    loading.network = (f"model = {name}.from_pretrained(\n    folder, trust_remote_code=False"
                       f"{_without_pooler(network)}).eval()")
    add_outputs(loading, model, inputs, folder, sentences)


def _save(network: Any, model: TaskModel, task: Task, folder: Path) -> None:
    """Write weights, config and generation config.

    Raises:
        Incompatible: the network has modules that its class in transformers lacks.
    """
    _name_outputs(network.config, model, task)
    bound = getattr(task, "max_new_tokens", None)
    if bound is not None and network.can_generate():
        network.generation_config.max_new_tokens = model.most_tokens(bound)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        stock = type(network)(network.config).state_dict()
    check_stock(network.state_dict().keys(), stock.keys(), type(network).__name__)
    for parameter in network.parameters():  # those of CNNs may lie channels last
        parameter.data = parameter.data.contiguous()
    with quiet():
        network.save_pretrained(folder)


def check_stock(names: AbstractSet[str], stock: AbstractSet[str], name: str) -> None:
    """Refuse a network that no other library can build.

    Args:
        names: of its tensors.
        stock: of those that the library's network has.
        name: of that, for messages.

    Raises:
        Incompatible: it has tensors that the library's lacks.
    """
    if more := sorted(names - stock):
        rest = f" and {len(more) - 2} more" if len(more) > 2 else ""
        raise Incompatible(f"the technique has put modules into the network that {name} lacks, and "
                           f"no other library knows: {', '.join(more[:2])}{rest}",
                           "load it in Python with ftlab: `ftlab predict` does")


def write_adapter(loading: LoadingCode, model: TaskModel, task: Task, inputs: dict[str, Tensor],
                  folder: Path, base: str, place: Path) -> list[str]:
    """Write what PEFT put beside a network, and that network in a folder within.

    transformers and PEFT read the names of classes and how texts are generated from the network
    below an adapter, so that the one it was trained on would answer with its own.

    Args:
        loading: gets the lines.
        model: adapted.
        task: whose classes are named.
        inputs: of an example.
        folder: to write to.
        base: name of the folder within, for the network.
        place: where both will lie, for PEFT's config.

    Returns:
        Notes for users.

    Raises:
        Incompatible: the network that was adapted is not what transformers loads.
    """
    virtual, wrapped = has_virtual_tokens(model), isinstance(model.network, PeftModel)
    trunk: Any = network_of(model)
    with _bare(trunk):
        _save(trunk, model, task, folder / base)
    kind = _task_type(model, trunk)
    inside = "network." + ("base_model." if virtual else "base_model.model." if wrapped else "")
    heads = [path.removeprefix(inside) for path in model.head.paths if path.startswith(inside)]
    if loose := [path for path in heads if path in dict(trunk.named_parameters())]:
        raise Incompatible(f"{loose[0]} has trained beside the adapter, and PEFT's folders hold whole "
                           "modules", "export it --merged")
    heads = [path for path in heads if any(True for _ in trunk.get_submodule(path).parameters())]
    write = _write_virtual_tokens if virtual else _write_layers
    write(model.network, heads, kind, place / base, folder)
    name = _public_name(trunk)
    loading.imports |= {f"from transformers import {name}", "from peft import PeftModel"}
    loading.packages |= {"transformers", "peft"}
    loading.network = (f'model = {name}.from_pretrained(\n    f"{{folder}}/{base}", '
                       f"dtype={next(trunk.parameters()).dtype}, trust_remote_code=False"
                       f"{_without_pooler(trunk)})\n"
                       "model = PeftModel.from_pretrained(model, folder).eval()")
    add_outputs(loading, model, inputs, folder, None)
    notes = [(f"adapter_config.json says where {base} lies, for pipeline(model=folder) and PEFT's "
              "Auto classes: write it there anew (base_model_name_or_path) when the folder moves. "
              "The lines above need nothing.")]
    if wrapped or type(trunk).load_adapter is not PeftAdapterMixin.load_adapter:
        notes.append("transformers cannot load this adapter by itself: give pipeline(...) the "
                     "`model` of the lines above.")
    return notes


def _write_virtual_tokens(network: Any, heads: Sequence[str], kind: str | None, base: Path,
                          folder: Path) -> None:
    config = network.peft_config["default"]
    before = config.base_model_name_or_path, config.task_type
    config.base_model_name_or_path = os.fspath(base)
    config.task_type = kind or config.task_type
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's about transformers, at every look
        network.save_pretrained(os.fspath(folder))
    config.base_model_name_or_path, config.task_type = before
    path = folder / "adapter_model.safetensors"  # PEFT wants the head of a class that has one in it
    save_file(load_file(path) | _state(network.base_model, heads, "base_model."), path)


def _write_layers(network: Any, heads: Sequence[str], kind: str | None, base: Path,
                  folder: Path) -> None:
    """The layers of an adapter and the head, which PEFT puts in the place of any network's."""
    wrapped = isinstance(network, PeftModel)
    trunk = network.get_base_model() if wrapped else network
    config = copy.copy(network.peft_config["default"])
    config.base_model_name_or_path, config.revision = os.fspath(base), None
    config.modules_to_save = list(heads) or None
    config.inference_mode = True
    config.task_type = kind
    if kind is None:  # as PEFT itself says which class a network is of
        config.auto_mapping = {"base_model_class": type(trunk).__name__,
                               "parent_library": type(trunk).__module__}
    config.save_pretrained(folder)
    state = get_peft_model_state_dict(network, adapter_name="default", save_embedding_layers=False)
    outside = "" if wrapped else "base_model.model."
    state = {f"{outside}{name}": tensor.detach().clone().contiguous()
             for name, tensor in state.items()} | _state(trunk, heads, "base_model.model.")
    save_file(state, folder / "adapter_model.safetensors")


def _state(network: Any, paths: Sequence[str], prefix: str) -> dict[str, Tensor]:
    """Tensors of parts of a network, by PEFT's names."""
    return {f"{prefix}{path}.{name}": tensor.detach().clone().contiguous() for path in paths
            for name, tensor in network.get_submodule(path).state_dict().items()}


def _task_type(model: TaskModel, network: Any) -> str | None:
    """PEFT's word for what a network gives, by which its Auto classes find the network's own."""
    return _TASK_TYPES.get(_public_name(network)) if model.pooled_head is None else None


@contextmanager
def _bare(network: Any) -> Iterator[None]:
    """The network below what PEFT has injected."""
    layers = {name: module for name, module in network.named_modules()
              if isinstance(module, BaseTunerLayer)}
    config = network.__dict__.pop("peft_config", None)
    for name, layer in layers.items():
        network.set_submodule(name, layer.get_base_layer())
    yield
    for name, layer in layers.items():
        network.set_submodule(name, layer)
    if config is not None:
        network.peft_config = config


def unload(model: TaskModel) -> None:
    """Put the layers that PEFT has merged into in the place of its own."""
    if isinstance(model.network, PeftModel):
        model.unwrap()
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


def answers_pipelines(model: TaskModel) -> bool:
    """Return whether a network of transformers has its head where pipelines look for it.

    Where it has not, they make a new one, of random weights.
    """
    network = network_of(model)
    return network is None or (model.pooled_head is None and _public_name(network) != "AutoModel")


def _without_pooler(network: Any) -> str:
    """A bare network without its pooler says so, or transformers would add a random one."""
    takes = "add_pooling_layer" in inspect.signature(type(network).__init__).parameters
    return ", add_pooling_layer=False" if takes and getattr(network, "pooler", None) is None else ""


def _name_outputs(config: Any, model: TaskModel, task: Task) -> None:
    """Names of classes where transformers' own pipelines look for them."""
    if model.pooled_head is not None or task.output_type not in _NAMED:
        return
    if task.exported_names:
        config.id2label = dict(enumerate(task.exported_names))
        config.label2id = {name: number for number, name in enumerate(task.exported_names)}
    if task.problem_type is not None:
        config.problem_type = task.problem_type


def network_of(model: TaskModel) -> Any:
    """A model's network of transformers, without what PEFT put around it; None of another library."""
    network: Any = model.network.get_base_model() if isinstance(model.network, PeftModel) \
        else model.network
    return network if isinstance(network, transformers.PreTrainedModel) else None
