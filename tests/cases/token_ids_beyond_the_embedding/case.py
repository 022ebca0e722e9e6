import shutil
from pathlib import Path

import transformers as hf


def make(folder: Path) -> None:
    shutil.copytree(folder / "gpt2", folder / "net")
    tokenizer = hf.AutoTokenizer.from_pretrained(folder / "net")
    tokenizer.add_tokens(["one", "two"])  # into spare rows
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(folder / "net")
    rows = [f"{text},{'xy'[i % 2]}" for i, text in enumerate(["good film", "a bad film"] * 10)]
    (folder / "texts.csv").write_text("\n".join(["text,label", *rows]) + "\n")
