"""Where a number came from."""

import json
from pathlib import Path
from types import SimpleNamespace

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


@pytest.mark.parametrize(("config", "named"), [
    ({"backbone": {"init_args": {"quantize": None}}}, set()),
    ({"backbone": {"init_args": {"quantize": {"quant_type": "nf4"}}}}, {"bitsandbytes"}),
    ({"technique": {"init_args": {"optim": {"name": "adamw8bit"}}}}, {"bitsandbytes"}),
    ({"backbone": {}, "quantized": ("int8",)}, {"torchao"})])
def test_used__names_the_packages_of_quantised_weights_where_they_are_used(config: dict, named: set[str]) -> None:
    environment = json.dumps({"versions": {"torch": "2", "bitsandbytes": "0.5", "torchao": "0.18"}, "python": "3"})
    made = json.loads(provenance.used(environment, config))
    assert made == {"python": "3", "versions": {name: json.loads(environment)["versions"][name]
                                                for name in {"torch", *named}}}
    assert provenance.used("{}", config) == '{"versions": {}}'


def test_collect__joins_environments_that_differ_in_what_was_used_alone() -> None:
    base = {"versions": {"torch": "2"}, "python": "3"}
    joined = {"versions": {"torch": "2", "torchao": "1"}, "python": "3"}
    other = {"versions": {"torch": "3"}, "python": "3"}
    run = SimpleNamespace(data_sha256="", tags={})
    cell = SimpleNamespace(key=SimpleNamespace(dataset="d", backbone="b"), finished=[
        SimpleNamespace(**{**vars(run), "tags": {provenance.TAG: json.dumps(each)}}) for each in (base, joined, other)])
    assert provenance.collect("s", "?", [cell])["environments"] == [joined, other]  # type: ignore[list-item]
