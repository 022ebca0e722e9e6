"""Encoders that fill masked places, against transformers' own forward."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from masked import ENCODERS, MASK, save_bert

from ftlab.backbones.heads.masked import spelled
from ftlab.backbones.huggingface import HuggingFace
from ftlab.errors import Incompatible
from ftlab.tasks.language_modelling import LanguageModelling
from ftlab.tasks.masked_language import MaskedLanguage

IDS = torch.tensor([[2, 5, MASK, 7, MASK, 3], [2, MASK, 9, 3, 0, 0]])
PLACES = torch.tensor([[2, 4], [1, -1]])
LABELS = torch.tensor([[6, 8], [4, -100]])
BATCH = {"inputs": {"input_ids": IDS, "attention_mask": (IDS > 0).long(), "places": PLACES},
         "target": {"labels": LABELS, "text": ["", ""]}, "index": torch.arange(2)}


@pytest.mark.parametrize("family", ENCODERS)
def test_masked__logits_and_loss_are_transformers_own(family: str, tmp_path: Path) -> None:
    folder, task = save_bert(tmp_path, family, head=True, std=0.5), MaskedLanguage()
    model = HuggingFace(str(folder)).build(task).eval()
    assert model.head_trained
    assert not model.has_random_head
    reference = hf.AutoModelForMaskedLM.from_pretrained(folder).eval()
    wanted = torch.full_like(IDS, -100)
    for row, place, label in ((0, 2, 6), (0, 4, 8), (1, 1, 4)):
        wanted[row, place] = label
    outputs = model(BATCH)
    theirs = reference(input_ids=IDS, attention_mask=BATCH["inputs"]["attention_mask"],
                       labels=wanted)
    assert outputs.shape == (2, 2, 20)
    for row, number, place in ((0, 0, 2), (0, 1, 4), (1, 0, 1)):
        torch.testing.assert_close(outputs[row, number], theirs.logits[row, place])
    torch.testing.assert_close(task.loss(outputs, BATCH), theirs.loss)
    task.loss(outputs, BATCH).backward()
    theirs.loss.backward()
    ours = dict(model.network.named_parameters(remove_duplicate=False))
    for name, other in reference.named_parameters(remove_duplicate=False):
        torch.testing.assert_close(ours[name].grad, other.grad, msg=name)
    best = theirs.logits.argmax(dim=-1)
    names = HuggingFace(str(folder)).preprocessing.tokenizer.convert_ids_to_tokens(
        [int(best[0, 2]), int(best[0, 4])])
    assert model.texts(BATCH, 2)[0].split(" ") == names
    assert len(model.texts(BATCH, 2)[1].split(" ")) == 1


@pytest.mark.parametrize("family", [name for name in ENCODERS if name != "xlm"])
def test_masked__a_new_head_is_tied_and_of_the_runs_seed(family: str, tmp_path: Path) -> None:
    backbone = HuggingFace(str(save_bert(tmp_path, family, std=0.5)))
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(backbone.build(MaskedLanguage()))
    first, again, other = (dict(model.head.named_parameters()) for model in made)
    assert first
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert made[0].has_random_head
    network: Any = made[0].trunk
    embedding, output = network.get_input_embeddings(), network.get_output_embeddings()
    shipped = hf.AutoModel.from_pretrained(tmp_path).get_input_embeddings()
    assert torch.equal(embedding.weight, shipped.weight), "its embeddings are the checkpoint's"
    assert output.weight is embedding.weight
    assert not any(p is embedding.weight for p in made[0].head.parameters())
    meta = backbone.build(MaskedLanguage(), meta=True)
    assert {name for name, _ in meta.head.named_parameters()} == first.keys()
    assert meta.has_random_head


def test_masked__whole_rows(tmp_path: Path) -> None:
    """Every token of the longest row is asked for."""
    model = HuggingFace(str(save_bert(tmp_path, head=True, std=0.5))).build(MaskedLanguage()).eval()
    whole = {"inputs": {**BATCH["inputs"], "places": torch.tensor([[0, 1, 2, 3, 4, 5], [1, 3, -1, -1, -1, -1]])}}
    with torch.no_grad():
        every = model(model.as_exported(whole))
        asked = model(whole)
    torch.testing.assert_close(asked[0], every[0])
    torch.testing.assert_close(asked[1, :2], every[1, [1, 3]])


def test_spelled__what_has_no_token(tmp_path: Path) -> None:
    """As many words as ids, also where the output layer is wider than the vocabulary."""
    words = HuggingFace(str(save_bert(tmp_path))).preprocessing.tokenizer
    assert spelled(words, [5, 19, 6]).split(" ") == [*words.convert_ids_to_tokens([5]), "[19]",
                                                    *words.convert_ids_to_tokens([6])]


def test_masked__refuses_what_fills_no_masks(save: Any) -> None:
    with pytest.raises(Incompatible, match="no encoder of gpt2 that fills masked places"):
        HuggingFace(str(save("gpt2"))).build(MaskedLanguage())
    with pytest.raises(Incompatible, match="no encoder of bart"):
        HuggingFace(str(save("bart"))).build(MaskedLanguage())
    with pytest.raises(Incompatible):
        HuggingFace(str(save("bert"))).build(LanguageModelling())
