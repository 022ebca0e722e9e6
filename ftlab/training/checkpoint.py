"""Delta checkpoints: the tensors that a technique changed, as safetensors with a manifest."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import InputError
from ftlab.files import replacing, write
from ftlab.training.fsdp import full
from ftlab.training.manifest import MANIFEST

WEIGHTS = "delta.safetensors"


def buffer_names(model: TaskModel) -> set[str]:
    """Names of the persistent buffers (batch statistics, for instance)."""
    return {name for name, _ in model.named_buffers()} & model.state_dict().keys()


def tensors(model: TaskModel, names: set[str], keep: bool = True) -> dict[str, Tensor]:
    """Copies of some parameters and buffers, on the CPU; of a sharded model on all ranks at once.

    Args:
        model: adapted.
        names: of the tensors.
        keep: whether this rank wants them; else it only helps to gather each.
    """
    state, found = model.state_dict(), dict[str, Tensor]()
    for name in sorted(names):
        gathered = full(state[name].detach())
        if keep:
            found[name] = gathered.cpu().contiguous()
    return found


def save(directory: Path, changed: Mapping[str, Tensor], record: Mapping[str, Any]) -> int:
    """Write a checkpoint to `directory`, whole or not at all.

    Args:
        directory: made if missing; an earlier checkpoint in it is replaced.
        changed: the tensors, by name.
        record: what the manifest holds beside the hashes: fingerprint, config, versions.

    Returns:
        Bytes written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    weights = directory / WEIGHTS
    with replacing(weights) as temporary:
        save_file(dict(changed), temporary)
        digest = _sha256(temporary)
    manifest = json.dumps({"files": {WEIGHTS: {"sha256": digest}}, **record}, indent=1)
    write(directory / MANIFEST, manifest + "\n")  # last: without it there is no checkpoint
    return weights.stat().st_size + (directory / MANIFEST).stat().st_size


def load(directory: Path, model: TaskModel) -> dict[str, Any]:
    """Put a checkpoint's tensors into an adapted model and return its manifest.

    Raises:
        InputError: a file is missing or damaged, or does not belong to this model.
    """
    mend = "take a checkpoint that ftlab wrote for this study's cell, or run the cell again"
    try:
        manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        digest = _sha256(directory / WEIGHTS)
        expected = manifest["files"][WEIGHTS]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{directory} holds no readable checkpoint ({error})", mend) from error
    if digest != expected:
        raise InputError(f"{directory / WEIGHTS} is damaged: its sha256 is not its manifest's", mend)
    try:
        state = OrderedDict(load_file(directory / WEIGHTS))
        # some networks ask for the version that torch puts beside a state dict (MNASNet)
        state._metadata = getattr(model.state_dict(), "_metadata", None)  # type: ignore[attr-defined]
        unknown = model.load_state_dict(state, strict=False).unexpected_keys
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"{directory / WEIGHTS} does not fit the model: {error}", mend) from error
    if unknown:
        raise InputError(f"{directory / WEIGHTS} has tensors this model lacks: {unknown}", mend)
    return manifest


def _sha256(path: Path) -> str:
    """A file's sha256, read in a stream: whole it would be as much memory again as the weights."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
