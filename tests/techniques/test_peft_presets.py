"""Presets of PEFT's methods, each held to its paper's update, count, start and restoration."""

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from ftlab.backbones.huggingface import HuggingFace
from ftlab.studies.discover import members
from ftlab.tasks.classification import Classification
from ftlab.techniques.base import Technique
from ftlab.techniques.peft_technique import PeftTechnique

PRESETS = {name: cls for name, cls in members(Technique).items()
           if issubclass(cls, PeftTechnique) and "method" not in inspect.signature(cls).parameters}
REWRITES = {"PiSSA", "OLoRA"}
WIDE, INNER, LAYERS = 32, 48, 3  # of the tiny BERT
TARGETS = ["query", "intermediate.dense"]  # 32 to 32, and 32 to 48


def built(name: str, folder: Path, seed: int = 0, **arguments: Any) -> Technique:
    task = Classification()
    task.fit(["a", "b", "c"])
    torch.manual_seed(seed)
    model = HuggingFace(str(folder), pooling="mean", dropout=0.0).build(task).eval()
    return PRESETS[name](targets=TARGETS, **arguments).bind(model, task)


def batch() -> dict[str, Any]:
    draw = torch.Generator().manual_seed(5)
    ids = torch.randint(4, 20, (6, 9), generator=draw)
    return {"inputs": {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
            "target": torch.tensor([0, 1, 2, 0, 1, 2])}


def steps(technique: Technique, count: int, rate: float = 1e-2) -> set[str]:
    """Train, and return the names of what had a gradient."""
    model, reached = technique.model, set()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam(trained.values(), lr=rate)
    technique.train()
    for _ in range(count):
        optimizer.zero_grad()
        technique.objective(model, technique.task, batch()).backward()
        reached |= {n for n, p in trained.items() if p.grad is not None and p.grad.any()}
        optimizer.step()
    technique.eval()
    return trained.keys() - reached


def adapters(model: nn.Module) -> list[tuple[str, Any]]:
    return [(n, m) for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)]


@pytest.mark.parametrize("name", PRESETS)
def test_gradients_and_what_stays(name: str, tiny_bert: Path) -> None:
    plain = {n: p.detach().clone() for n, p in built("RsLoRA", tiny_bert).model.named_parameters()}
    technique = built(name, tiny_bert)
    base = {n.replace("base_model.model.", ""): p for n, p in technique.model.named_parameters()
            if (not p.requires_grad and "base_layer" in n) or ".embeddings." in n}
    assert len(base) > 12
    rewritten = {n for n, p in base.items() if n in plain and not torch.equal(p, plain[n])}
    adapted = {n for n in base if n.endswith("base_layer.weight")}
    assert rewritten == (adapted if name in REWRITES else set())
    kept = {n: p.detach().clone() for n, p in base.items()}
    assert not steps(technique, 3)
    assert all(torch.equal(p, kept[n]) for n, p in base.items())


COUNTS: dict[str, Callable[[int, int], int]] = {  # of a layer, from its inputs and outputs
    "FFALoRA": lambda i, o: 8 * o, "RsLoRA": lambda i, o: 32 * (i + o), "LoRAPlus": lambda i, o: 8 * (i + o),
    "EVA": lambda i, o: 8 * (i + o), "PiSSA": lambda i, o: 16 * (i + o),
    "OLoRA": lambda i, o: 16 * (i + o), "DoRA": lambda i, o: 8 * (i + o) + o,
    "AdaLoRA": lambda i, o: 12 * (i + o + 1), "VeRA": lambda i, o: 256 + o,
    "LoHa": lambda i, o: 2 * 8 * (i + o), "OFT": lambda i, o: i // 32 * 32 * 31 // 2,
    "BOFT": lambda i, o: i * 4 + o, "HRA": lambda i, o: 8 * i, "MiSS": lambda i, o: 32 * o,
    "FourierFT": lambda i, o: 1000, "SHiRA": lambda i, o: 16 * (i + o), "C3A": lambda i, o: i * o // 16,
    "LoKr": lambda i, o: {32: 4 * 4 + 8 * 8, 48: 6 * 4 + 8 * 8}[o],
    "RandLoRA": lambda i, o: 32 + min(i, o), "VBLoRA": lambda i, o: 4 * 256 * (i + o) // 16,
}


@pytest.mark.parametrize("name", PRESETS)
def test_count(name: str, tiny_bert: Path) -> None:
    technique = built(name, tiny_bert)
    adapters_alone = sum(p.numel() for n, p in technique.model.named_parameters()
                         if p.requires_grad and "pooled_head" not in n)
    bank = 256 * 16 if name == "VBLoRA" else 0
    assert adapters_alone == bank + LAYERS * sum(COUNTS[name](WIDE, o) for o in (WIDE, INNER))


def rotation(skew: Tensor) -> Tensor:
    """Cayley's: orthogonal for any skew matrix."""
    one = torch.eye(len(skew), dtype=skew.dtype)
    return (one + skew) @ torch.linalg.inv(one - skew)


def upper(values: Tensor, size: int) -> Tensor:
    matrix = torch.zeros(size, size, dtype=values.dtype)
    matrix[*torch.triu_indices(size, size, 1)] = values
    return matrix - matrix.T


def oft(layer: Any, w: Tensor, t: Callable[[str], Tensor]) -> Tensor:
    values, size = t("oft_R.default.weight"), layer.oft_R["default"].block_size
    return w @ torch.block_diag(*[rotation(upper(row, size)) for row in values])


def boft(layer: Any, w: Tensor, t: Callable[[str], Tensor]) -> Tensor:
    blocks = [rotation(0.5 * (r - r.T)) for r in t("boft_R.default")[0]]
    return t("boft_s.default") * (w @ torch.block_diag(*blocks))


def hra(layer: Any, w: Tensor, t: Callable[[str], Tensor]) -> Tensor:
    for u in t("hra_u.default").T:
        w = w - 2 * torch.outer(w @ u, u) / (u @ u)
    return w


def dora(layer: Any, w: Tensor, t: Callable[[str], Tensor]) -> Tensor:
    v = w + 2 * t("lora_B.default.weight") @ t("lora_A.default.weight")
    return t("lora_magnitude_vector.default.weight")[:, None] * v / v.norm(dim=1, keepdim=True)


def fourier(layer: Any, w: Tensor, t: Callable[[str], Tensor]) -> Tensor:
    dense = torch.zeros_like(w)
    dense[*layer.indices["default"]] = t("fourierft_spectrum.default")
    return w + 150 * torch.fft.ifft2(dense).real


def circulant(layer: Any, w: Tensor, t: Callable[[str], Tensor]) -> Tensor:
    kernels = t("c3a_kernel.default")  # (outputs / b, inputs / b, b)
    b = kernels.shape[-1]
    turn = (torch.arange(b) - torch.arange(b)[:, None]) % b
    rows = [torch.cat([kernel[turn] for kernel in row], dim=1) for row in kernels]
    return w + torch.cat(rows) / w.shape[1]


def vb(layer: Any, w: Tensor, t: Callable[[str], Tensor]) -> Tensor:
    bank = layer.vblora_vector_bank["default"].double()

    def mixed(logits: Tensor) -> Tensor:
        top = logits.topk(2, dim=-1)
        return (top.values.softmax(-1)[..., None] * bank[top.indices]).sum(-2)

    a = mixed(t("vblora_logits_A.default")).reshape(4, -1)
    b = mixed(t("vblora_logits_B.default")).transpose(1, 2).reshape(-1, 4)
    return w + b @ a


def low_rank(scale: float) -> Callable[..., Tensor]:
    return lambda layer, w, t: w + scale * t("lora_B.default.weight") @ t("lora_A.default.weight")


def shira(layer: Any, w: Tensor, t: Callable[[str], Tensor]) -> Tensor:
    dense = torch.zeros_like(w)
    dense[*layer.shira_indices["default"].long()] = t("shira_weight.default")
    return w + dense


def rand(layer: Any, w: Tensor, t: Callable[[str], Tensor]) -> Tensor:
    o, i = w.shape
    small, large = min(o, i), max(o, i)
    bases = layer.randlora_A["default"].double(), layer.randlora_B["default"].double()
    scales, gains = t("randlora_lambda.default"), t("randlora_gamma.default")
    delta = torch.zeros(large, small, dtype=w.dtype)
    for k in range(scales.shape[-1]):
        a = bases[0][:, k, :small] * gains[k]
        delta += bases[1][:large, k] @ (scales[:, k, None] * a)
    return w + 20 * (delta if o >= i else delta.T)


DENSE: dict[str, Callable[..., Tensor]] = {
    "DoRA": dora, "FFALoRA": low_rank(2), "RsLoRA": low_rank(16 / 32**0.5), "LoRAPlus": low_rank(2), "EVA": low_rank(2),
    "PiSSA": low_rank(1), "OLoRA": low_rank(1), "OFT": oft, "BOFT": boft, "HRA": hra,
    "FourierFT": fourier, "C3A": circulant, "VBLoRA": vb, "SHiRA": shira, "RandLoRA": rand,
    "AdaLoRA": lambda layer, w, t: w + 24 / (12 + 1e-5) * t("lora_B.default") @ (
        t("lora_A.default") * t("lora_E.default")),
    "VeRA": lambda layer, w, t: w + t("vera_lambda_b.default")[:, None] * (
        layer.vera_B["default"][:len(w)].double() @ (
            t("vera_lambda_d.default")[:, None] * layer.vera_A["default"][:, :w.shape[1]].double())),
    "LoHa": lambda layer, w, t: w + (t("hada_w1_a.default") @ t("hada_w1_b.default")) * (
        t("hada_w2_a.default") @ t("hada_w2_b.default")),
    "LoKr": lambda layer, w, t: w + torch.kron(t("lokr_w1.default"), t("lokr_w2.default")),
    "MiSS": lambda layer, w, t: w + t("miss_block.default").T.repeat(
        1, w.shape[1] // len(t("miss_block.default"))),
}


@pytest.mark.parametrize("name", PRESETS)
def test_merged_weight_is_the_paper_s(name: str, tiny_bert: Path) -> None:
    technique = built(name, tiny_bert)
    draw = torch.Generator().manual_seed(1)
    for parameter in technique.model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)
    layers = adapters(technique.model)
    assert len(layers) == 2 * LAYERS
    expected = {}
    for path, layer in layers:
        own = {n: p.detach().double() for n, p in layer.named_parameters()}
        expected[path] = DENSE[name](layer, layer.get_base_layer().weight.detach().double(), own.__getitem__)
    with torch.no_grad():
        unmerged = technique.model(batch())
        assert technique.merge(technique.model)
        torch.testing.assert_close(technique.model(batch()), unmerged, rtol=1e-4, atol=1e-5)
    for path, layer in layers:
        merged = layer.get_base_layer().weight.detach().double()
        torch.testing.assert_close(merged, expected[path], rtol=1e-5, atol=1e-5)


RESTORED = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from techniques.test_peft_presets import PRESETS, batch, built
folder, kept = Path(sys.argv[2]), torch.load(sys.argv[3])
for name in PRESETS:
    model = built(name, folder, seed=3).model
    model.load_state_dict(kept[name]["delta"], strict=False)
    with torch.no_grad():
        assert torch.equal(model(batch()), kept[name]["outputs"]), name
print(len(PRESETS))
"""


def test_delta__restores_outputs_to_the_bit_in_a_fresh_process(tiny_bert: Path, tmp_path: Path) -> None:
    kept = {}
    for name in PRESETS:
        technique = built(name, tiny_bert, seed=3)
        steps(technique, 3)
        with torch.no_grad():
            outputs = technique.model(batch())
        delta = {n: p.detach() for n, p in technique.model.named_parameters() if p.requires_grad}
        kept[name] = {"delta": delta, "outputs": outputs}
    torch.save(kept, tmp_path / "kept.pt")
    tests = Path(__file__).resolve().parent.parent
    script = tmp_path / "restored.py"
    script.write_text(RESTORED)
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([sys.executable, script, tests, tiny_bert, tmp_path / "kept.pt"], check=False,
                          text=True, capture_output=True, env={**os.environ, **threads})
    assert done.stdout.split()[-1:] == [str(len(PRESETS))], done.stderr
