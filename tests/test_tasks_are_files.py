"""A task is one file in its room, a data module another; nothing else knows their names."""

import ast
import contextlib
import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import warm_processes
import yaml

import ftlab
from ftlab.backbones.base import Backbone
from ftlab.data.base import DataModule
from ftlab.studies.discover import members
from ftlab.tasks.base import Task
from ftlab.techniques.base import Technique

UNRENDERED = True
PACKAGE = Path(ftlab.__file__).parent
TASK = '''
"""Ordered classes."""

from torch import tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import MeanAbsoluteError

from ftlab.backbones.export_code import CodeLines, PlainOutputs
from ftlab.errors import InputError
from ftlab.tasks.base import Task
from ftlab.tasks.metric import Metric


class Ordinal(Task):
    """Predict a rank from 0 by asking of each rank whether it is exceeded.

    Frank, Hall (2001), https://doi.org/10.1007/3-540-44795-4_13

    Args:
        threshold: probability from which a rank counts as exceeded.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self.highest = 0

    def fit(self, labels):
        self.highest = max(int(label) for label in labels)

    @property
    def outputs(self):
        return self.highest

    def encode(self, label, where):
        if not 0 <= int(label) <= self.highest:
            raise InputError(f"{where}: rank {label}", "0 to the highest of train")
        return int(label)

    def loss(self, outputs, batch):
        target = batch["target"][:, None] > tensor(range(self.highest), device=outputs.device)
        return binary_cross_entropy_with_logits(outputs, target.to(outputs.dtype))

    def predict(self, model, batch, outputs=None):
        outputs = model(batch) if outputs is None else outputs
        return (outputs.sigmoid() > self.threshold).sum(1)

    def metrics(self):
        return [Metric("ranks_off", MeanAbsoluteError, False, "non-negative")]

    def export_code(self):
        return PlainOutputs(CodeLines("def tell(outputs):\\n    "
                                  f"return (outputs.sigmoid() > {self.threshold}).sum(1).tolist()"))

    def records(self, predictions, target):
        found = predictions.tolist()
        return {"target": target.tolist(), "prediction": found, "scores": [[x] for x in found]}
'''
DATA = '''
"""CodeLines with a rank each."""

import hashlib
from pathlib import Path

from ftlab.backbones.export_code import PlainExamples
from ftlab.data.base import DataModule
from ftlab.data.examples import SPLITS, Examples
from ftlab.data.batches import Collate, SplitDataset
from ftlab.data.export_snippets import with_tokenizer
from ftlab.data.sampling import Natural
from ftlab.data.splits import Split, Subset
from ftlab.tasks.base import Task
from ftlab.tasks.ordinal import Ordinal

PREDICT = """
def predict(lines):
    inputs = tokenizer(list(lines), truncation=True, max_length=16, padding=True,
                       return_token_type_ids=False, return_tensors="pt")
    with torch.no_grad():
        return tell(compute(**inputs))
"""


class RankedLines(DataModule):
    """A line an example: rank, tabulator, text.

    Args:
        train: the file.
        batch_size: lines a batch.
        task: what is predicted.
    """

    def __init__(self, train: str, batch_size: int = 8, task: Task = Ordinal()) -> None:
        sources = {"train": train, "validation": None, "test": None}
        super().__init__(sources, task, batch_size, Split(), Subset(), Natural(), None, 0)

    def read(self, split, source):
        lines = [line.split("\\t") for line in Path(source).read_text().splitlines()]
        ids = [f"line {number}" for number in range(1, len(lines) + 1)]
        return Examples(ids, [text for _, text in lines], [rank for rank, _ in lines])

    def prepare(self, split, examples):
        return [hashlib.sha256(text.encode()).digest() for text in examples.inputs]

    def connect(self, backbone, seed):
        self.load()
        self._seed, self.text = seed, backbone.preprocessing

    def dataset(self, split, training):
        return Tokens(*self.text.encode(self.splits[split].inputs, 16)[:1],
                      self.splits[split].targets, self.seed)

    def collate(self, training):
        return Collate(self.text.pad, self.task.stack)

    def export_code(self, preprocessing, model):
        return PlainExamples(with_tokenizer(PREDICT), "lines", "line")


class Tokens(SplitDataset):
    def __init__(self, tokens, targets, seed):
        super().__init__(targets, seed)
        self.tokens = tokens

    def input(self, index):
        return self.tokens[index]
'''


def test_new_task__is_one_file_and_one_of_data(tmp_path: Path, tiny_bert: Path) -> None:
    """Listed, planned, run, and ranked by its own metric, of which less is better."""
    house = tmp_path / "house" / "ftlab"
    shutil.copytree(PACKAGE, house, ignore=shutil.ignore_patterns("__pycache__"))
    (house / "tasks" / "ordinal.py").write_text(TASK)
    (house / "data" / "ranked_lines.py").write_text(DATA)
    lines = [f"{i % 4}\t{'good ' * (i % 4)}film the plot" for i in range(60)]
    (tmp_path / "ranked.txt").write_text("\n".join(lines))
    bert = {"class_path": "HuggingFace", "init_args": {"source": str(tiny_bert), "pooling": "mean"}}
    lines_of = {"class_path": "RankedLines", "init_args": {"train": "ranked.txt"}}
    (tmp_path / "ranks.yaml").write_text(yaml.safe_dump({
        "name": "ranks", "backbones": {"bert": bert}, "datasets": {"ranked": lines_of},
        "techniques": {
            # this one cannot learn: its rate rounds to nothing
            "still": {"class_path": "BitFit", "init_args": {"lr": 1e-7}},
            "full": {"class_path": "FullFineTuning", "init_args": {"lr": 3e-3}},
        },
        "seeds": [0], "select_by": "val/ranks_off", "trainer": {"max_epochs": 4},
    }))

    def call(*arguments: str) -> str:
        done = warm_processes.run(
            "ftlab.cli", *arguments, folder=tmp_path,
            environment={**os.environ, "COLUMNS": "160", "PYTHONPATH": str(house.parent)})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = call("list")
    assert "  Ordinal: Predict a rank from 0" in said
    assert "  RankedLines: A line an example" in said
    said = call("run", "ranks.yaml")
    assert "full on ranked from bert, seed 0: test/ranks_off " in said
    table = csv.DictReader((tmp_path / "results" / "ranks" / "table.csv").read_text().splitlines())
    assert {row["technique"]: row["rank"] for row in table} == {"full": "1", "still": "2"}
    assert "full has the lowest ranks_off" in " ".join(said.split())
    rows = csv.DictReader((tmp_path / "results" / "ranks" / "runs.csv").read_text().splitlines())
    run = next(row["run_id"] for row in rows if row["technique"] == "full")
    assert "A model of transformers." in call("export", run, "--out", "out")
    code = (tmp_path / "out" / "README.md").read_text().split("```python\n")[1].split("\n```")[0]
    names: dict = {}
    with contextlib.chdir(tmp_path / "out"):
        exec(code, names)  # noqa: S102  what the card shows
    low, high = names["predict"](["film the plot", "good good good film the plot"])
    assert low < high


ALLOWED = {  # a word of transformers' own class names
    ("backbones/load_pretrained.py", "Classification"),
}


def named(package: Path, names: set[str], apart: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """File and name of every mention of `names` outside the rooms `apart`, docstrings apart."""
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        if place.parts[0] in apart:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        said = {id(node.value) for node in ast.walk(tree)
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}
        for node in ast.walk(tree):
            match node:
                case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                    pass
                case ast.Constant(value=str(name)) if id(node) not in said:
                    name = name.rpartition(".")[2]
                case _:
                    continue
            if name in names:
                yield str(place), name


def test_no_other_room__names_a_task_or_a_data_module() -> None:
    names = {*members(Task), *members(DataModule)}
    assert {"Classification", "TextClassification"} <= names
    assert set(named(PACKAGE, names, ("tasks", "data"))) <= ALLOWED


def test_exports__name_no_member_of_any_family() -> None:
    """Neither by its class nor by importing the module that it is in, for whatever else is there."""
    families = [members(base) for base in (Task, DataModule, Backbone, Technique)]
    names = {name for found in families for name in found}
    assert {"HuggingFace", "LoRA", "Detection", "ObjectDetection"} <= names
    homes = {cls.__module__ for found in families for cls in found.values()}
    others = tuple(path.name for path in PACKAGE.iterdir() if path.name != "exports")
    assert list(named(PACKAGE, names, others)) == []
    for path in (PACKAGE / "exports").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        found |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import)
                  for name in node.names}
        assert not found & homes, path


@pytest.mark.parametrize("line", [
    "from ftlab.tasks.classification import Classification",
    "kind = type(task).__name__ == 'Classification'",
    "import ftlab.tasks.classification as c\nc.Classification()",
    "match data:\n    case TextClassification(): ...",
    "CLASS = 'ftlab.data.text.TextClassification'",
])  # fmt: skip
def test_named__finds_what_is_planted(line: str, tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "a.py").write_text('"""Classification"""\n' + line)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "a.py").write_text(line)
    found = list(named(tmp_path, {"Classification", "TextClassification"}, ("tasks", "data")))
    assert len(found) == 1 and found[0][0] == "training/a.py"
