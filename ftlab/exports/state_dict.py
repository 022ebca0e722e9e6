"""Networks that a library other than transformers builds: a state dict and what it goes into."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from ftlab.backbones.export_code import PlainNetwork
from ftlab.exports.loading_code import LoadingCode, executed
from ftlab.exports.transformers_folder import check_stock
from ftlab.tasks.base import Task

WEIGHTS = "model.safetensors"


def write_state(loading: LoadingCode, plain: PlainNetwork, task: Task, folder: Path) -> None:
    """Weights as safetensors, with the name of the network and the names of the outputs.

    Raises:
        Incompatible: the network has modules that the library's lacks.
    """
    loading.add(plain.build)
    build = plain.build.code.strip()
    with torch.random.fork_rng(devices=[]):  # not on the meta device: RegNet computes its widths
        stock = executed(loading.imports, build, {})["model"].state_dict()
    check_stock(plain.state.keys(), stock.keys(), f"{plain.library}'s {plain.name}")
    save_file({name: tensor.detach().contiguous() for name, tensor in plain.state.items()},
              folder / WEIGHTS)
    config: Mapping[str, object] = {"library": plain.library, "name": plain.name, **plain.settings,
                                  "classes": list(task.names) or None}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    loading.imports.add("from safetensors.torch import load_file")
    loading.network = (f'{build}\nmodel.load_state_dict(load_file(f"{{folder}}/{WEIGHTS}"))\n'
                       f"model.eval()\n\n{plain.call.strip()}")
