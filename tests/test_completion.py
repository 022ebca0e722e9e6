"""What the shell completes, asked as bash asks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

STUDY = {"name": "small", "techniques": {"lora": "LoRA", "last2": "LastLayers", "full": "FullFineTuning"}}


@pytest.mark.parametrize(("words", "wanted"), [
    ("run fol", {"folder/"}), ("run folder/s", {"folder/small.yaml", "folder/sweep.yaml"}),
    ("run folder/small.yaml --only l", {"lora", "last2"}), ("sweep folder/sweep.yaml --only f", {"full"}),
    ("run missing.yaml --only l", set()), ("list BitF", {"BitFit"}), ("list techn", {"techniques"}),
    ("sche", {"schema"}),
])
def test_bash(words: str, wanted: set[str], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/small.yaml").write_text(yaml.safe_dump(STUDY))
    (tmp_path / "folder/sweep.yaml").write_text("study: folder/small.yaml\n")
    line = f"ftlab {words}"
    asked = subprocess.run(
        [sys.executable, "-c", "from ftlab.cli import app; app(prog_name='ftlab')"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1),
             "_FTLAB_COMPLETE": "complete_bash", "PYTHONPATH": str(Path(__file__).parents[1])})
    assert set(asked.stdout.split()) == wanted, asked.stderr
