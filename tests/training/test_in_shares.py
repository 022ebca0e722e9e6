"""Weights that are read in shares: they are what a whole load gives, and no rank ever holds them all."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from forks import on_two_ranks
from torch import nn
from torch.distributed.fsdp import fully_shard

from ftlab.backbones.load_pretrained import empty_network
from ftlab.backbones.source import WholeOnly
from ftlab.backbones.unread_weights import UnreadWeights
from ftlab.errors import InputError
from ftlab.training.fsdp import full

LLAMA = {"vocab_size": 101, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
         "num_attention_heads": 3, "num_key_value_heads": 1}


class Held(threading.Thread):
    """Watches the memory that this process has beside mapped files, whose pages the system may drop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.begin = self.peak = self.now()
        self.over = threading.Event()

    def now(self) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

    def run(self) -> None:
        while not self.over.wait(0.001):
            self.peak = max(self.peak, self.now())


def unread(folder: Path, auto: Any, dtype: torch.dtype) -> tuple[Any, UnreadWeights]:
    network = empty_network(auto, hf.AutoConfig.from_pretrained(folder), dtype)
    return network, UnreadWeights(network, sorted(folder.glob("*.safetensors")), "network")


def shared_out(network: nn.Module, mesh: Any) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.ModuleList):
            for block in module:
                fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return network


@pytest.mark.parametrize(("config", "kind", "dtype"), [
    (hf.LlamaConfig(**LLAMA, tie_word_embeddings=True), hf.AutoModelForCausalLM, torch.float32),
    (hf.LlamaConfig(**LLAMA, tie_word_embeddings=False), hf.AutoModelForCausalLM, torch.bfloat16),
    (hf.BertConfig(vocab_size=53, hidden_size=12, intermediate_size=17, num_hidden_layers=2,
                   num_attention_heads=3, max_position_embeddings=20), hf.AutoModel, torch.float32),
])
def test_shares__are_those_of_a_whole_load(
    tmp_path: Path, config: Any, kind: Any, dtype: torch.dtype
) -> None:
    """Also in several files, of sizes that do not divide, tied, cast, and with buffers that no file has."""
    kind.from_config(config).save_pretrained(tmp_path, max_shard_size="8KB")
    bare = {"add_pooling_layer": False} if kind is hf.AutoModel else {}
    whole = kind.from_pretrained(tmp_path, dtype=dtype, **bare)
    expected = {**dict(whole.named_parameters()), **dict(whole.named_buffers())}
    assert len(list(tmp_path.glob("*.safetensors"))) > 1

    def differ(mesh: Any) -> list[str]:
        network, weights = unread(tmp_path, kind, dtype)
        weights.read(shared_out(network, mesh), torch.device("cpu"))
        there = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        assert there.keys() == expected.keys()
        gathered = {name: full(tensor.detach()) for name, tensor in there.items()}
        return [name for name, tensor in expected.items()
                if gathered[name].dtype != tensor.dtype or not torch.equal(gathered[name], tensor)]

    assert on_two_ranks(tmp_path, differ) == [[], []]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory by kind is Linux's")
def test_no_rank__ever_holds_all_weights(tmp_path: Path) -> None:
    hf.LlamaForCausalLM(hf.LlamaConfig(
        vocab_size=8000, hidden_size=512, intermediate_size=2048, num_hidden_layers=12,
        num_attention_heads=8)).save_pretrained(tmp_path, max_shard_size="60MB")
    size = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors")) // 2
    largest = 8000 * 512 * 2

    def held(mesh: Any) -> int:
        # in another dtype than the files', or they would stay mapped, and nothing be held at all
        network, weights = unread(tmp_path, hf.AutoModelForCausalLM, torch.bfloat16)
        shared_out(network, mesh)
        watch = Held()
        watch.start()
        weights.read(network, torch.device("cpu"))
        watch.over.set()
        watch.join()
        return watch.peak - watch.begin

    for peak in on_two_ranks(tmp_path, held):
        print(f"{peak / size:.3f} of {size / 2**20:.0f} MiB")
        assert 0.45 * size < peak < 0.5 * size + largest


def test_lacking_and_other_files__are_refused(tmp_path: Path) -> None:
    network = hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA, tie_word_embeddings=False))
    network.save_pretrained(tmp_path, state_dict={
        name: tensor for name, tensor in network.state_dict().items() if "layers.1" not in name})
    network, weights = unread(tmp_path, hf.AutoModelForCausalLM, torch.float32)
    with pytest.raises(InputError, match=r"the weights lack.*model.layers.1"):
        weights.read(network, torch.device("cpu"))
    with pytest.raises(WholeOnly, match="not safetensors"):
        UnreadWeights(network, [tmp_path / "pytorch_model.bin"], "network")
