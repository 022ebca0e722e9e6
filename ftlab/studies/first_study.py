"""A first study file from four answers: data, backbone, techniques, time."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftlab.backbones.source import resolve_path
from ftlab.data.sources import columns_of
from ftlab.errors import InputError
from ftlab.studies.discover import family, find, members
from ftlab.studies.display import clock
from ftlab.studies.dry_run import estimate
from ftlab.studies.study import load_study
from ftlab.wording import counted

TECHNIQUES = ("FullFineTuning", "LinearProbe", "BitFit", "LoRA")
"""Full, none of the backbone, partial, parameter-efficient: what is offered first."""
_SUFFIXES = {"text": (".txt",), "image": (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"),
             "audio": (".wav", ".flac", ".ogg", ".mp3")}
_BACKBONES = {"text": "sentence-transformers/all-MiniLM-L6-v2", "image": "mobilenet_v3_small",
              "audio": "openai/whisper-tiny"}
_LABELS = ("label", "labels", "class", "target", "category", "y", "score")
_INPUTS = ("text", "sentence", "review", "image", "audio", "path", "file", "filename")
_MOST_CLASSES = 50  # more different numbers are a quantity


@dataclass(frozen=True)
class Guess:
    """The way to read a source.

    Attributes:
        module: the data module's class.
        arguments: of its constructor.
        modality: `text`, `image` or `audio`.
        reason: by what it was told, for people.
    """

    module: str
    arguments: dict[str, Any]
    modality: str
    reason: str

    @property
    def backbone(self) -> str:
        """A small network to begin with."""
        return _BACKBONES[self.modality]


def guess(source: str) -> Guess:
    """Tell by its files or columns how a source is read.

    Args:
        source: as a data module's `train` takes it.

    Raises:
        InputError: it is neither a table with inputs and labels nor a folder of class folders.
    """
    if not source.startswith("hf:") and (path := resolve_path(source)).is_dir():
        return _of_folder(source, path)
    columns = columns_of(source, by_number=False, split="train")
    label = _column(columns, _LABELS) or min(
        columns, key=lambda name: len(set(map(str, columns[name]))))
    others = {name: values for name, values in columns.items() if name != label}
    if not others:
        raise InputError(f"{source} has one column alone, {label}", "a table of inputs and labels")
    column = _column(others, _INPUTS) or max(others, key=lambda name: _length(others[name]))
    modality = _modality([str(value) for value in others[column][:20]])
    arguments: dict[str, Any] = {"train": source}
    arguments |= {modality: column} if column != modality else {}
    arguments |= {"label": label} if label != "label" else {}
    if _is_quantity(columns[label]):
        arguments["task"] = next(name for name, cls in members(family("tasks")).items()
                                 if vars(cls).get("problem_type") == "regression")
    return Guess(_module(modality), arguments, modality,
                 f"columns {column} ({modality}) and {label}")


def _module(modality: str) -> str:
    return next(name for name, cls in members(family("data")).items()
                if vars(cls).get("labelled") == modality)


def _of_folder(source: str, folder: Path) -> Guess:
    inner = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    suffixes = Counter(path.suffix.lower() for of in inner for path in of.iterdir() if path.is_file())
    for modality, known in _SUFFIXES.items():
        if sum(suffixes[suffix] for suffix in known):
            return Guess(_module(modality), {"train": source}, modality,
                         f"{len(inner)} folders of {modality} files, which are the classes")
    raise InputError(f"{source} is no folder of class folders with texts, images or recordings",
                     "name a table (.csv, .jsonl, .parquet), or write the file by hand: ftlab list data")


def _column(columns: dict[str, list[Any]], names: Sequence[str]) -> str | None:
    by_name = {str(name).lower(): name for name in columns}
    return next((by_name[name] for name in names if name in by_name), None)


def _length(values: Sequence[Any]) -> float:
    texts = [len(str(value)) for value in values[:100]]
    return sum(texts) / max(1, len(texts))


def _modality(values: Sequence[str]) -> str:
    for modality in ("image", "audio"):
        if values and all(value.lower().endswith(_SUFFIXES[modality]) for value in values):
            return modality
    return "text"


def _is_quantity(values: Sequence[Any]) -> bool:
    try:
        numbers = {float(value) for value in values if value not in (None, "")}
    except (TypeError, ValueError):
        return False
    return len(numbers) > _MOST_CLASSES or any(number != int(number) for number in numbers)


def techniques_of(names: Sequence[str]) -> dict[str, str]:
    """Classes of techniques by the names that they get in the file.

    Raises:
        InputError: there is no such technique.
    """
    base = family("techniques")
    known = {name.lower(): name for name in members(base)}
    classes = [find(base, known.get(name.lower(), name), (), "techniques").__name__ for name in names]
    return {re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", name).lower(): name for name in classes}


def written(name: str, guessed: Guess, backbone: str, techniques: dict[str, str], length: str) -> str:
    """The study file, with a comment where a person would change something.

    Args:
        name: of the study.
        guessed: how the data are read.
        backbone: a hub's id, a folder, `package:NAME/PATH`, or a name of torchvision's.
        techniques: classes by name.
        length: the lines of `seeds` and `trainer`.
    """
    import torchvision

    ours = backbone in torchvision.models.list_models(module=torchvision.models)
    network = (f"{{class_path: Torchvision, init_args: {{name: {backbone}}}}}" if ours else
               f"{{class_path: HuggingFace, init_args: {{source: {json.dumps(backbone)}}}}}")
    arguments = "\n".join(f"      {key}: {json.dumps(value)}" for key, value in guessed.arguments.items())
    lines = "\n".join(f"  {key}: {value}" for key, value in techniques.items())
    baseline = next((key for key, value in techniques.items() if value == "FullFineTuning"), "")
    return f"""\
# ftlab run {name}.yaml
#   ftlab check {name}.yaml      says whether it would run
#   ftlab run {name}.yaml --dry-run    says how long, and whether it fits into memory
name: {name}
question: How much of full fine-tuning's score do cheaper techniques keep, and at what cost?
backbones:
  backbone: {network}
datasets:
  data:                              # read by its {guessed.reason}
    class_path: {guessed.module}     # ftlab list {guessed.module} shows all that it takes
    init_args:
{arguments}
      # split: {{validation: 0.1, test: 0.2}}   taken out of train where you have no files of them
techniques:                          # ftlab list techniques; arguments: {{class_path: LoRA, init_args: {{rank: 4}}}}
{lines}
{f"baseline: {baseline}" if baseline else "# baseline: NAME"}
{length}
"""


def length_lines(seeds: int, seconds: float | None) -> str:
    """`seeds` and `trainer`, with a limit of each run where there is one."""
    limit = f", max_seconds: {seconds:.0f}" if seconds is not None else ""
    return (f"seeds: {list(range(seeds))}                    # a difference is claimed with three or more\n"
            f"trainer: {{max_epochs: 3{limit}}}       # ftlab list trainer")


def fitting(seconds: float, one_seed: float, cells: int) -> tuple[int, float | None]:
    """How many seeds fit into a time, three to ten, and the limit of a run where three do not.

    Args:
        seconds: that all runs may take.
        one_seed: seconds of all cells with one seed.
        cells: of the study.
    """
    seeds = min(10, max(3, int(seconds // max(one_seed, 1e-9))))
    return seeds, None if one_seed * 3 <= seconds else max(1.0, seconds / (3 * cells))


def of_length(name: str, guessed: Guess, backbone: str, techniques: dict[str, str],
              minutes: float) -> tuple[str, list[str]]:
    """The study file whose runs take so many minutes here, and notes.

    Some steps of each cell are timed, as `--dry-run` does.

    Raises:
        InputError: data or a combination cannot be used. Weights may be lacking.
    """
    def text(seeds: int, seconds: float | None) -> str:
        return written(name, guessed, backbone, techniques, length_lines(seeds, seconds))

    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / f"{name}.yaml"
        draft.write_text(text(3, None))
        study = load_study(draft)
        try:
            foreseen = estimate(study)
        except InputError as error:
            return text(3, None), [f"not timed: {error.what}", *([error.mend] if error.mend else [])]
    untimed = [here.untimed for here in foreseen.foreseen.values() if here.untimed]
    if untimed:
        return text(3, None), [f"not timed: {untimed[0]}"]
    one_seed = foreseen.total_seconds / len(study.seeds)
    seeds, limit = fitting(60 * minutes, one_seed, len(study.cells))
    notes = [f"{counted(len(study.cells) * seeds, 'run')}, about {clock(one_seed * seeds)}"]
    if limit is not None:
        notes = [f"three seeds would take {clock(3 * one_seed)}: each run ends after {clock(limit)} (max_seconds)"]
    return text(seeds, limit), notes
