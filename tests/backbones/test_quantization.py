"""Bases in 4 and 8 bits: held to closed forms, to bitsandbytes' own numbers, and to themselves in floating point."""

import copy
import sys
from collections.abc import Callable

import pytest
import torch
import transformers as hf
from torch import nn

pytest.importorskip("bitsandbytes", reason="quantised bases are bitsandbytes'")

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.quantization import (
    Quantization,
    dequantize,
    logical_size,
    quantized_layers,
    scales,
    weight_bytes,
)
from ftlab.backbones.quantized.layers import Embedding8bit, Linear4bit, Linear8bitLt
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import Incompatible, InputError
from ftlab.training import fake_tensors

# Dettmers et al. (2023), appendix E, to the last digit of float32
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
       -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
       0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
       0.7229568362236023, 1.0]
KINDS = [Quantization("nf4"), Quantization("fp4"), Quantization("nf4", double_quant=True), Quantization("int8")]


def layer(quantization: Quantization, plain: nn.Linear) -> Linear4bit | Linear8bitLt:
    if quantization.quant_type == "int8":
        return Linear8bitLt(plain)
    return Linear4bit(plain, quantization.quant_type, quantization.double_quant)


def plain_layer(inputs: int = 576, outputs: int = 96, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias)


def test_nf4__is_the_nearest_of_the_paper_s_sixteen_numbers() -> None:
    plain = plain_layer(384, 384, bias=False)
    plain.weight.data = torch.randn(384, 384, generator=torch.Generator().manual_seed(0))
    blocks = plain.weight.detach().view(-1, 64)
    scales = blocks.abs().amax(dim=1, keepdim=True)
    code = torch.tensor(NF4)
    expected = code[((blocks / scales).unsqueeze(-1) - code).abs().argmin(dim=-1)] * scales
    given = layer(Quantization("nf4"), plain).dequantized()
    torch.testing.assert_close(given, expected.view(384, 384), rtol=1e-6, atol=1e-7)
    error = (given - plain.weight.detach()).norm() / plain.weight.detach().norm()
    assert float(error) == pytest.approx(0.091997, abs=1e-5)


def test_int8__rounds_each_output_s_weights_to_255_steps() -> None:
    plain = plain_layer()
    weights = plain.weight.detach().half().float()  # as bitsandbytes reads them
    scale = weights.abs().amax(dim=1, keepdim=True) / 127
    given = layer(Quantization("int8"), plain).dequantized()
    torch.testing.assert_close(given, (weights / scale).round() * scale, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_layer__is_the_linear_layer_of_its_weights__in_training_and_evaluation(
    kind: Quantization, dtype: torch.dtype
) -> None:
    made = layer(kind, plain_layer().to(dtype))
    frozen = made.dequantized()
    assert frozen.dtype == dtype
    x = torch.randn(2, 5, 576).to(dtype).requires_grad_()
    expected = nn.functional.linear(x, frozen, made.bias)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 3e-2, "atol": 3e-2}
    given = made.train()(x)
    torch.testing.assert_close(given, expected, **close)
    (ours,) = torch.autograd.grad(given.sum(), x)
    (theirs,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(ours, theirs, **close)
    with torch.no_grad():
        assert torch.equal(made.eval()(x), given)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_layer__keeps_its_bias_under_autocast__and_its_scales_when_it_moves(kind: Quantization) -> None:
    made, x = layer(kind, plain_layer()), torch.randn(3, 576)
    before = made(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert made(x).dtype == torch.bfloat16
    assert made.bias.dtype == torch.float32 and torch.equal(made(x), before)
    moved = copy.deepcopy(nn.Sequential(made)).to("cpu").to(torch.bfloat16)
    assert moved[0].weight.dtype == made.weight.dtype and moved[0].bias.dtype == torch.bfloat16
    torch.testing.assert_close(moved(x.bfloat16()).float(), before, rtol=3e-2, atol=3e-2)
    torch.testing.assert_close(moved[0].dequantized(), made.dequantized())


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_bytes__are_those_of_the_tensors__also_as_foretold(kind: Quantization) -> None:
    plain = plain_layer(576, 1536, bias=False)
    made, empty = layer(kind, plain), layer(kind, copy.deepcopy(plain).to("meta"))
    tensors = [made.weight, *([made.weight.SCB] if kind.quant_type == "int8" else [made.weight.absmax])]
    if kind.double_quant:
        tensors.append(made.weight.nested_absmax)
    stored = sum(t.numel() * t.element_size() for t in tensors)
    assert weight_bytes(nn.Sequential(made)) == weight_bytes(nn.Sequential(empty)) == stored
    assert logical_size(made.weight) == plain.weight.numel()
    share = stored / (2 * plain.weight.numel())  # of bfloat16's
    expected = {"int8": 0.5035, "nf4": 0.2579 if kind.double_quant else 0.28125, "fp4": 0.28125}
    assert share == pytest.approx(expected[kind.quant_type], abs=2e-3)


@pytest.mark.parametrize("family", ["bert", "distilbert", "deberta", "bart", "t5", "vit", "swin", "convnext"])
def test_network__quantises_the_blocks_linear_layers_alone(
    family: str, backbone: Callable[..., HuggingFace], batch_of: Callable[..., dict], task: object
) -> None:
    torch.manual_seed(0)
    model = backbone(family, quantize=Quantization("nf4"), dropout=0.0).build(task).eval()
    layers = quantized_layers(model)
    left = {name for name, m in model.named_modules() if type(m) is nn.Linear}
    kept = ".wo" if family == "t5" else "?"  # it casts its input to its weight's dtype
    assert layers and all(model.head.holds(name) or name.endswith(kept) for name in left)
    torch.manual_seed(0)
    plain = backbone(family, dropout=0.0).build(task)
    meta = backbone(family, quantize=Quantization("nf4")).build(task, meta=True)
    assert sum(map(logical_size, model.parameters())) == sum(p.numel() for p in plain.parameters())
    assert sum(p.numel() for p in meta.parameters()) == sum(p.numel() for p in plain.parameters())
    batch = batch_of(family)
    with torch.no_grad():
        given = model(batch)
        dequantize(model)
        assert not quantized_layers(model)
        torch.testing.assert_close(model(batch), given, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "resnet"])
@pytest.mark.parametrize("meta", [True, False])
def test_network_with_nothing_to_quantise__is_refused(
    family: str, meta: bool, backbone: Callable[..., HuggingFace], task: object
) -> None:
    with pytest.raises(Incompatible, match=r"which the blocks of \w+ do not have"):
        backbone(family, quantize=Quantization("int8")).build(task, meta=meta)


def test_network_with_little_to_quantise__is_refused__naming_what_would_stay() -> None:
    network = nn.Sequential(nn.Conv1d(4, 8, 3), nn.Flatten(), nn.Linear(8, 8), nn.Linear(8, 2))
    model = TaskModel(network, [("stem", ["0"]), ("body", ["2"])], head=["3"])
    with pytest.raises(Incompatible, match=r"the smaller part of Sequential: network.0.weight would stay"):
        Quantization("int8").apply(model, "it")


def test_without_bitsandbytes__says_which_extra(
    backbone: Callable[..., HuggingFace], task: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ftlab.backbones.quantized.layers", None)
    with pytest.raises(InputError, match="bitsandbytes, which is not installed") as caught:
        backbone("bert", quantize=Quantization("nf4")).build(task, meta=True)
    assert "ftlab[quantized]" in caught.value.mend


def test_settings__refuse_what_there_is_not() -> None:
    with pytest.raises(ValueError, match="nf4, fp4 or int8"):
        Quantization("int4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="double_quant is of nf4 and fp4"):
        Quantization("int8", double_quant=True)


EIGHT = Quantization("nf4", embeddings="int8")


def rounded(table: torch.Tensor) -> torch.Tensor:
    """Each row in 255 steps up to its largest number, of what half precision has of it."""
    weights = table.detach().half().float()
    scale = weights.abs().amax(dim=1, keepdim=True) / 127
    return (weights / scale).round().nan_to_num() * scale


def llama(tied: bool, device: str = "cpu") -> TaskModel:
    torch.manual_seed(0)
    with torch.device(device):
        network = hf.LlamaForCausalLM(hf.LlamaConfig(
            hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            vocab_size=50, tie_word_embeddings=tied))
    return TaskModel(network, [("embeddings", ["model.embed_tokens"]), ("0", ["model.layers.0"]),
                               ("1", ["model.layers.1", "model.norm"])], head=["lm_head"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_embeddings__are_rounded_by_rows__with_the_output_layer_that_is_tied_to_them(
    tied: bool, dtype: torch.dtype
) -> None:
    model = llama(tied).to(dtype).eval()
    table, last = (copy.deepcopy(model.network.get_submodule(n).weight) for n in ("model.embed_tokens", "lm_head"))
    EIGHT.apply(model, "it")
    network = model.network
    assert isinstance(network.model.embed_tokens, Embedding8bit)
    assert (network.lm_head.weight is network.model.embed_tokens.weight) is tied
    assert (network.get_output_embeddings().weight.dtype == torch.int8) is tied
    ids = torch.arange(50).view(2, 25)
    torch.testing.assert_close(network.model.embed_tokens(ids), rounded(table)[ids].to(dtype),
                               rtol=1e-5 if dtype == torch.float32 else 3e-2, atol=1e-6)
    given = network(ids).logits
    bytes_ = weight_bytes(model)
    moved = copy.deepcopy(model)
    dequantize(model)
    assert not quantized_layers(model)
    assert (model.network.lm_head.weight is model.network.model.embed_tokens.weight) is tied
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 3e-2, "atol": 3e-2}
    torch.testing.assert_close(model.network(ids).logits, given, **close)
    if not tied:
        assert torch.equal(model.network.lm_head.weight, last)
    assert moved.network.lm_head.weight is moved.network.model.embed_tokens.weight or not tied
    half = moved.to(torch.bfloat16).network
    assert half(ids).logits.dtype == half.model.embed_tokens(ids).dtype == torch.bfloat16
    empty = llama(tied, "meta").to(dtype)
    EIGHT.apply(empty, "it")
    assert weight_bytes(empty) == bytes_
    plain, without = llama(tied).to(dtype), llama(tied).to(dtype)
    Quantization("nf4").apply(without, "it")
    assert weight_bytes(without) - bytes_ == 50 * 64 * (dtype.itemsize - 1) - 50 * 4
    assert sum(map(logical_size, empty.parameters())) == sum(p.numel() for p in plain.parameters())


def test_embeddings__are_refused_where_they_do_more_than_read__or_are_none(
    backbone: Callable[..., HuggingFace], task: object
) -> None:
    class Scaled(nn.Embedding):
        pass

    odd = llama(True)
    odd.network.model.embed_tokens.__class__ = Scaled
    with pytest.raises(Incompatible, match=r"embed_tokens \(Scaled\) does more than read"):
        EIGHT.apply(odd, "it")
    new = llama(True)
    new.new_ids = [49]
    with pytest.raises(Incompatible, match="does not go with new_tokens"):
        EIGHT.apply(new, "it")
    with pytest.raises(Incompatible, match="needs a network that reads tokens"):
        backbone("vit", quantize=EIGHT).build(task, meta=True)
    with pytest.raises(ValueError, match="embeddings must be int8 or null"):
        Quantization("nf4", embeddings="nf4")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [*KINDS, EIGHT], ids=str)
def test_hollow_layers__take_what_full_ones_do__and_give_gradients_of_their_shapes(kind: Quantization) -> None:
    full, empty = llama(True), llama(True, "meta")
    kind.apply(full, "it")
    kind.apply(empty, "it")
    made = fake_tensors.mode()
    fake_tensors.empty(empty, made)
    stored = [p.nbytes for p in (*empty.parameters(), *scales(empty))]
    assert sum(stored) == weight_bytes(full)
    with made:
        x = torch.randn(2, 5, 64, requires_grad=True)
        (layer, *_) = [m for m in quantized_layers(empty).values() if not isinstance(m, nn.Embedding)]
        layer(x).sum().backward()
        assert x.grad is not None and x.grad.shape == x.shape
        assert empty.network(torch.zeros(2, 5, dtype=torch.int64)).logits.shape == (2, 5, 50)
