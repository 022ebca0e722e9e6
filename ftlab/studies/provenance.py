"""The provenance of a number: versions, commit, machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from ftlab.tracking.records import CellRecord

PACKAGES = (
    "ftlab", "torch", "torchvision", "lightning", "transformers", "peft", "torchmetrics", "mlflow",
)  # fmt: skip
TAG = "ftlab.provenance"


def here() -> dict[str, Any]:
    """Provenance of this process: package versions, ftlab's commit where it runs from a checkout, device."""
    return {
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "commit": _commit(),
        "device": _device(),
    }


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
            if environment and environment not in environments:
                environments.append(environment)
            fingerprints["datasets"][cell.key.dataset] = run.data_sha256
            fingerprints["backbones"][cell.key.backbone] = run.tags.get("ftlab.backbone_sha256", "")
    return {"study": study, "question": question, "environments": environments, **fingerprints}
