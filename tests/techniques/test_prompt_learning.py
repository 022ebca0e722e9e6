"""Virtual tokens take positions that the text must leave them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.causal_lm import CausalLM
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible
from ftlab.studies.discover import members
from ftlab.tasks.language_modelling import LanguageModelling
from ftlab.techniques.base import Technique

TECHNIQUES = members(Technique)
NAMES = ("PromptTuning", "PrefixTuning")
POSITIONS = 32  # of the tiny networks


@pytest.fixture
def long_texts(tmp_path: Path) -> Path:
    path = tmp_path / "long.csv"
    rows = [f"{'good film ' * 30},{label}" for label in ("a", "b") * 10]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_length__up_to_the_last_position_and_no_further(
    name: str, family: str, backbone: Callable[..., HuggingFace], long_texts: Path
) -> None:
    def attached(max_length: int) -> tuple[Technique, TextClassification]:
        data, technique = TextClassification(str(long_texts), max_length=max_length), TECHNIQUES[name]()
        network = backbone(family, pooling="mean")
        data.load()
        data.connect(network, 0)
        technique.prepare(data)
        return technique.bind(network.build(data.task), data.task), data

    technique, data = attached(POSITIONS - 10)
    batch = next(iter(data.test_dataloader()))
    assert batch["inputs"]["input_ids"].shape[1] == POSITIONS - 10
    with torch.no_grad():
        assert torch.isfinite(technique.eval().model(batch)).all()
    with pytest.raises(Incompatible, match="10 virtual tokens and max_length 23") as caught:
        attached(POSITIONS - 9)
    assert caught.value.mend == "set max_length: 22"


@pytest.mark.parametrize("name", NAMES)
def test_generation__ends_at_the_last_position(
    name: str, backbone: Callable[..., HuggingFace], tmp_path: Path
) -> None:
    table = tmp_path / "prompts.csv"
    table.write_text("text,answer\n" + f"{'good film ' * 9},bad\n" * 20)
    network = backbone("gpt2")
    data = CausalLM(str(table), prompt="{text}", response="{answer}", max_length=22,
                    task=LanguageModelling(max_new_tokens=30))
    data.load()
    data.connect(network, 0)
    technique = TECHNIQUES[name]()
    technique.prepare(data)
    technique.bind(network.build(data.task), data.task).eval()
    batch = next(iter(data.test_dataloader()))
    technique.model.network.generation_config.eos_token_id = None  # it writes as long as it may
    texts = technique.model.generate(batch, 30)
    prompt = int(batch["inputs"]["attention_mask"].sum(dim=1).max())
    assert len(texts[0].split()) <= POSITIONS - 10 - prompt


def test_mend__never_says_a_length_below_two(
    backbone: Callable[..., HuggingFace], long_texts: Path
) -> None:
    data, technique = TextClassification(str(long_texts), max_length=16), TECHNIQUES["PromptTuning"](tokens=40)
    network = backbone("bert", pooling="mean")
    data.load()
    data.connect(network, 0)
    technique.prepare(data)
    with pytest.raises(Incompatible) as caught:
        technique.bind(network.build(data.task), data.task)
    assert caught.value.mend == "set fewer tokens"
