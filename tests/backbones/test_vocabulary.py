"""Token ids beyond the embeddings are refused before anything is computed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.causal_lm import CausalLM
from ftlab.data.seq2seq import Seq2Seq
from ftlab.data.speech_recognition import SpeechRecognition
from ftlab.data.text import TextClassification
from ftlab.data.token_classification import TokenClassification
from ftlab.errors import InputError
from ftlab.studies.discover import members
from ftlab.tasks.sequence_to_sequence import SequenceToSequence
from ftlab.techniques.base import Technique

TECHNIQUES = members(Technique)
ROWS = 18  # tokens of the tiny tokenizers, to which the networks are cut


@pytest.fixture
def cut(save: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """A family's folder with as many embeddings as tokens, and with tokens added behind."""
    def make(family: str, *words: str, pad: str | None = None) -> Path:
        folder = tmp_path / family
        network = {"t5": hf.T5ForConditionalGeneration, "gpt2": hf.GPT2LMHeadModel}.get(
            family, hf.AutoModel).from_pretrained(save(family))
        network.resize_token_embeddings(ROWS)
        network.save_pretrained(folder)
        tokenizer = hf.AutoTokenizer.from_pretrained(save(family))
        tokenizer.add_tokens(list(words))
        if pad is not None:
            tokenizer.add_special_tokens({"pad_token": pad})
        tokenizer.save_pretrained(folder)
        return folder

    return make


def table(folder: Path, header: str, *rows: str) -> str:
    path = folder / f"{hash((header, *rows))}.csv"
    path.write_text("\n".join([header, *rows * 12]) + "\n")
    return str(path)


def modules(folder: Path, word: str) -> dict[str, Any]:
    """Data of each kind in which `word` occurs once in a place that the network reads or writes."""
    conll = folder / "words.conll"
    conll.write_text(f"good B-A\n{word} O\n\nfilm O\n\n" * 8)
    return {
        "text": ("bert", TextClassification(
            table(folder, "text,label", f"a {word} film,x", "good,y"), max_length=16)),
        "words": ("bert", TokenClassification(str(conll), max_length=16)),
        "source": ("t5", Seq2Seq(table(folder, "source,target", f"a {word},good", "bad,a"),
                                 max_source_length=16, max_target_length=16)),
        "target": ("t5", Seq2Seq(table(folder, "source,target", f"a,good {word}", "bad,a"),
                                 max_source_length=16, max_target_length=16)),
        "response": ("gpt2", CausalLM(table(folder, "prompt,response", f"a,{word}", "bad,a"),
                                      max_length=16)),
        "plain": ("gpt2", CausalLM(table(folder, "text", f"a {word} film", "bad a"), prompt=None,
                                   response="{text}", max_length=16)),
    }


@pytest.mark.parametrize("kind", ["text", "words", "source", "target", "response", "plain"])
def test_word__without_an_embedding_is_refused_where_it_occurs(
    kind: str, cut: Callable[..., Path], tmp_path: Path
) -> None:
    family, data = modules(tmp_path, "novel")[kind]
    folder = cut(family, "novel", "unread")
    with pytest.raises(InputError) as caught:
        data.connect(HuggingFace(str(folder)), 0)
    assert "its tokenizer has 20 tokens and its network embeddings for 18" in caught.value.what
    assert "'novel' has none (id 18)" in caught.value.what
    assert 'set new_tokens: ["novel", "unread"]' in caught.value.mend
    assert "resize_token_embeddings(20)" in caught.value.mend

    # what never occurs may be there (Gemma's tokens of images), and what is named gets a row
    if kind == "text":
        family, data = modules(tmp_path, "bad")[kind]
        data.connect(HuggingFace(str(folder)), 0)
        backbone = HuggingFace(str(folder), new_tokens=["novel"])
        modules(tmp_path, "novel")[kind][1].connect(backbone, 0)
        rows = backbone.build(data.task).network.get_input_embeddings().num_embeddings
        assert rows == ROWS + 1


def test_padding__without_an_embedding_is_refused_at_once(cut: Callable[..., Path]) -> None:
    folder = cut("gpt2", pad="<pad>")
    with pytest.raises(InputError, match="'<pad>' has none") as caught:
        _ = HuggingFace(str(folder)).preprocessing
    assert 'set new_tokens: ["<pad>"]' in caught.value.mend
    assert HuggingFace(str(folder), new_tokens=["<pad>"]).preprocessing.pad([[5], [5, 6]])


def test_tokenizer__of_another_network_is_called_that(
    cut: Callable[..., Path], tmp_path: Path
) -> None:
    _, data = modules(tmp_path, "w7")["text"]
    with pytest.raises(InputError, match="58 tokens and its network embeddings for 18") as caught:
        data.connect(HuggingFace(str(cut("bert", *(f"w{i}" for i in range(40))))), 0)
    assert caught.value.mend == "give tokenizer: the network's own"


def test_decoder__starts_with_a_token_that_has_an_embedding(
    save: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "t5"
    shutil.copytree(save("t5"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"decoder_start_token_id": 31}))
    with pytest.raises(InputError, match="decoder_start_token_id is 31, and the decoder has"):
        HuggingFace(str(folder)).build(SequenceToSequence(), meta=True)


@pytest.mark.parametrize("name", ["ZeroShot", "InContext"])
def test_prompts__of_classes_are_held_to_it_too(
    name: str, cut: Callable[..., Path], tmp_path: Path
) -> None:
    family, settings = {"ZeroShot": ("bert", {"templates": ["a novel {label}"]}),
                        "InContext": ("gpt2", {"template": "{text} is {label}",
                                               "labels": {"x": "novel"}})}[name]
    _, data = modules(tmp_path, "bad")["text"]
    backbone = HuggingFace(str(cut(family, "novel")))
    data.connect(backbone, 0)
    technique = TECHNIQUES[name](**settings)
    with pytest.raises(InputError, match="'novel' has none"):
        technique.prepare(data)
        technique.bind(backbone.build(data.task, technique.output_type, meta=True), data.task)


def test_whisper__transcripts_are_held_to_it(tiny_whisper: Path, spoken: Path,
                                             tmp_path: Path) -> None:
    folder = tmp_path / "whisper"
    shutil.copytree(tiny_whisper, folder)
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["hi"])  # of high
    tokenizer.save_pretrained(folder)
    data = SpeechRecognition(str(spoken / "table.csv"))
    with pytest.raises(InputError, match="'hi' has none"):
        data.connect(HuggingFace(str(folder)), 0)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "deberta", "gpt2"])
def test_new_padding_token__leaves_every_text_as_the_network_alone_reads_it(
    family: str, cut: Callable[..., Path], task: Any
) -> None:
    """What the refusal tells to set; a table's row of padding, or positions, may depend on its id."""
    folder = cut(family, pad="<pad>")
    backbone = HuggingFace(str(folder), pooling="mean", new_tokens=["<pad>"], dropout=0.0)
    ids, _ = backbone.preprocessing.encode(["good film", "the plot of a film was bad"], 16)
    inputs = backbone.preprocessing.pad(ids)
    assert ROWS in inputs["input_ids"][0]
    model = backbone.build(task).eval()
    reference = hf.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        given = model.network(**inputs).last_hidden_state
        for row, own in zip(given, ids, strict=True):
            alone = reference(torch.tensor([own])).last_hidden_state[0]
            torch.testing.assert_close(row[:len(own)], alone, rtol=0, atol=1e-5)
