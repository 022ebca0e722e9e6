"""Weights that are read into a network after its parameters were shared out over ranks.

Each rank reads its share of each tensor from the files (safetensors gives slices), by transformers' own
loading, so that names, dtypes, tied tensors and what it computes anew are as in any other load.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, core_model_loading
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.modeling_utils import LoadStateDictConfig

from ftlab.backbones.block import lies_below
from ftlab.backbones.source import DAMAGED_WEIGHTS, WholeOnly, reason
from ftlab.errors import InputError

Place = tuple[nn.Module, str]
"""A module and the name of a tensor in it: it stays when modules are put around it."""


class UnreadWeights:
    """The files of a network without weights, and where its tensors are by then.

    Args:
        network: on the meta device, as its architecture makes it.
        files: with its weights.
        label: of the backbone, in messages.

    Raises:
        WholeOnly: its weights cannot be read in shares.
    """

    def __init__(self, network: PreTrainedModel, files: Sequence[Path], label: str) -> None:
        if not hasattr(core_model_loading, "DtensorShardOperation"):
            raise WholeOnly("this release of transformers reads no shares")
        if files[0].suffix != ".safetensors":
            raise WholeOnly(f"{files[0].name} is not safetensors")
        self.dtype, self.files, self.label = network.dtype, files, label
        if network._get_dtype_plan(self.dtype):
            raise WholeOnly("parts of the network stay in float32")
        self._renamings: list[Any] = get_model_conversion_mapping(network)
        if any(isinstance(entry, core_model_loading.WeightConverter) for entry in self._renamings):
            raise WholeOnly("its tensors are other ones in the files")
        self._shell = copy.deepcopy(network)
        self.places: dict[str, Place] = {
            f"{path}.{name}".lstrip("."): (module, name) for path, module in network.named_modules()
            for name in (*module._parameters, *module._buffers)}

    def give_room(self, network: nn.Module, roots: Sequence[str]) -> None:
        """Let the parts of a network that are made anew have numbers, which nobody has set.

        Raises:
            WholeOnly: they are tied to what is not.
        """
        for root in roots:
            part = network.get_submodule(root)
            inside = {id(tensor) for tensor in part.parameters()}
            if any(id(tensor) in inside and not lies_below(name, [root])
                   for name, tensor in network.named_parameters(remove_duplicate=False)):
                raise WholeOnly("its new head is tied to the network")
            part.to_empty(device="cpu")

    def read(self, model: nn.Module, device: torch.device) -> None:
        """Read what is still on the meta device, all ranks at once: each its share.

        Args:
            model: that the network has become a part of.
            device: of the weights.

        Raises:
            InputError: damaged files, or lacking tensors.
            WholeOnly: a tensor of the network is no longer there.
        """
        there = {name: _tensor(*place) for name, place in self.places.items()}
        lost = [name for name, tensor in there.items() if tensor is None and self._has(name)]
        if lost:
            raise WholeOnly(f"the technique replaces {lost[0]}")
        unread = {name: tensor for name, tensor in there.items() if tensor is not None and tensor.is_meta}
        for name, there_is in unread.items():
            _put(self._shell, name, there_is)
        lacking = self._load(device)
        if lacking & unread.keys():
            names = sorted(lacking & unread.keys())
            raise InputError(f"{self.label}: the weights lack, or have in another shape: {', '.join(names[:5])}",
                             "use a checkpoint of this architecture")
        paths = {module: path for path, module in model.named_modules()}
        read = {}
        for name in unread:
            module, attribute = self.places[name]
            tensor = _tensor(*_place(self._shell, name))
            assert tensor is not None
            if attribute in module._buffers:
                module._buffers[attribute] = tensor.detach()
            else:
                read[f"{paths[module]}.{attribute}".lstrip(".")] = tensor
        model.load_state_dict(read, strict=False, assign=True)

    def _has(self, name: str) -> bool:
        return _tensor(*_place(self._shell, name)) is not None

    def _load(self, device: torch.device) -> set[str]:
        """Let transformers fill the shell; returns the names that the files lack or misshape."""
        shell: Any = self._shell
        settings = LoadStateDictConfig(
            pretrained_model_name_or_path=os.fspath(self.files[0].parent), ignore_mismatched_sizes=True,
            dtype=self.dtype, dtype_plan={}, weight_mapping=self._renamings, use_safetensors=True,
            device_map=None if device.type == "cpu" else {"": device})
        try:
            with torch.random.fork_rng(devices=[]):
                info, _ = shell._load_pretrained_model(shell, None, [os.fspath(f) for f in self.files],
                                                       settings)
                info = shell._finalize_model_loading(shell, settings, info)
        except DAMAGED_WEIGHTS as error:
            raise InputError(f"{self.label}: the weights cannot be read ({self.files[0]}): "
                             f"{reason(error)}", "get the folder again") from error
        return set(info.missing_keys) | {entry[0] for entry in info.mismatched_keys}


def tensors_at(model: nn.Module) -> Iterator[tuple[Place, Tensor]]:
    """All parameters and buffers of a model with their places, tied ones at each."""
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is not None:
                    yield (module, name), tensor


def replace_tensors(model: nn.Module, wanted: Callable[[Tensor], bool], made: Callable[[Tensor], Tensor]) -> None:
    """Put others in the place of some tensors of a model; tied ones stay tied."""
    others: dict[int, Tensor] = {}
    for (module, name), tensor in [*tensors_at(model)]:
        if not wanted(tensor):
            continue
        if id(tensor) not in others:
            other = made(tensor)
            others[id(tensor)] = (nn.Parameter(other, tensor.requires_grad)
                                  if isinstance(tensor, nn.Parameter) else other)
        store: Any = module._parameters if name in module._parameters else module._buffers
        store[name] = others[id(tensor)]


def _place(network: nn.Module, name: str) -> Place:
    path, _, attribute = name.rpartition(".")
    return network.get_submodule(path), attribute


def _tensor(module: nn.Module, attribute: str) -> Tensor | None:
    found = module._parameters.get(attribute)
    return found if found is not None else module._buffers.get(attribute)


def _put(network: nn.Module, name: str, tensor: Tensor) -> None:
    module, attribute = _place(network, name)
    if attribute in module._parameters and not isinstance(tensor, nn.Parameter):  # it was retired
        tensor = nn.Parameter(tensor, requires_grad=False)
    store: Any = module._parameters if attribute in module._parameters else module._buffers
    store[attribute] = tensor
