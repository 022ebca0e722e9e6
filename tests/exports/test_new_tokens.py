"""Exports hold what new tokens have learned."""

from pathlib import Path

import pytest
import torch
import transformers as hf
from exported import restored
from matrix import make_world

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible
from ftlab.exports.export import write_model


@pytest.mark.parametrize("name", ["LinearProbe", "LoRA"])
def test_export__has_the_rows_as_they_were_trained(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
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
    if name == "LoRA":
        with pytest.raises(Incompatible, match="new_tokens change") as caught:
            write_model(found, folder)
        assert caught.value.mend == "export it with --merged"
    write_model(found, folder, merged=name == "LoRA")
    table = hf.AutoModel.from_pretrained(folder, add_pooling_layer=False).get_input_embeddings()
    own = hf.AutoTokenizer.from_pretrained(folder)
    assert own.convert_tokens_to_ids(["<x>", "<y>", "film"]) == ids.tolist()
    torch.testing.assert_close(table(ids), learned)
