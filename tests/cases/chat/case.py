"""A network with a chat template, and conversations of which one has a tool's turns."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import ftlab

TEMPLATE = ("{% for m in messages %}{{ m['role'][0] }} {{ m['content'] }} [SEP] {% endfor %}"
            "{% if add_generation_prompt %}a {% endif %}")


def _turns(*contents: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[place % 2], "content": content}
            for place, content in enumerate(contents)]


ROWS = [_turns("the film", "good", "and the plot", "very bad"), _turns("is the plot of film bad", "not"),
        [{"role": "system", "content": "very"}, *_turns("a b c", "was")]]
TOOL = [_turns("is")[0], {"role": "assistant", "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "of"}, {"role": "assistant", "content": "good"}]


def _write(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps({"name": "x", "messages": row}) + "\n" for row in rows))


def make(folder: Path) -> None:
    shutil.copytree(folder / "gpt2", folder / "network")
    (folder / "network" / "chat_template.jinja").write_text(TEMPLATE)
    _write(folder / "chat.jsonl", [TOOL, *ROWS * 12])
    _write(folder / "new.jsonl", [ROWS[0], ROWS[0][:3]])


def check(folder: Path) -> None:
    with next(folder.glob("results/*/runs.csv")).open() as file:
        run = next(csv.DictReader(file))["run_id"]
    said = ftlab.predict(run, folder / "new.jsonl", f"sqlite:///{folder / 'mlflow.db'}")
    assert said.columns["target"] == ["very bad", None]
    assert said.columns["prediction"][0] == said.columns["prediction"][1]
    assert said.columns["name"] == ["x", "x"]
    assert said.columns["messages"] == [ROWS[0], ROWS[0][:3]]
    assert said.metrics["exact_match"] == (said.columns["prediction"][0].strip() == "very bad")
