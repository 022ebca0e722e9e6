"""Trials an hour of two one-thread workers against one worker, on a sweep that the CPU bounds.

    python tests/benchmarks/sweep_workers.py [--json]

Every side does the same trials: full fine-tuning of a random BERT of four blocks. Time counts from
the first trial's start to the last one's end, so that imports, paid once a sweep, are left out.
Needs two cores that do nothing else.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import transformers
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from ftlab.sweeps.storage import Storage

TRIALS = 8
TEXTS = 200
WORDS = [f"word{i}" for i in range(500)]


def backbone(folder: Path) -> Path:
    """A random BERT of 3 million parameters and its tokenizer."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    transformers.BertModel(transformers.BertConfig(
        vocab_size=len(names), hidden_size=256, num_attention_heads=4, intermediate_size=1024,
        num_hidden_layers=4, max_position_embeddings=64, pad_token_id=0)).save_pretrained(folder)
    return folder


def corpus(path: Path) -> Path:
    """Texts of 30 words whose first tells the class."""
    draw, lines = random.Random(0), ["text,label"]
    for i in range(TEXTS):
        words = draw.choices(WORDS[2:], k=30)
        words[0] = WORDS[i % 2]
        lines.append(f"{' '.join(words)},{'ab'[i % 2]}")
    path.write_text("\n".join(lines) + "\n")
    return path


def write(folder: Path) -> None:
    """Study and sweep."""
    (folder / "study.yaml").write_text(yaml.safe_dump({
        "name": "workers", "seeds": [0], "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "backbones": {"bert": {"class_path": "HuggingFace", "init_args": {
            "source": str(backbone(folder / "bert")), "pooling": "mean"}}},
        "datasets": {"words": {"class_path": "TextClassification", "init_args": {
            "train": str(corpus(folder / "words.csv")), "max_length": 32, "batch_size": 16}}},
        "techniques": {"full": "FullFineTuning"},
    }))
    (folder / "sweep.yaml").write_text(yaml.safe_dump(
        {"study": "study.yaml", "trials": TRIALS, "sampler": "Random"}))


def seconds(folder: Path, workers: int, **environment: str) -> float:
    """Of all trials, from the first one's start to the last one's end."""
    name = f"{workers}{''.join(environment.values())}"
    subprocess.run(
        [sys.executable, "-m", "ftlab.cli", "sweep", "sweep.yaml", "--workers", str(workers),
         "--storage", f"{name}.journal", "--tracking-uri", f"sqlite:///{name}.db"],
        cwd=folder, env={**os.environ, **environment}, check=True, capture_output=True)
    backend = Storage(str(folder / f"{name}.journal")).backend
    (search,) = backend.get_all_studies()
    done = backend.get_all_trials(search._study_id)
    assert [trial.state.name for trial in done] == ["COMPLETE"] * TRIALS
    ends = [trial.datetime_complete for trial in done if trial.datetime_complete]
    begins = [trial.datetime_start for trial in done if trial.datetime_start]
    return (max(ends) - min(begins)).total_seconds()


def main() -> int:
    """Measure, print; 1 where a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="one object a row")
    said = parser.parse_args()
    os.environ.pop("OMP_NUM_THREADS", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        alone = seconds(folder, 1, OMP_NUM_THREADS="1")
        both = seconds(folder, 2)
        threads = seconds(folder, 1)
    broken = False
    for against, reference, limit, goal in (
        ("one worker of one thread", alone, 1 / 1.6, 0.55),
        ("one worker of all threads", threads, 1.0, 0.9),
    ):
        row = {"name": f"{TRIALS} trials: two workers of one thread against {against}",
               "reference_seconds": round(reference, 2), "ours_seconds": round(both, 2),
               "ratio": round(both / reference, 3), "limit": limit, "goal": goal}
        broken = broken or both / reference > limit
        print(json.dumps(row) if said.json else
              f"{row['name']}: {both:.1f} s against {reference:.1f} s, {reference / both:.2f} times "
              f"the trials an hour (at least {1 / limit:.2f})")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
