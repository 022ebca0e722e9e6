"""A model of which no rank ever holds all weights: adapted without them, shared out, then read in shares.

What computes with the weights before training (guards, what the network reads) does so on shared out
weights, on all ranks at once, as the training does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.utils._pytree import tree_leaves

from ftlab.backbones.source import WholeOnly
from ftlab.backbones.task_model import TaskModel
from ftlab.backbones.unread_weights import replace_tensors, tensors_at
from ftlab.errors import FtlabError
from ftlab.techniques.wrapper import chain
from ftlab.training import fake_tensors, fsdp, hardware, precision
from ftlab.training.run import Run


def build(run: Run) -> TaskModel:
    """A run's model without weights, new parts excepted.

    Raises:
        WholeOnly: the run needs them whole.
    """
    settings = run.settings
    if int(os.environ.get("WORLD_SIZE", "1")) != settings.processes:
        raise WholeOnly("one process, which estimates")
    if run.learned is not None:
        raise WholeOnly("stages have changed the weights")
    if settings.precision in precision.DTYPES:
        raise WholeOnly(f"precision {settings.precision} converts them")
    return run.backbone.build_unread(run.data.task, run.technique.output_type)


@contextmanager
def shapes_alone(model: TaskModel, batch: Mapping[str, Any]) -> Iterator[Any]:
    """Within it tensors have shapes and no numbers; gives the batch so.

    Raises:
        WholeOnly: what is computed within depends on numbers.
    """
    made = fake_tensors.mode()
    fake_tensors.empty(model, made, only_meta=True)
    try:
        with made:
            yield fake_tensors.batch_like(batch, made)
    except fake_tensors.NEEDS_NUMBERS as error:
        raise WholeOnly(f"the network's computation depends on numbers ({type(error).__name__})") from error
    replace_tensors(model, _is_fake, _unread)


def filled(run: Run, model: TaskModel) -> TaskModel:
    """Share a model out and read its weights, all ranks at once; returns it."""
    device = hardware.device_of(run.settings)
    fsdp.shard(model, _mesh(run, device))
    assert model.unread is not None
    model.unread.read(model, device)
    model.unread = None
    return model


def bind(run: Run, model: TaskModel) -> None:
    """Let the technique adapt a model that has no weights yet.

    Raises:
        WholeOnly: what it adds depends on the weights.
        InputError: as `fsdp.check`.
    """
    technique = run.technique
    fake_tensors.empty(model, fake_tensors.mode(outside=False), only_meta=True)
    before = {place: (tensor, tensor._version) for place, tensor in tensors_at(model) if _is_fake(tensor)}
    try:
        technique.bind(model, run.data.task)
    except FtlabError:
        raise
    except Exception as error:  # whatever a technique makes of tensors without numbers
        raise WholeOnly(f"{type(technique).__name__} reads them where it adapts the network") from error
    after = dict(tensors_at(model))
    if any(tensor is not after.get(place) or tensor._version != version
           for place, (tensor, version) in before.items()):
        raise WholeOnly(f"{type(technique).__name__} changes them where it adapts the network")
    added = [tensor for place, tensor in after.items() if place not in before]
    kept = tree_leaves([vars(part) for part in chain(technique)])
    if any(_is_fake(tensor) or tensor.is_meta for tensor in added) or any(map(_is_fake, kept)):
        raise WholeOnly(f"{type(technique).__name__} starts what it adds from them")
    replace_tensors(model, _is_fake, _unread)
    technique.train()
    fsdp.check(model, technique)


def _is_fake(value: Any) -> bool:
    return isinstance(value, FakeTensor)


def _unread(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _mesh(run: Run, device: torch.device) -> DeviceMesh:
    """All ranks of a run, which meet here first; the Trainer finds them together."""
    if not torch.distributed.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return init_device_mesh(device.type, (run.settings.processes,))
