"""Files damaged at random: each is read as something valid, or refused as the user's input.

Mutation n of a format is the same on every machine; a failing one is named by its number:
`FTLAB_FUZZ=FORMAT:NUMBER pytest -m "" tests/faults/test_fuzz.py` runs it alone.
"""

import json
import os
import random
import resource
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mutations
import numpy as np
import pytest
import soundfile
import torch
import transformers as hf
import yaml
from detection import write_coco, write_voc
from PIL import Image
from safetensors.torch import save_file
from speech import RATE, say

from ftlab.errors import FtlabError

MANY = 2000
SECONDS = 20  # a mutation: hundreds of times what the slowest needs
ROOM = 6 * 2**30  # bytes that a mutation may ask for
Reading = Callable[[], object]
Format = tuple[str, mutations.Mutation, Callable[[Path], tuple[Path, Reading]]]
LABELS = ["pos", "neg"]
ROWS = [{"text": f"film {i} is quite {'good' if i % 2 else 'bad'}", "label": LABELS[i % 2]}
        for i in range(24)]
LORA = {"class_path": "LoRA", "init_args": {"rank": 4, "optim": {"warmup": 0.1}}}
STUDY = {"name": "fuzz", "question": "Which?",
         "backbones": {"b": {"class_path": "HuggingFace", "init_args": {"source": "x/y"}}},
         "datasets": {"d": {"class_path": "TextClassification", "init_args": {
             "train": "x.csv", "max_length": 8, "classes": {"a": "b", "c": 0}, "split": {"test": 0.2},
             "subset": {"limit": 100}, "task": {"class_path": "Classification"}}}},
         "techniques": {"full": {"class_path": "FullFineTuning", "init_args": {"lr": 1e-4},
                                 "trainer": {"max_epochs": 2}}, "lora": LORA, "probe": "LinearProbe"},
         "seeds": [0, 1], "select_by": "val/accuracy", "trainer": {"gradient_clip": 1.0},
         "baseline": "full", "groups": {"g": ["d"]}}
SWEEP = {"name": "s", "trials": 4, "seeds": [0], "sampler": {
             "class_path": "TPE", "init_args": {"n_startup_trials": 3}},
         "pruner": {"class_path": "Median", "init_args": {"n_startup_trials": 2}}, "max_seconds": 9.5,
         "spaces": {"lora": {"rank": {"choices": [2, 4]}, "lr": {"low": 1e-4, "high": 1e-2, "log": True}},
                    "full": {"lr": None}}}
BOXES = {f"{i:02}": [("red", 4.0, 4.0, 30.0, 30.0)] if i % 2 else [("blue", 8.0, 8.0, 40.0, 40.0)]
         for i in range(6)}


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def loaded(module: str, name: str, path: Path, **settings: Any) -> Reading:
    """Read, split, encode and digest all examples of a file."""
    cls = getattr(__import__(f"ftlab.data.{module}", fromlist=[name]), name)
    return lambda: cls(str(path), **settings).load()


def texts(path: Path) -> Reading:
    return loaded("text", "TextClassification", path)


def study(folder: Path) -> tuple[Path, Reading]:
    from ftlab.studies.study import load_study

    path = written(folder / "study.yaml", yaml.safe_dump(STUDY))
    return path, lambda: load_study(path)


def sweep(folder: Path) -> tuple[Path, Reading]:
    from ftlab.sweeps.sweep import load_sweep

    told = study(folder)[0]
    path = written(folder / "sweep.yaml", yaml.safe_dump({"study": str(told), **SWEEP}))
    return path, lambda: load_sweep(path)


def table(ending: str) -> Callable[[Path], tuple[Path, Reading]]:
    def make(folder: Path) -> tuple[Path, Reading]:
        mark = "," if ending == "csv" else "\t"
        lines = [mark.join(("text", "label")), *(mark.join(row.values()) for row in ROWS)]
        path = written(folder / f"a.{ending}", "\n".join(lines))
        return path, texts(path)
    return make


def lines(folder: Path) -> tuple[Path, Reading]:
    path = written(folder / "a.jsonl", "\n".join(map(json.dumps, ROWS)))
    return path, texts(path)


def numbers(folder: Path) -> tuple[Path, Reading]:
    rows = [{"text": row["text"], "label": i / 7} for i, row in enumerate(ROWS)]
    path = written(folder / "numbers.jsonl", "\n".join(map(json.dumps, rows)))
    from ftlab.tasks.regression import Regression

    return path, loaded("text", "TextClassification", path, task=Regression())


def chats(folder: Path) -> tuple[Path, Reading]:
    rows = [{"messages": [{"role": "user", "content": row["text"]},
                          {"role": "assistant", "content": row["label"]}]} for row in ROWS]
    path = written(folder / "chats.jsonl", "\n".join(map(json.dumps, rows)))
    return path, loaded("causal_lm", "CausalLM", path, messages="messages")


def parquet(folder: Path) -> tuple[Path, Reading]:
    import pyarrow
    from pyarrow import parquet as pq

    path = folder / "a.parquet"
    pq.write_table(pyarrow.table({**{key: [row[key] for row in ROWS] for key in ROWS[0]},
                                  "tokens": [row["text"].split() for row in ROWS]}), path)
    return path, texts(path)


def conll(folder: Path) -> tuple[Path, Reading]:
    blocks = ["".join(f"{word} {'B-X' if word in ('good', 'bad') else 'O'}\n"
                      for word in row["text"].split()) for row in ROWS]
    path = written(folder / "a.conll", "\n".join(blocks))
    return path, loaded("token_classification", "TokenClassification", path)


def coco(folder: Path) -> tuple[Path, Reading]:
    path = write_coco(folder, BOXES)
    return path, loaded("object_detection", "ObjectDetection", path)


def voc(folder: Path) -> tuple[Path, Reading]:
    write_voc(folder, BOXES)
    path = folder / "Annotations" / "01.xml"
    return path, loaded("object_detection", "ObjectDetection", folder)


def image(ending: str) -> Callable[[Path], tuple[Path, Reading]]:
    def make(folder: Path) -> tuple[Path, Reading]:
        pixels = np.random.default_rng(0).integers(0, 255, (12, 10, 3), np.uint8)
        for name in ("a/1", "a/2", "a/3", "b/4", "b/5", "b/6"):
            (folder / name).parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{name}.{ending}", exif=Image.Exif())
        return folder / "a" / f"1.{ending}", loaded("image", "ImageClassification", folder)
    return make


def sound(ending: str) -> Callable[[Path], tuple[Path, Reading]]:
    def make(folder: Path) -> tuple[Path, Reading]:
        for name in ("low/1", "low/2", "low/3", "high/4", "high/5", "high/6"):
            (folder / name).parent.mkdir(exist_ok=True)
            soundfile.write(folder / f"{name}.{ending}", say([name.split("/")[0]]), RATE)
        return (folder / "low" / f"1.{ending}",
                loaded("audio_classification", "AudioClassification", folder))
    return make


def model(name: str) -> Callable[[Path], tuple[Path, Reading]]:
    """A file of a tiny BERT's folder; read by what a run reads first."""
    def make(folder: Path) -> tuple[Path, Reading]:
        from ftlab.backbones.huggingface import HuggingFace
        from ftlab.tasks.classification import Classification

        tiny_bert(folder)
        task = Classification()
        task.fit(LABELS)

        def build() -> None:
            backbone = HuggingFace(str(folder))
            reading = backbone.preprocessing
            ids, _ = reading.encode(["a good film"], min(8, reading.longest))
            reading.pad(ids)
            backbone.build(task, meta=name != "model.safetensors")

        return folder / name, build
    return make


def tiny_bert(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "good", "film"]
    written(folder / "vocab.txt", "\n".join(words))
    from tokenizers import Tokenizer, models, pre_tokenizers

    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    hf.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]",
                               model_max_length=16).save_pretrained(folder)
    config = hf.BertConfig(vocab_size=7, hidden_size=8, num_attention_heads=2, pad_token_id=0,
                           intermediate_size=8, num_hidden_layers=1, max_position_embeddings=16)
    hf.BertModel(config).save_pretrained(folder)


def state(ending: str) -> Callable[[Path], tuple[Path, Reading]]:
    def make(folder: Path) -> tuple[Path, Reading]:
        from ftlab.backbones.weight_files import read_state

        path = folder / f"weights.{ending}"
        tensors = {"a.weight": torch.ones(3, 4), "a.bias": torch.zeros(3)}
        if ending == "safetensors":
            save_file(tensors, path)
        else:
            torch.save(tensors, path, _use_new_zipfile_serialization=ending == "pth")
        return path, lambda: read_state(path, "net")
    return make


def gguf(folder: Path) -> tuple[Path, Reading]:
    import gguf

    from ftlab.backbones.gguf_file import unpacked

    path = folder / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in {"context_length": 16, "embedding_length": 8, "block_count": 1,
                        "feed_forward_length": 8, "head_count": 2, "head_count_kv": 1,
                        "layer_norm_rms_eps": 1e-5, "rope_dimension_count": 4,
                        "vocab_size": 5}.items():
        getattr(writer, f"add_{name}")(value)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<|endoftext|>", "a", "b", "c", "ab"])
    writer.add_token_types([3, 1, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    shapes = {"token_embd": (5, 8), "blk.0.attn_q": (8, 8), "blk.0.attn_k": (4, 8),
              "blk.0.attn_v": (4, 8), "blk.0.attn_output": (8, 8), "blk.0.ffn_gate": (8, 8),
              "blk.0.ffn_up": (8, 8), "blk.0.ffn_down": (8, 8), "output_norm": (8,),
              "blk.0.attn_norm": (8,), "blk.0.ffn_norm": (8,)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, lambda: unpacked(str(path), True)


def checkpoint(folder: Path) -> tuple[Path, Reading]:
    from ftlab.exports.restore_run import _specification

    (folder / "checkpoint").mkdir()
    parts = {name: {"class_path": f"ftlab.{name}", "init_args": {}} for name in
             ("backbone", "data", "technique")}
    manifest = {**parts, "trainer": {}, "seed": 0, "select_by": "val/loss", "fingerprints": {},
                "files": {"weights.safetensors": {"sha256": "0" * 64}}}
    path = written(folder / "checkpoint" / "manifest.json", json.dumps(manifest))
    return path, lambda: _specification(folder, "run")


def predictions(folder: Path) -> tuple[Path, Reading]:
    from ftlab.interchange import Parquet
    from ftlab.training.evaluate import write_predictions

    path = folder / "test.parquet"
    write_predictions(path, {"id": ["a", "b"], "target": [0, 1], "prediction": [0, 1],
                             "scores": [[0.1, 0.9], [0.5, 0.5]]})
    return path, lambda: Parquet(path, path, "run again").to_pydict()


def results(folder: Path) -> tuple[Path, Reading]:
    from ftlab.reports.drift.read_results import measurements

    path = written(folder / "runs.csv", "study,backbone,dataset,technique,seed,status,test/accuracy\n"
                   + "".join(f"s,b,d,{name},{seed},FINISHED,0.{seed}5\n"
                             for name in ("full", "lora") for seed in range(3)))
    return path, lambda: measurements(str(path))


FORMATS: dict[str, tuple[int, mutations.Mutation, Callable[[Path], tuple[Path, Reading]]]] = {
    # how many in every run of the tests; thousands by `pytest -m slow`
    "study": (20, mutations.yaml_file, study),
    "sweep": (15, mutations.yaml_file, sweep),
    "csv": (60, mutations.damaged, table("csv")),
    "tsv": (60, mutations.damaged, table("tsv")),
    "jsonl": (60, mutations.json_lines, lines),
    "jsonl of numbers": (60, mutations.json_lines, numbers),
    "jsonl of messages": (60, mutations.json_lines, chats),
    "parquet": (60, mutations.damaged, parquet),
    "conll": (40, mutations.damaged, conll),
    "coco": (40, mutations.json_file, coco),
    "voc": (20, mutations.xml_file, voc),
    "png": (40, mutations.png_file, image("png")),
    "jpeg": (40, mutations.damaged, image("jpg")),
    "wav": (40, mutations.damaged, sound("wav")),
    "flac": (40, mutations.damaged, sound("flac")),
    "tokenizer.json": (10, mutations.json_file, model("tokenizer.json")),
    "config.json": (10, mutations.json_file, model("config.json")),
    "tokenizer_config.json": (10, mutations.json_file, model("tokenizer_config.json")),
    "model.safetensors": (10, mutations.safetensors_file, model("model.safetensors")),
    "weights.safetensors": (60, mutations.safetensors_file, state("safetensors")),
    "weights.pth": (60, mutations.zip_file, state("pth")),
    "weights of old torch": (60, mutations.damaged, state("pt")),
    "gguf": (4, mutations.damaged, gguf),
    "manifest": (40, mutations.json_file, checkpoint),
    "results": (60, mutations.damaged, results),
    "predictions": (60, mutations.damaged, predictions),
}


class Hang(BaseException):
    """Not an `Exception`, so that no reader takes it for one of its own."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Refuse a process that takes longer, or asks for more memory than a file is worth."""
    def late(*_: object) -> None:
        raise Hang(f"more than {seconds} s")

    before, limits = signal.signal(signal.SIGALRM, late), resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def hunt(name: str, chosen: range, folder: Path) -> tuple[Counter[str], list[str]]:
    """Read mutations of a format; how many were valid and how many refused, and all else."""
    _, mutate, make = FORMATS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path, reading = make(folder)
        reading()  # undamaged, it is valid
        whole = path.read_bytes()
        ends: Counter[str] = Counter()
        wrong = []
        for number in chosen:
            path.write_bytes(mutate(whole, random.Random(f"{name} {number}")))
            (folder / "number").write_text(str(number))  # which survives a crash
            try:
                with within(SECONDS):
                    reading()
                ends["valid"] += 1
            except FtlabError as error:
                lines_ = str(error).split("\n")
                ends["refused"] += 1
                if len(lines_) > 2:
                    wrong.append(f"{name}:{number}: {len(lines_)} lines: {lines_[:3]}")
            except (Exception, Hang) as error:  # all others are what is hunted
                wrong.append(f"{name}:{number}: {type(error).__name__}: {str(error)[:200]}")
                if os.environ.get("FTLAB_FUZZ"):
                    raise
    return ends, wrong


def hold(name: str, count: int, folder: Path) -> None:
    asked, _, number = os.environ.get("FTLAB_FUZZ", "").partition(":")
    if asked and asked != name:
        pytest.skip("another is asked for")
    chosen = range(int(number), int(number) + 1) if asked else range(count)
    ends, wrong = hunt(name, chosen, folder)
    print(f"{name}: {ends['valid']} valid, {ends['refused']} refused, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)
    assert asked or ends["refused"]


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files__are_refused_or_valid(
        name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    hold(name, FORMATS[name][0], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files__by_the_thousand(
        name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    hold(name, MANY, tmp_path)
