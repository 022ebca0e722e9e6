"""Merging is tried before training; afterwards rounding is told from a fault."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from peft.tuners.lora import Linear

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.task_model import TaskModel
from ftlab.errors import GuardFailed
from ftlab.tasks.classification import Classification
from ftlab.techniques.bottleneck_adapter import BottleneckAdapter
from ftlab.techniques.ia3 import IA3
from ftlab.techniques.lora import LoRA
from ftlab.training.guards import check_merge
from ftlab.training.merge_guard import check_layers

BATCH = {"inputs": {"input_ids": torch.arange(2, 26).reshape(2, 12) % 16,
                    "attention_mask": torch.ones(2, 12, dtype=torch.long)}}


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TaskModel]:
    """A random llama of 30 layers, whose logits go to 25 as a trained one's do."""
    folder = tmp_path_factory.mktemp("llama")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf.LlamaModel(hf.LlamaConfig(
            vocab_size=16, hidden_size=64, intermediate_size=96, num_hidden_layers=30, pad_token_id=0,
            num_attention_heads=4, num_key_value_heads=2, initializer_range=0.1)
        ).save_pretrained(folder)
    hf.PreTrainedTokenizerFast(tokenizer_object=_tokens(), pad_token="[PAD]").save_pretrained(folder)

    def make(dtype: str) -> TaskModel:
        task = classes()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = HuggingFace(str(folder), dtype=dtype).build(task).eval()
        for parameter in model.head.parameters():
            parameter.data.mul_(20)
        return model

    return make


def classes() -> Classification:
    task = Classification()
    task.fit(["a", "b"])
    return task


def _tokens() -> Any:
    from tokenizers import Tokenizer, models

    return Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))


@torch.no_grad()
def test_merged_in_bfloat16_through_30_layers_is_rounding(deep: Callable[[str], TaskModel]) -> None:
    model, technique = deep("bfloat16"), LoRA()
    technique.bind(model, classes()).eval()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.05)
    unmerged = model.comparable(model(BATCH))
    assert technique.merge(model)
    merged = model.comparable(model(BATCH))
    # 0.01 of the largest logit with torch 2.11, 0.02 with 2.14; float32 would round at 1e-6
    assert (unmerged[0] - merged[0]).abs().max() > 0.1
    check_merge(unmerged, merged, model)
    with pytest.raises(GuardFailed):
        check_merge(unmerged, [2 * merged[0]], model)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("technique", [LoRA(targets=["all"]), IA3(), LoRA(alpha=0.5)])
@torch.no_grad()
def test_layers_merge_exactly_in_any_precision(
        deep: Callable[[str], TaskModel], technique: Any, dtype: str) -> None:
    model = deep(dtype)
    technique.bind(model, classes()).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    check_layers(technique, model, BATCH)
    assert torch.equal(state, torch.get_rng_state())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.no_grad()
def test_a_layer_that_merges_wrongly_fails_before_training(
        deep: Callable[[str], TaskModel], monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """An update that is 15% too large, in the weights alone."""
    model, technique, right = deep(dtype), LoRA(), Linear.get_delta_weight
    technique.bind(model, classes()).eval()
    monkeypatch.setattr(Linear, "get_delta_weight", lambda *args: 1.15 * right(*args))
    with pytest.raises(GuardFailed, match=r"differ by .* before training"):
        check_layers(technique, model, BATCH)


@torch.no_grad()
def test_a_technique_that_does_not_merge_is_not_asked_to(deep: Callable[[str], TaskModel]) -> None:
    model, technique = deep("float32"), BottleneckAdapter()
    technique.bind(model, classes()).eval()
    check_layers(technique, model, BATCH)
