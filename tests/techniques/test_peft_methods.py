"""The table of PEFT's methods says what measuring the installed PEFT says, layer by layer."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ftlab.techniques.peft_injection import _corrected, _mend
from ftlab.techniques.peft_methods import (
    CONVOLUTION,
    GROUPED,
    LINEAR,
    METHODS,
    PIXEL,
    TRANSPOSED,
    Size,
    kind_of,
    widths,
)
from ftlab.techniques.peft_settings import config_class, initial, kinds_for

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    LINEAR: (lambda: nn.Linear(32, 48), (5, 32)),
    TRANSPOSED: (lambda: Conv1D(48, 32), (5, 7, 32)),
    PIXEL: (lambda: nn.Conv2d(32, 48, 1), (3, 32, 6, 6)),
    CONVOLUTION: (lambda: nn.Conv2d(32, 48, 3, padding=1, stride=2), (3, 32, 8, 8)),
    GROUPED: (lambda: nn.Conv2d(32, 48, 3, padding=1, groups=4), (3, 32, 8, 8)),
}
SMALL: dict[str, dict[str, Any]] = {  # what fits these layers, where PEFT's own does not
    "adalora": {"total_step": 100, "tinit": 1, "tfinal": 1}, "ia3": {"feedforward_modules": []},
    "oft": {"oft_block_size": 8}, "vblora": {"vector_length": 16, "num_vectors": 16},
    "fourierft": {"n_frequency": 50}, "waveft": {"n_frequency": 50}, "c3a": {"block_size": 16},
    "miss": {"r": 8}, "shira": {"r": 4, "random_seed": 3}, "road": {"group_size": 16},
    "psoft": {"r": 8}, "hira": {"r": 8}, "gralora": {"r": 8, "alpha": 16}, "peanut": {"r": 8},
    "vera": {"r": 8}, "pvera": {"r": 8}, "randlora": {"r": 8}, "lily": {"r": 8},
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((method, {}) for method in METHODS),
    *(("lora", {"init_lora_weights": start}) for start in METHODS["lora"].narrower),
    ("lora", {"use_dora": True}), ("lora", {"use_rslora": True}), ("oft", {"use_cayley_neumann": False}),
    ("miss", {"init_weights": "bat"}), ("fourierft", {"init_weights": True}),
    ("c3a", {"init_weights": True}), ("loha", {"use_effective_conv2d": True}),
    ("lokr", {"use_effective_conv2d": True}),
]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Two(nn.Module):
    """Two layers of a kind, one after the other where that is possible."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first, self.second = LAYERS[kind][0](), LAYERS[kind][0]()
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.first(x)) + self.second(x)


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def measure(method: str, config: dict[str, Any], kind: str, last: bool = False) -> str | None:
    """What is wrong with a method on a kind of layer; None where it is right."""
    network, x = Two(kind).eval(), torch.randn(LAYERS[kind][1])
    if last:
        for parameter in network.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    before = network(x).detach()
    made = config_class(method)(target_modules="first|second", **SMALL.get(method, {}) | config)
    try:
        with _corrected():
            PEFT_TYPE_TO_TUNER_MAPPING[method.upper()](network, made, "default")
        layers: list[Any] = [m for m in network.modules() if isinstance(m, BaseTunerLayer)]
        for layer in layers:
            _mend(layer)
        if len(layers) != 2:
            return f"{len(layers)} layers"
        identity = initial(method, config) not in METHODS[method].apart
        if (found := gap(network(x).detach(), before)) > 1e-5 and identity:
            return f"identity {found}"
        if found < 1e-6 and not identity:
            return "is the identity"
        trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
        optimizer, reached = torch.optim.SGD(trained.values(), lr=1e-2), set()
        for _ in range(3):
            optimizer.zero_grad()
            network.train()(x).square().mean().backward()
            reached |= {n for n, p in trained.items() if p.grad is not None and p.grad.any()}
            optimizer.step()
        if missing := trained.keys() - reached:
            return f"no gradient: {missing}"
        for parameter in trained.values():
            parameter.data.add_(0.1 * torch.randn(parameter.shape))
        unmerged = network.eval()(x).detach()
        if METHODS[method].merges:
            for layer in layers:
                layer.merge()
            if (found := gap(network(x).detach(), unmerged)) > 1e-5:
                return f"merged {found}"
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
        return f"refused: {error}"
    return None


@pytest.mark.parametrize(("method", "config"), VARIANTS, ids=lambda v: v if isinstance(v, str) else
                         "-".join(map(str, v.values())))
def test_table__says_what_is_measured(method: str, config: dict[str, Any]) -> None:
    found = {kind: measure(method, config, kind) for kind in LAYERS}
    assert {kind for kind, wrong in found.items() if wrong is None} == set(kinds_for(method, config)), found


@pytest.mark.parametrize("method", [m for m, known in METHODS.items() if CONVOLUTION in known.kinds])
def test_convolutions__stored_channels_last(method: str) -> None:
    assert measure(method, {}, CONVOLUTION, last=True) is None
    if method == "lora":
        assert measure(method, {"use_dora": True}, CONVOLUTION, last=True) is None


def test_measure__finds_what_is_wrong() -> None:
    """PEFT attaches all of these without a word."""
    assert str(measure("oft", {}, CONVOLUTION)).startswith("identity")
    assert str(measure("hra", {"apply_GS": True}, LINEAR)).startswith("identity")
    assert "mat1 and mat2" in str(measure("lora", {"init_lora_weights": "olora"}, TRANSPOSED))
    assert measure("hra", {"r": 3}, LINEAR) is not None


def test_kinds_and_widths() -> None:
    for kind, (make, _) in LAYERS.items():
        assert kind_of(make()) == kind
    assert [widths(make()) for make, _ in LAYERS.values()] == [
        (32, 48), (32, 48), (32, 48), (288, 48), (72, 48)]


def test_size__is_the_largest_that_all_layers_allow() -> None:
    size = Size("block", lambda value, inputs, outputs: inputs % value == 0, least=2)
    layers = [nn.Linear(48, 7), nn.Linear(36, 5)]
    assert [size.choose(wanted, layers) for wanted in (100, 12, 11, 5, 2, 1)] == [12, 12, 6, 4, 2, None]
    assert size.choose(8, [nn.Linear(27, 8), nn.Linear(8, 8)]) is None
