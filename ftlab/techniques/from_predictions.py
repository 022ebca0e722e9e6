from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.data.examples import SplitName
from ftlab.data.tables import all_columns
from ftlab.errors import InputError
from ftlab.techniques.base import Technique

SCORE = "score "
"""Before the name of a class, in a column of its scores."""


class FromPredictions(Technique):
    """Predictions of any other system, read from a file: an API, last year's model, a person.

    They enter the same table and the same paired tests as what is trained here. The file has a row
    an example: `id`, `prediction`, and, if there are some, `scores` (a list in the order of the
    classes) or a column `score NAME` for each class. All test examples must be in it; where all
    validation examples are too, these are measured as well.

    Ids are those of the data: `test:7` is the seventh row of test.csv (the header not counted),
    `cats/3.png` a file of a folder; `7` alone is a row of the test split too, where only one has
    that number. The file `predictions/test.parquet` of any run of the same data has them all.

    The backbone is not asked: name one, and read the row as the other system's. There is no model
    to be exported; costs of training are 0, and those of inference are unknown and absent. Without
    scores, probabilities are those of certainty, and calibration says so. Another file needs
    another name, for a study knows finished cells by what its own file says.

    Why a difference between two systems is tested on the same examples: Card, Henderson,
    Khandelwal, Jia, Mahowald, Jurafsky (2020), https://arxiv.org/abs/2010.06595.

    Args:
        file: .parquet, .csv, .tsv or .jsonl.
    """

    trains = False

    def __init__(self, file: str) -> None:
        super().__init__()
        if not file:
            raise ValueError("file must be the path of a table of predictions, got ''")
        self.file = file
        self.found: dict[SplitName, list[Any]] = {}

    def prepare(self, data: DataModule) -> None:
        path = Path(self.file)
        if not path.is_file():
            raise InputError(f"FromPredictions: {path} is no file", "check the path")
        columns = all_columns(path, by_number=False)
        for name in ("id", "prediction"):
            if name not in columns:
                raise InputError(f"{path.name} has no column {name!r}",
                                 f"it has: {', '.join(columns)}; name its columns id and prediction")
        rows = _rows(path, columns["id"], data)
        for split in ("validation", "test"):
            ids = data.splits[split].ids
            missing = [name for name in ids if name not in rows]
            if split == "validation" and len(missing) == len(ids):
                continue
            if missing:
                raise InputError(f"{path.name} lacks {len(missing)} of {len(ids)} {split} examples, "
                                 f"the first with id {missing[0]!r}", "give each a prediction")
            self.found[split] = [_answer(data, path, columns, rows[name]) for name in ids]

    def adapt(self, model: TaskModel) -> None:
        model.requires_grad_(False)

    def answers(self, data: DataModule, split: SplitName) -> Sequence[Any] | None:
        return self.found.get(split, [])


def _rows(path: Path, given: Sequence[Any], data: DataModule) -> dict[str, int]:
    """The row (from 0) of each id of validation and test.

    Raises:
        InputError: an id is there twice, or is none of the data.
    """
    known = {name for split in ("train", *data.measured) for name in data.splits[split].ids}
    numbers = Counter(name.rpartition(":")[2] for name in data.splits["test"].ids)
    short = {name.rpartition(":")[2]: name for name in data.splits["test"].ids}
    rows: dict[str, int] = {}
    for row, cell in enumerate(given):
        name = str(cell)
        if name not in known and numbers[name] == 1:
            name = short[name]
        where = f"{path.name}, row {row + 1}"
        if name not in known:
            example = data.splits["test"].ids[0]
            raise InputError(f"{where}: id {name!r} is none of the data set's",
                             f"ids look like {example!r}; predictions/test.parquet of a run has all")
        if name in rows:
            raise InputError(f"{where}: id {name!r} is there already, in row {rows[name] + 1}",
                             "give each example one prediction")
        rows[name] = row
    return rows


def _answer(data: DataModule, path: Path, columns: dict[str, list[Any]], row: int) -> Any:
    scores = columns["scores"][row] if "scores" in columns else {
        name.removeprefix(SCORE): cells[row] for name, cells in columns.items()
        if name.startswith(SCORE)} or None
    return data.task.answer(columns["prediction"][row], scores, f"{path.name}, row {row + 1}")
