"""New tokens: how their embeddings start, that they alone of the embedding train, and stay."""

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from families import LONGEST, tokenizer
from torch import nn

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.new_tokens import add_embeddings, fold
from ftlab.errors import Incompatible
from ftlab.studies.discover import members
from ftlab.tasks.classification import Classification
from ftlab.tasks.language_modelling import LanguageModelling
from ftlab.tasks.sequence_to_sequence import SequenceToSequence
from ftlab.techniques.base import Technique
from ftlab.techniques.wrapper import TO_THE_END
from ftlab.training import checkpoint
from ftlab.training.guards import TensorGuard

NEW = ["<x>", "<y>", "<z>"]  # 18 and 19 have spare rows, 20 has none
OLD = 18
TECHNIQUES = {name: cls for name, cls in members(Technique).items() if cls.trains}
TIED = ("LoRA", "PromptTuning", "FullFineTuning")
_SIZES = {"vocab_size": 20, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
          "decoder_start_token_id": 0}
# tied, untied, three tables of one weight, and one that scales what it reads
WRITERS = {
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(
        vocab_size=20, n_embd=16, n_head=2, n_layer=2, n_positions=LONGEST, bos_token_id=2,
        eos_token_id=3)),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(
        vocab_size=20, pad_token_id=0, bos_token_id=2, eos_token_id=3, hidden_size=16,
        intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=LONGEST, tie_word_embeddings=False)),
    "t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(
        **_SIZES, d_model=16, d_kv=8, d_ff=24, num_heads=2, num_layers=2)),
    "bart": lambda: hf.BartForConditionalGeneration(hf.BartConfig(
        **_SIZES, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, scale_embedding=True,
        max_position_embeddings=LONGEST)),
}


@pytest.fixture
def writer(tmp_path: Path) -> Callable[[str], tuple[HuggingFace, Any]]:
    def make(family: str) -> tuple[HuggingFace, Any]:
        torch.manual_seed(0)
        network = WRITERS[family]()
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.3)
        network.save_pretrained(tmp_path / family)
        tokenizer(decoder=family in ("gpt2", "llama")).save_pretrained(tmp_path / family)
        task = SequenceToSequence() if family in ("t5", "bart") else LanguageModelling()
        return HuggingFace(str(tmp_path / family), dropout=0.0, new_tokens=NEW), task

    return make


def batch_of(backbone: HuggingFace, labels: list[list[int]]) -> dict[str, Any]:
    ids, _ = backbone.preprocessing.encode(["a <x> film", "the <y> plot <x> was <z>"], 16)
    return {"inputs": backbone.preprocessing.pad(ids), "index": torch.arange(2),
            "target": {"labels": torch.tensor(labels)}}


@pytest.fixture
def classes() -> Classification:
    task = Classification()
    task.fit(["a", "b"])
    return task


def test_start__is_the_mean_of_the_pieces_and_each_its_own() -> None:
    torch.manual_seed(0)
    network = WRITERS["llama"]()
    old = network.model.embed_tokens.weight.detach().clone()
    assert add_embeddings(network, {21: [5, 7], 22: [5, 7], 20: []}, "x") == [20, 21, 22]
    rows = network.model.embed_tokens.weight
    assert torch.equal(rows[:20], old)
    deviation = old.std(dim=0)
    for place, mean in ((20, old.mean(dim=0)), (21, old[[5, 7]].mean(dim=0)),
                        (22, old[[5, 7]].mean(dim=0))):
        noise = (rows[place] - mean) / deviation
        assert noise.abs().max() < 0.4 and 0.02 < noise.std() < 0.2
    assert not torch.allclose(rows[21], rows[22], atol=1e-3)


@pytest.mark.parametrize("family", WRITERS)
def test_rows__train_as_those_of_a_whole_embedding_whose_other_rows_are_held(
    family: str, writer: Callable[[str], tuple[HuggingFace, Any]]
) -> None:
    """Against plain PyTorch: the whole weight trains, its gradient zero but for the new rows."""
    backbone, task = writer(family)
    model = backbone.build(task).eval()
    plain = copy.deepcopy(model.network)
    batch = batch_of(backbone, [[20, 7, 3], [18, 3, -100]])
    technique = TECHNIQUES["LoRA"]().bind(model, task)
    technique.eval()
    trained = [p for n, p in model.named_parameters() if n.endswith("new_tokens")]
    assert sum(p.numel() for p in trained) == 3 * 16 * (2 if family == "llama" else 1)

    ends = {id(end.weight): end.weight
            for end in (plain.get_input_embeddings(), plain.get_output_embeddings())}
    new = torch.zeros(21, 1)
    new[OLD:] = 1
    plain.requires_grad_(False)
    for weight in ends.values():
        weight.requires_grad_(True).register_hook(lambda gradient: gradient * new)
    reference = copy.copy(model)  # the same arguments and the same reading, of the plain network
    reference._modules = {**model._modules, "network": plain}
    for step, optimizer in ((model, torch.optim.SGD(trained, lr=0.5)),
                            (reference, torch.optim.SGD(ends.values(), lr=0.5))):
        for _ in range(3):
            optimizer.zero_grad()
            task.loss(step(batch), batch).backward()
            optimizer.step()
    with torch.no_grad():
        torch.testing.assert_close(model(batch), reference(batch), rtol=1e-4, atol=1e-4)
        outputs = model(batch)
        technique.merge(model)
        fold(model.trunk)
        torch.testing.assert_close(model(batch), outputs, rtol=1e-4, atol=1e-4)
    tables = (model.trunk.get_input_embeddings(), model.trunk.get_output_embeddings())
    for table, other in zip(tables, (plain.get_input_embeddings(), plain.get_output_embeddings()),
                            strict=True):
        torch.testing.assert_close(table.weight, other.weight, rtol=1e-4, atol=1e-4)
    assert not any("new_token" in name for name in model.state_dict())


ONE_FIT = [name for name, cls in TECHNIQUES.items()
           if TO_THE_END not in getattr(cls, "does", ())]  # others do not end after an epoch or two


@pytest.mark.parametrize(("name", "family"), [*((name, "bert") for name in ONE_FIT),
                                              *((name, "gpt2") for name in TIED)])
def test_every_technique__trains_the_new_rows_and_leaves_the_others(
    name: str, family: str, backbone: Callable[..., HuggingFace], classes: Classification,
    tmp_path: Path
) -> None:
    base = backbone(family, dropout=0.0, head_dropout=0.0, pooling="mean", new_tokens=NEW)
    wraps = "technique" in inspect.signature(TECHNIQUES[name]).parameters
    kwargs = {"technique": TECHNIQUES["LoRA"]()} if wraps else {}
    ids = torch.arange(21)

    def attached() -> Technique:
        torch.manual_seed(0)
        return TECHNIQUES[name](**kwargs).bind(base.build(classes), classes)

    try:
        technique = attached()
    except Incompatible:  # which test_contract holds it to
        return
    model = technique.model
    meta = TECHNIQUES[name](**kwargs).bind(base.build(classes, meta=True), classes).model
    assert ({n: (p.shape, p.requires_grad) for n, p in meta.named_parameters()}
            == {n: (p.shape, p.requires_grad) for n, p in model.named_parameters()})
    start = model.trunk.get_input_embeddings()(ids).detach().clone()
    whole = model.trunk.get_input_embeddings().weight.requires_grad
    guard = TensorGuard(model)
    optimizer = torch.optim.AdamW(technique.param_groups(model))
    batch = batch_of(base, [[0], [1]]) | {"target": torch.tensor([0, 1])}
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    for epoch in range(2):
        technique.trainer = type("T", (), {"max_epochs": 2, "current_epoch": epoch})()
        technique.on_train_epoch_start()
        optimizer.zero_grad()
        classes.loss(model(batch), batch).backward()
        optimizer.step()
    table = model.trunk.get_input_embeddings()
    moved = (table(ids) - start).abs().amax(dim=1) > 0
    assert moved[OLD:].all()
    assert whole or not moved[:OLD].any()
    # in the checkpoint
    names = guard.moved(model) & trained
    checkpoint.save(tmp_path, checkpoint.tensors(model, names), {})
    again = attached().model
    checkpoint.load(tmp_path, again)
    assert torch.equal(again.trunk.get_input_embeddings()(ids), table(ids))
