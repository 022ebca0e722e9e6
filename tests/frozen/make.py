"""Freeze a small study of this version: `python tests/frozen/make.py tests/frozen/NAME`.

What it writes is never changed again: each later version has to open it and continue it. The
store is its SQL, in which `{HERE}` stands for the folder that it is restored to.
"""

from __future__ import annotations

import gzip
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

WORDS = ["good", "fine", "great", "bad", "poor", "awful", "film", "plot", "cast", "score", "the", "was"]
STUDY = """\
# Frozen by tests/frozen/make.py; its seed 2 was never run.
name: frozen
question: Does a later version open what this one has written?
backbones: {bert: {class_path: HuggingFace, init_args: {source: bert, pooling: mean}}}
datasets:
  reviews: {class_path: TextClassification, init_args: {train: reviews.csv, max_length: 16, batch_size: 8}}
techniques: {probe: LinearProbe, lora: LoRA}
seeds: [0, 1, 2]
trainer: {max_epochs: 2}
"""
KEPT = ("mlartifacts", "bert", "results")


def write_backbone(folder: Path) -> None:
    """A random BERT of one layer and its tokenizer."""
    import torch
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    hf.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    hf.BertModel(hf.BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_attention_heads=2, pad_token_id=0,
        intermediate_size=16, num_hidden_layers=1, max_position_embeddings=16,
    )).save_pretrained(folder)


def write_data(path: Path) -> None:
    """60 texts of two classes that a word tells apart."""
    draw = random.Random(0)
    lines = ["text,label"]
    for number in range(60):
        label = ("bad", "good")[number % 2]
        words = [draw.choice(WORDS[:3] if label == "good" else WORDS[3:6]), *draw.choices(WORDS[6:], k=4)]
        draw.shuffle(words)
        lines.append(f"{' '.join(words)},{label}")
    path.write_text("\n".join(lines) + "\n")


def freeze(out: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary).resolve()
        write_backbone(work / "bert")
        write_data(work / "reviews.csv")
        (work / "study.yaml").write_text(STUDY)
        subprocess.run([sys.executable, "-m", "ftlab.cli", "run", "study.yaml", "--seeds", "0,1",
                        "--tracking-uri", "sqlite:///mlflow.db"], cwd=work, check=True)
        with closing(sqlite3.connect(work / "mlflow.db")) as database:
            text = "\n".join(database.iterdump()) + "\n"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        for name in KEPT:
            shutil.copytree(work / name, out / name,
                            ignore=shutil.ignore_patterns(
                                "figures", "*.html", "*.tex", "output.log", ".queue"))  # of this machine
        for name in ("reviews.csv", "study.yaml"):
            shutil.copy(work / name, out)
        with gzip.GzipFile(out / "mlflow.sql.gz", "wb", mtime=0) as packed:
            packed.write(text.replace(str(work), "{HERE}").encode())


def restore(frozen: Path, folder: Path) -> str:
    """Put a frozen study into an empty folder; the address of its store."""
    shutil.copytree(frozen, folder, dirs_exist_ok=True)
    text = gzip.decompress((folder / "mlflow.sql.gz").read_bytes()).decode()
    (folder / "mlflow.sql.gz").unlink()
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        database.executescript(text.replace("{HERE}", str(folder)))
    return f"sqlite:///{folder}/mlflow.db"


if __name__ == "__main__":
    freeze(Path(sys.argv[1]).resolve())
