"""A text's outputs are its own: alone, or beside any other in a batch."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from families import LONGEST, TEXT, tokenizer

from ftlab.backbones.huggingface import HuggingFace
from ftlab.errors import Incompatible
from ftlab.studies.discover import members
from ftlab.tasks.language_modelling import LanguageModelling
from ftlab.tasks.sequence_to_sequence import SequenceToSequence
from ftlab.techniques.base import Technique

SHORT, LONG = "good film", "the plot of a film was very bad and the film was not good"
_SIZES = {"vocab_size": 20, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
          "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
# positions learned, from the mask, relative, rotary; and a head that reads the last place
MORE = {
    "opt": lambda: hf.OPTForCausalLM(hf.OPTConfig(
        **_SIZES, ffn_dim=24, word_embed_proj_dim=16, max_position_embeddings=LONGEST)),
    "gpt_neo": lambda: hf.GPTNeoForCausalLM(hf.GPTNeoConfig(
        vocab_size=20, bos_token_id=2, eos_token_id=3, hidden_size=16, num_heads=2, num_layers=2,
        intermediate_size=24, attention_types=[[["global", "local"], 1]],
        max_position_embeddings=LONGEST)),
    "mpt": lambda: hf.MptForCausalLM(hf.MptConfig(
        vocab_size=20, d_model=16, n_heads=2, n_layers=2, max_seq_len=LONGEST)),
    "bloom": lambda: hf.BloomForCausalLM(hf.BloomConfig(
        vocab_size=20, pad_token_id=0, hidden_size=16, n_head=2, n_layer=2)),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(
        **_SIZES, intermediate_size=24, max_position_embeddings=LONGEST)),
    "xlnet": lambda: hf.XLNetLMHeadModel(hf.XLNetConfig(
        vocab_size=20, pad_token_id=0, d_model=16, n_layer=2, n_head=2, d_inner=24)),
}
FAMILIES = [*(name for name in TEXT if name != "bert_mlm"), *MORE]
TECHNIQUES = members(Technique)


class _Task:
    auto_classes = ("AutoModelForSequenceClassification",)
    outputs = 3

    def __init__(self, output_type: str) -> None:
        self.output_type = output_type
        if output_type == "tokens":
            self.auto_classes = ("AutoModelForTokenClassification",)


@pytest.fixture
def padded_on(save: Callable[[str], Path], tmp_path: Path) -> Callable[..., HuggingFace]:
    """A family's tiny network, whose tokenizer's folder names the side of padding."""
    def make(family: str, side: str, **settings: Any) -> HuggingFace:
        folder = tmp_path / family
        if family in MORE:
            torch.manual_seed(0)
            network = MORE[family]()
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.5)
            network.save_pretrained(folder)
            tokenizer(decoder=family != "xlnet").save_pretrained(folder)
        else:
            shutil.copytree(save(family), folder)
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"padding_side": side}))
        return HuggingFace(str(folder), **settings)

    return make


def read(backbone: HuggingFace, *texts: str) -> dict[str, Any]:
    ids, _ = backbone.preprocessing.encode(texts, 16)
    return {"inputs": backbone.preprocessing.pad(ids)}


def first_alone_and_beside(model: Any, backbone: HuggingFace) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        alone, batch = model(read(backbone, SHORT)), read(backbone, SHORT, LONG)
        beside = model(batch)
    if alone.ndim == 3:  # a vector a token
        return alone[0], beside[0][batch["inputs"]["attention_mask"][0].bool()]
    return alone[0], beside[0]


@pytest.mark.parametrize(("family", "side"), [*((family, "left") for family in FAMILIES),
                                              ("gpt2", "right"), ("xlnet", "right")])
def test_own_head__is_what_transformers_gives_for_the_text_alone(
    family: str, side: str, padded_on: Callable[..., HuggingFace]
) -> None:
    backbone = padded_on(family, side, pooling="own")
    model = backbone.build(_Task("vector")).eval()
    alone, beside = first_alone_and_beside(model, backbone)
    ids = torch.tensor(backbone.preprocessing.encode([SHORT], 16)[0])
    if model.pooled_head is None:
        with torch.no_grad():
            torch.testing.assert_close(beside, model.network(ids).logits[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(beside, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_forms__a_text_is_read_as_if_alone(
    family: str, padded_on: Callable[..., HuggingFace]
) -> None:
    backbone = padded_on(family, "left")
    built = {f"pooled {mode}": (HuggingFace(backbone.source, pooling=mode), "vector")
             for mode in ("mean", "first", "last", "max")}
    built |= {output_type: (backbone, output_type) for output_type in ("tokens", "embedding")}
    for what, (network, output_type) in built.items():
        try:
            model = network.build(_Task(output_type)).eval()
        except Incompatible:
            assert family == "bart" or (family, output_type) == ("t5", "tokens"), what
            continue
        alone, beside = first_alone_and_beside(model, network)
        torch.testing.assert_close(beside, alone, rtol=0, atol=1e-5, msg=lambda m, w=what: w + m)
        if output_type == "embedding":
            together = model.embed_texts([SHORT, LONG])
            torch.testing.assert_close(together[:1], model.embed_texts([SHORT]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["PromptTuning", "PrefixTuning"])
@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "opt", "llama"])
@pytest.mark.parametrize("output_type", ["vector", "tokens"])
def test_virtual_tokens__a_text_is_read_as_if_alone(
    output_type: str, family: str, name: str, padded_on: Callable[..., HuggingFace]
) -> None:
    backbone = padded_on(family, "left", pooling="last")
    model = backbone.build(_Task(output_type)).eval()
    TECHNIQUES[name](tokens=3).adapt(model)
    alone, beside = first_alone_and_beside(model.eval(), backbone)
    torch.testing.assert_close(beside, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [None, "PromptTuning", "PrefixTuning"])
@pytest.mark.parametrize("family", ["gpt2", "opt", "gpt_neo", "bloom", "mpt", "llama", "xlnet",
                                    "t5", "bart"])
def test_text__likelihoods_and_answers_are_those_of_the_prompt_alone(
    family: str, name: str | None, padded_on: Callable[..., HuggingFace]
) -> None:
    backbone = padded_on(family, "left")
    task = SequenceToSequence() if family in ("t5", "bart") else LanguageModelling()
    model = backbone.build(task).eval()
    if name is not None:
        try:
            TECHNIQUES[name](tokens=3).adapt(model)
        except Incompatible:
            assert family in ("xlnet", "mpt", "bart")
            return
    labels = torch.tensor([[7, 8, 9], [9, -100, -100]])
    beside = read(backbone, SHORT, LONG) | {"target": {"labels": labels}}
    alone = read(backbone, SHORT) | {"target": {"labels": labels[:1]}}
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(beside)[0], model(alone)[0], rtol=0, atol=1e-5)
    assert model.generate(beside, 4)[0] == model.generate(alone, 4)[0]
