"""The provenance of a number: versions, commit, machine."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ftlab.tracking.records import CellRecord

PACKAGES = (
    "ftlab", "torch", "torchvision", "lightning", "transformers", "peft", "torchmetrics", "mlflow",
)  # fmt: skip
OF_QUANTIZED = {"bitsandbytes": ('"quantize":', "adamw8bit"), "torchao": ('"quantized": [',)}
"""Packages of the extra `quantized`, and what stands in a cell's configuration that uses them."""
TAG = "ftlab.provenance"


def here() -> dict[str, Any]:
    """Provenance of this process: package versions, ftlab's commit where it runs from a checkout, device."""
    return {
        "versions": {name: metadata.version(name) for name in PACKAGES} | dict(_of_quantized()),
        "python": platform.python_version(),
        "commit": _commit(),
        "device": _device(),
    }


def _of_quantized() -> Iterator[tuple[str, str]]:
    for name in OF_QUANTIZED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)


def used(environment: str, config: Mapping[str, Any]) -> str:
    """The part of a process's provenance that a cell has used, as JSON.

    Args:
        environment: `here()` as JSON.
        config: of the cell.
    """
    text, made = json.dumps(config, default=str).lower().replace('"quantize": null', ""), json.loads(environment)
    made["versions"] = {name: version for name, version in made.get("versions", {}).items()
                        if any(mark in text for mark in OF_QUANTIZED.get(name, ("",)))}
    return json.dumps(made, sort_keys=True)


def _device() -> str:
    """The first GPU, or the CPU; asks the driver, since CUDA started here would take its memory."""
    import torch

    if not torch.cuda.device_count():
        return f"CPU, {os.cpu_count()} cores, {platform.machine()}"
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    asking = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "-i", first]
    try:
        asked = subprocess.run(asking, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # another maker's, or its tools are not here
        return "GPU"
    return asked.stdout.strip()


def _commit() -> str:
    """The checkout's commit, with `+` where files were changed; empty outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        outputs = [
            subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "ftlab"])
        ]
    except (OSError, subprocess.CalledProcessError):  # no git, or no commit yet
        return ""
    return outputs[0] + ("+" if outputs[1] else "")


def collect(study: str, question: str, cells: Iterable[CellRecord]) -> dict[str, Any]:
    """The provenance of a study's finished runs, as stored: each distinct environment once."""
    environments: list[Any] = []
    fingerprints: dict[str, dict[str, str]] = {"datasets": {}, "backbones": {}}
    for cell in cells:
        for run in cell.finished:
            environment = json.loads(run.tags.get(TAG, "{}"))
            if environment and not any(_joined(known, environment) for known in environments):
                environments.append(environment)
            fingerprints["datasets"][cell.key.dataset] = run.data_sha256
            fingerprints["backbones"][cell.key.backbone] = run.tags.get("ftlab.backbone_sha256", "")
    return {"study": study, "question": question, "environments": environments, **fingerprints}


def _joined(known: dict[str, Any], other: dict[str, Any]) -> bool:
    """Take another cell's packages into an environment that is else the same; returns whether it is."""
    mine, theirs = known.get("versions", {}), other.get("versions", {})
    shared = mine.keys() & theirs.keys()
    apart = (mine.keys() ^ theirs.keys()) - OF_QUANTIZED.keys()
    if apart or any(mine[name] != theirs[name] for name in shared) or {**known, "versions": 0} != {**other, "versions": 0}:
        return False
    if theirs.keys() - mine.keys():
        known["versions"] = dict(sorted({**mine, **theirs}.items()))
    return True
