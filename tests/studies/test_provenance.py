"""Where a number came from."""

from pathlib import Path

import pytest
import torch

from ftlab.studies import provenance

UNRENDERED = True


@pytest.mark.parametrize(("visible", "script", "said"), [
    (None, 'echo "H100 number $4"', "H100 number 0"),
    ("3,1", 'echo "H100 number $4"', "H100 number 3"),
    (None, "exit 9", "GPU"),
])  # fmt: skip
def test_here__asks_the_driver_for_the_gpu(
    visible: str | None, script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA must not start in a coordinator."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert provenance.here()["device"] == said
    assert not torch.cuda.is_initialized()


def test_here__without_a_gpu_names_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert provenance.here()["device"].startswith("CPU, ")
