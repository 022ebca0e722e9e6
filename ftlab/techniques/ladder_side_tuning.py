from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible
from ftlab.techniques.base import (
    Choice,
    LogUniform,
    Optimization,
    Technique,
    freeze_all_but_head,
    is_norm,
    require_new_head,
)
from ftlab.techniques.single_precision import added_dtype

TEMPERATURE = 0.1  # of gates, as in the authors' code


class LadderSideTuning(Technique):
    """Train a small network beside the frozen backbone, which reads what its layers give, and the head.

    Take it where memory is short: no gradient flows through the backbone, so that training keeps
    none of its activations. Each layer of a transformer has a layer of 1/8 of the width beside it:
    side = layer(mu * side + (1 - mu) * down(h)), with h of the backbone, mu = sigmoid(a / 0.1)
    and a = 0 at the start. The side network's output, projected up, takes the place of the
    backbone's. It starts at random (the authors can also start it from pruned weights), so that
    it wants more steps and a higher rate than methods that start as the backbone.

    Sung, Cho, Bansal (2022), https://arxiv.org/abs/2206.06522

    Args:
        reduction: width of the backbone over that of the side network; 8 in the paper.
        merge_last: mix the backbone's own last output into the result, by one more gate; the
            authors' code has it as an option.
        lr: peak learning rate; the paper's is 3e-3.
        optim: optimizer, weight decay and schedule; gates have no decay.
    """

    search_space = {"lr": LogUniform(3e-4, 1e-2), "reduction": Choice((2, 4, 8, 16, 32))}
    identity_at_start = False

    def __init__(self, reduction: int = 8, merge_last: bool = False, lr: float = 3e-3,
                 optim: Optimization = Optimization()) -> None:
        super().__init__(lr, optim)
        if reduction < 1:
            raise ValueError(f"reduction must be at least 1, got {reduction}")
        self.reduction, self.merge_last = reduction, merge_last

    def adapt(self, model: TaskModel) -> None:
        require_new_head(model, "LadderSideTuning")
        layers, like = transformer_layers(model)
        wide = like.shape[0]
        width = wide // self.reduction
        if width < 1:
            raise Incompatible(f"LadderSideTuning(reduction={self.reduction}): the backbone is "
                               f"{wide} wide", f"set reduction to {wide} at most")
        freeze_all_but_head(model)
        ladder = Ladder()
        model.trunk.register_forward_pre_hook(ladder.begin, with_kwargs=True)
        for layer in layers:
            first, last = layer is layers[0], layer is layers[-1]
            rung = Rung(wide, width, _heads(layer), _causal(layer), first, last, self.merge_last)
            layer.add_module("rung", rung.to(like.device, added_dtype(like)))  # a part of the block that it reads
            ladder.bottom = ladder.bottom or rung
            layer.register_forward_hook(ladder.climb, with_kwargs=True)


def transformer_layers(model: TaskModel) -> tuple[list[Any], Tensor]:
    """The last blocks of one class that attend, and a vector of the width that they pass on.

    Raises:
        Incompatible: there is none, the width changes, or a decoder attends to an encoder.
    """
    layers: list[Any] = []
    for block in reversed(model.blocks):
        layer = model.get_submodule(block.paths[0]) if _is_module(model, block.paths[0]) else None
        attends = layer is not None and any("att" in name.lower() for name, _ in layer.named_modules())
        if not attends or (layers and type(layer) is not type(layers[0])):
            break
        layers.insert(0, layer)
    norms = [[m.weight.detach() for m in layer.modules() if is_norm(m)
              and isinstance(getattr(m, "weight", None), Tensor)] for layer in layers]
    widest = [max(found, key=len) for found in norms if found]
    crosses = getattr(getattr(model.trunk, "config", None), "is_encoder_decoder", False)
    if crosses or not widest or len(widest) < len(layers) or len({w.shape for w in widest}) > 1:
        raise Incompatible(
            "LadderSideTuning puts layers beside those of one transformer, which pass (B, tokens, "
            f"D) on, and {type(model.trunk).__name__} is not such a network",
            "take SSF or BottleneckAdapter for it")
    return layers, widest[0]


class Ladder:
    """The way of the side network's state from layer to layer, within a pass.

    Attributes:
        bottom: the first layer's rung.
    """

    def __init__(self) -> None:
        self.bottom: Rung | None = None
        self.trunk: Any = None
        self.mask: Tensor | None = None
        self.side: Tensor | None = None

    def begin(self, trunk: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Forget the last pass."""
        self.trunk, self.mask, self.side = trunk, named.get("attention_mask"), None

    def climb(self, layer: Any, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        """Take a step after a layer; the last one's output is replaced."""
        rung: Rung = layer.rung
        hidden = output[0] if isinstance(output, tuple) else output
        if self.side is None:
            assert self.bottom is not None and self.bottom.enter is not None
            self.side = self.bottom.enter(self.bottom.read(args[0] if args else named["hidden_states"]))
        self.side = rung(self.side, hidden, self._real(hidden.shape[1]))
        if rung.leave is None:
            return output
        given, self.side = rung.top(self.side, hidden), None
        return (given, *output[1:]) if isinstance(output, tuple) else given

    def _real(self, tokens: int) -> Tensor | None:
        """1 for tokens that are not padding, (B, T); None where all are real."""
        if self.mask is None or self.mask.shape[1] == tokens:
            return self.mask
        return self.trunk._get_feature_vector_attention_mask(tokens, self.mask)  # of samples


class Rung(nn.Module):
    """A layer of the side network: a pre-norm transformer layer behind a gate.

    Args:
        wide: of the backbone, D.
        width: of the side network, d.
        heads: of the backbone's attention; as many as divide d are taken.
        causal: whether a token sees those before it alone.
        first: whether it begins the side network.
        last: whether it ends it.
        merge: see `merge_last`.
    """

    def __init__(self, wide: int, width: int, heads: int, causal: bool, first: bool, last: bool,
                 merge: bool) -> None:
        super().__init__()
        self.heads, self.causal = math.gcd(width, heads), causal
        self.enter = nn.Linear(wide, width) if first else None
        self.down = nn.Linear(wide, width)
        self.gate = nn.Parameter(torch.zeros(1))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attend, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, wide)) if last else None
        self.top_gate = nn.Parameter(torch.zeros(1)) if last and merge else None

    def read(self, hidden: Tensor) -> Tensor:
        """The backbone's output in the side network's precision."""
        return hidden.to(self.down.weight.dtype)

    def forward(self, side: Tensor, hidden: Tensor, real: Tensor | None) -> Tensor:
        """The side network's next state (B, T, d).

        Args:
            side: its state, (B, T, d).
            hidden: what the backbone's layer gives, (B, T, D).
            real: 1 for tokens, 0 for padding (B, T); None for tokens alone.
        """
        x = _mixed(self.gate, side, self.down(self.read(hidden)))
        batch, tokens, width = x.shape
        shape = (batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = self.attend(self.norms[0](x)).view(shape).permute(2, 0, 3, 1, 4)
        seen = None
        if real is not None:
            itself = torch.eye(tokens, dtype=torch.bool, device=x.device)  # padding sees something
            seen = real[:, None, None, :].bool()
            seen = (seen.expand(-1, 1, tokens, -1).tril() if self.causal else seen) | itself
        attended = scaled_dot_product_attention(query, key, value, seen,
                                                is_causal=self.causal and seen is None)
        x = x + self.project(attended.transpose(1, 2).reshape(x.shape))
        return x + self.narrow(gelu(self.widen(self.norms[1](x))))

    def top(self, side: Tensor, hidden: Tensor) -> Tensor:
        """The network's output in place of the backbone's, (B, T, D)."""
        assert self.leave is not None
        given = self.leave(side)
        if self.top_gate is not None:
            given = _mixed(self.top_gate, given, self.read(hidden))
        return given.to(hidden.dtype)


def _mixed(gate: Tensor, side: Tensor, backbone: Tensor) -> Tensor:
    share = torch.sigmoid(gate / TEMPERATURE)
    return share * side + (1 - share) * backbone


def _is_module(model: nn.Module, path: str) -> bool:
    return path in dict(model.named_modules())


def _heads(layer: nn.Module) -> int:
    found = (getattr(m, name, None) for m in layer.modules()
             for name in ("num_heads", "num_attention_heads", "n_heads"))
    return next((heads for heads in found if isinstance(heads, int)), 1)


def _causal(layer: nn.Module) -> bool:
    return any(getattr(m, "is_causal", False) is True for m in layer.modules())
