from collections import OrderedDict

import pytest
import torch
from torch import nn

from ftlab.backbones.find_blocks import find_blocks, with_dropout


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.scale = nn.Parameter(torch.ones(2))


class ToyStage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.downsample = nn.Linear(2, 2)


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer()])
        self.norm = nn.LayerNorm(2)
        self.relative_bias = nn.Embedding(3, 2)
        self.dropout = nn.Dropout()


def named(**modules: nn.Module) -> nn.Module:
    network = nn.Module()
    for name, module in modules.items():
        network.add_module(name, module)
    return network


def test_find_blocks__enters_stages_and_joins_what_is_between():
    network = named(embed=nn.Embedding(3, 2), stages=nn.ModuleList([ToyStage(), ToyStage()]),
                    norm=nn.LayerNorm(2), head=nn.Linear(2, 2))
    assert find_blocks(network, ["head"]) == [
        ("embeddings", ["embed"]),
        ("stages.0.layers.0", ["stages.0.layers.0"]),
        ("stages.0.layers.1", ["stages.0.layers.1", "stages.0.downsample"]),
        ("stages.1.layers.0", ["stages.1.layers.0"]),
        ("stages.1.layers.1", ["stages.1.layers.1", "stages.1.downsample", "norm"])]


def test_find_blocks__towers_of_one_class_are_entered():
    """And tables, loose parameters and dropouts go to the first block wherever they stand."""
    network = named(token=nn.Linear(2, 2), one=Tower(), two=Tower(), last=nn.LayerNorm(2))
    network.register_parameter("position", nn.Parameter(torch.ones(2)))
    blocks = dict(find_blocks(network, []))
    assert list(blocks)[1:] == ["one.layers.0", "two.layers.0"]
    first, *rest = blocks.values()
    assert set(first) == {"token", "position", "one.relative_bias", "two.relative_bias",
                          "one.dropout", "two.dropout"}
    assert rest == [["one.layers.0", "one.norm"], ["two.layers.0", "two.norm", "last"]]


def test_find_blocks__siblings_of_one_class_are_blocks():
    network = named(stem=nn.Linear(2, 2), a=Layer(), b=Layer(), head=nn.Linear(2, 2))
    assert [name for name, _ in find_blocks(network, ["head"])] == ["stem", "a", "b"]


def test_find_blocks__without_repetition_every_layer_is_one():
    network = nn.Sequential(OrderedDict(
        conv=nn.Conv2d(1, 2, 1), norm=nn.BatchNorm2d(2), act=nn.ReLU(), hidden=nn.Linear(2, 2),
        drop=nn.Dropout(), mid=nn.Linear(2, 2), off=nn.Dropout(), head=nn.Linear(2, 2)))
    head = with_dropout(network, ["head"])
    assert head == ["off", "head"]
    assert find_blocks(network, head) == [
        ("conv", ["conv", "norm"]), ("hidden", ["hidden", "drop"]), ("mid", ["mid"])]


def test_find_blocks__tied_parameters_count_once():
    network = named(embed=nn.Embedding(3, 2), layers=nn.ModuleList([Layer(), Layer()]),
                    out=nn.Linear(2, 3, bias=False))
    network.out.weight = network.embed.weight
    names = [name for name, _ in network.named_parameters()]
    blocks = find_blocks(network, [])
    held = [name for name in names for _, paths in blocks
            if any(name == p or name.startswith(p + ".") for p in paths)]
    assert sorted(held) == sorted(names)


def test_find_blocks__a_parameter_in_no_block_is_an_error(monkeypatch):
    network = named(a=nn.Linear(2, 2), layers=nn.ModuleList([Layer()]))
    monkeypatch.setattr("ftlab.backbones.find_blocks._matters",
                        lambda module: module is not network.a)
    with pytest.raises(ValueError, match=r"a\.weight is in no block"):
        find_blocks(network, [])
