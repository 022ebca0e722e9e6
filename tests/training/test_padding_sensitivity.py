"""Networks that read padding are told from those that do not."""

from pathlib import Path

import pytest
import transformers as hf
from families import LONGEST, tokenizer

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.text import TextClassification
from ftlab.training.padding_sensitivity import reads_padding

_SIZES = {"vocab_size": 20, "pad_token_id": 0, "hidden_size": 16, "intermediate_size": 24,
          "num_hidden_layers": 2, "max_position_embeddings": LONGEST, "initializer_range": 0.5}
NETWORKS = {
    "fnet": (lambda: hf.FNetModel(hf.FNetConfig(**_SIZES)), True),
    "bert": (lambda: hf.BertModel(hf.BertConfig(**_SIZES, num_attention_heads=2)), False),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_padding__is_read_by_networks_without_a_mask(name: str, tmp_path: Path) -> None:
    make, expected = NETWORKS[name]
    make().save_pretrained(tmp_path)
    tokenizer(decoder=False).save_pretrained(tmp_path)
    table = tmp_path / "texts.csv"
    rows = [f"{'a film was ' * (1 + i % 4)}{word},{word}"
            for i in range(20) for word in ("good", "bad")]
    table.write_text("\n".join(["text,label", *rows]) + "\n")
    data = TextClassification(str(table), max_length=16)
    backbone = HuggingFace(str(tmp_path), pooling="mean")
    data.connect(backbone, 0)
    model = backbone.build(data.task).eval()
    model.head.requires_grad_(False)
    for parameter in model.head.parameters():
        parameter.normal_()
    assert reads_padding(model, data, dict) == expected
