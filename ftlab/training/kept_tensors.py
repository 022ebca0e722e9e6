"""Tensors that are computed once a machine: a file of the cache, under a hash of all they follow from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import lightning
import peft
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from ftlab.backbones import cache_folder
from ftlab.backbones.digest import DIGESTS, Damaged, digests, mapped
from ftlab.files import replacing


def versions() -> list[str]:
    """Versions of the libraries that compute."""
    return [torch.__version__, transformers.__version__, lightning.__version__, peft.__version__]


def key(parts: Mapping[str, Any]) -> str:
    """Hash of all that tensors follow from."""
    content = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def obtain(kind: str, name: str, make: Callable[[], Mapping[str, Tensor]],
           waiting: Callable[[], None]) -> dict[str, Tensor]:
    """Read tensors, or make them and keep them for others; of several processes one makes them.

    Args:
        kind: folder of the cache.
        name: of the file, from `key`.
        make: computes them.
        waiting: called every now and then while another process makes them.
    """
    path = cache_folder.folder(kind) / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with cache_folder.locked(path.with_suffix(".lock"), waiting):
        try:
            kept = dict(mapped(path))
            cache_folder.mark_read(path)
            return kept
        except FileNotFoundError:
            pass
        except Damaged as error:
            cache_folder.damaged(str(error))
        tensors = {place: tensor.contiguous() for place, tensor in make().items()}
        with replacing(path, locked=True) as whole:
            save_file(tensors, whole, {DIGESTS: digests(tensors)})
            cache_folder.make_room(whole.stat().st_size)
        return tensors
