"""Exports hold what new tokens have learned."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from exported import restored
from matrix import make_world

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.text import TextClassification
from ftlab.exports.export import write_model
from ftlab.exports.predictions import predictions_of

# PEFT asks transformers for what this calls outdated
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")


@pytest.mark.parametrize(("name", "merged"), [
    ("LinearProbe", False), ("LoRA", False), ("LoRA", True), ("PromptTuning", False)])
def test_export__has_the_rows_as_they_were_trained(
    name: str, merged: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    world = make_world("text_classification", request.getfixturevalue)

    def with_new_tokens() -> tuple[HuggingFace, TextClassification]:
        backbone, data = world()
        return HuggingFace(backbone.source, pooling="mean", dropout=0.0,
                           new_tokens=["<x>", "<y>"]), data

    (tmp_path / "run").mkdir()
    found = restored(with_new_tokens, name, tmp_path / "run")
    tokenizer = found.run.backbone.preprocessing.tokenizer
    ids = torch.tensor(tokenizer.convert_tokens_to_ids(["<x>", "<y>", "film"]))
    learned = found.model.trunk.get_input_embeddings()(ids).clone()
    start = found.run.backbone.build(found.run.data.task).trunk.get_input_embeddings()(ids)
    assert not torch.allclose(learned[:2], start[:2])
    assert torch.equal(learned[2], start[2])
    folder = tmp_path / "model"
    folder.mkdir()
    expected = predictions_of(found).columns
    write_model(found, folder, merged)
    card: dict[str, Any] = {"folder": str(folder)}
    lines = (folder / "README.md").read_text().split("```python\n")[1].split("\n```")[0]
    exec(lines.replace('folder = "."', ""), card)  # noqa: S102  what the card shows
    table = card["model"].get_input_embeddings()
    own = hf.AutoTokenizer.from_pretrained(folder)
    assert own.convert_tokens_to_ids(["<x>", "<y>", "film"]) == ids.tolist()
    torch.testing.assert_close(table(ids), learned)
    texts = found.run.data.splits["test"].inputs
    predictions, scores = card["predict"](texts)
    assert predictions == expected["prediction"]
    columns = [expected[f"score {name}"] for name in found.run.data.task.names]
    torch.testing.assert_close(torch.tensor(scores), torch.tensor(columns).T, rtol=0, atol=1e-5)
