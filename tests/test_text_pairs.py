"""Pairs of texts through the front door: a study, its predictions and its exports."""

import csv
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
import transformers as hf
import yaml
from scripted import HereEngine

import ftlab
from ftlab.tracking.tracker import Tracker

UNRENDERED = True
KINDS = ("good", "bad"), ("film", "plot")
FILLERS = ["the", "a", "of", "is", "very"]


def write_table(path: Path) -> None:
    """Whether both texts have the same word of a kind, which neither text tells alone."""
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["first", "second", "label"])
        for i in range(160):
            kind = draw.choice(KINDS)
            one = draw.choice(kind)
            other = one if i % 2 else next(word for word in kind if word != one)
            rows.writerow([" ".join([*draw.choices(FILLERS, k=draw.randint(1, 4)), word])
                           for word in (one, other)] + [("other", "same")[i % 2]])


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("pairs")
    shutil.copy(empty_store, root / "mlflow.db")
    write_table(root / "pairs.csv")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *FILLERS, *KINDS[0], *KINDS[1]]
    hf.BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(root / "bert")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf.BertModel(hf.BertConfig(
            vocab_size=len(words), hidden_size=32, num_attention_heads=2, intermediate_size=48,
            num_hidden_layers=2, max_position_embeddings=32)).save_pretrained(root / "bert")
    study = root / "pairs.yaml"
    study.write_text(yaml.safe_dump({
        "name": "pairs",
        "backbones": {"bert": {"class_path": "HuggingFace",
                               "init_args": {"source": str(root / "bert"), "pooling": "first"}}},
        "datasets": {"pairs": {"class_path": "TextClassification", "init_args": {
            "train": str(root / "pairs.csv"), "text": "first", "text_pair": "second",
            "max_length": 16, "batch_size": 8}}},
        "techniques": {"full": {"class_path": "FullFineTuning", "init_args": {"lr": 3e-3}},
                       "lora": {"class_path": "LoRA", "init_args": {"lr": 0.03}}},
        "seeds": [0], "trainer": {"max_epochs": 2, "accelerator": "cpu"}}))
    uri = f"sqlite:///{root / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        outcome = ftlab.run_study(ftlab.load_study(study), uri, root / "results",
                                  engine=HereEngine())
    assert outcome.finished == 2, outcome.failures
    ids = {cell.key.technique: cell.runs[0].run_id for cell in Tracker(uri).cells("pairs")}
    return SimpleNamespace(root=root, uri=uri, ids=ids)


def test_predict__with_the_second_column(stored: SimpleNamespace, here: Callable,
                                         tmp_path: Path) -> None:
    run = stored.ids["full"]
    path = next(stored.root.glob(f"mlartifacts/**/{run}/artifacts/predictions/test.parquet"))
    rows = pq.read_table(path).to_pylist()
    lines = (stored.root / "pairs.csv").read_text().splitlines()[1:]
    chosen = [lines[int(row["id"].split(":")[1]) - 1].rsplit(",", 1)[0] for row in rows]
    (tmp_path / "new.csv").write_text("\n".join(["first,second", *chosen]) + "\n")
    code, _, errors = here("predict", run, "new.csv", "--out", "out.csv",
                           "--tracking-uri", stored.uri)
    assert code == 0, errors
    with (tmp_path / "out.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["prediction"] for row in found] == [row["prediction"] for row in rows]
    assert [float(row["score same"]) for row in found] == pytest.approx(
        [row["scores"][1] for row in rows], abs=1e-5)
    (tmp_path / "new.csv").write_text("\n".join(["first", *chosen]) + "\n")
    code, _, errors = here("predict", run, "new.csv", "--tracking-uri", stored.uri)
    assert code == 2
    assert "no column 'second'" in errors


@pytest.mark.parametrize("technique", ["full", "lora"])
# PEFT asks transformers for what this calls outdated
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_export__takes_pairs_without_ftlab(technique: str, stored: SimpleNamespace,
                                           tmp_path: Path) -> None:
    made = ftlab.export_run(stored.ids[technique], tmp_path / "model", tracking_uri=stored.uri)
    pairs = [("the very good", "is bad"), ("a film", "of a film")]
    names: dict = {"folder": str(made.folder), "base": str(stored.root / "bert")}
    code = (made.folder / "README.md").read_text().split("```python\n")[1].split("\n```")[0]
    exec(code.replace('folder = "."', ""), names)  # noqa: S102  what the card shows
    said, scores = names["predict"](pairs)
    assert "token_type_ids" in names["prepare"](pairs)
    table = tmp_path / "new.jsonl"
    table.write_text("\n".join(json.dumps({"first": a, "second": b}) for a, b in pairs))
    ours = ftlab.predict(stored.ids[technique], table, stored.uri).columns
    assert said == ours["prediction"]
    assert [row[1] for row in scores] == pytest.approx(ours["score same"], abs=1e-5)
