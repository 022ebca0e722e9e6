"""A study that was checked and has not changed is answered from the cache, anything else is checked."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

from ftlab.errors import InputError
from ftlab.studies import plan as planning
from ftlab.studies.check_study import check_study
from ftlab.studies.files_read import files_read
from ftlab.studies.study import Study, load_study
from ftlab.studies.yaml_file import Place

Write = Callable[..., Path]
HEAVY = ("torch", "lightning", "torchmetrics", "transformers", "mlflow", "sqlalchemy")
CHECK = """
import sys
from ftlab.cli import app
app(["check", sys.argv[1]], standalone_mode=False)
print(*sorted(set(sys.argv[2:]) & set(sys.modules)))
"""
MISSPELT = """
import sys
from ftlab.errors import InputError
from ftlab.studies.study import load_study
try:
    load_study(sys.argv[1])
except InputError as error:
    print(error.what, error.mend, sep="\\n")
print(*sorted(set(sys.argv[2:]) & set(sys.modules)))
"""


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Study]:
    """The studies that were really checked; the cache is empty."""
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    studies: list[Study] = []
    plan = planning.plan

    def noting(study: Study, objectives: Mapping[str, Place] | None = None) -> planning.Plan:
        studies.append(study)
        return plan(study, objectives)

    monkeypatch.setattr(planning, "plan", noting)
    return studies


def source(study: Study) -> Path:
    return Path(study.cells[0].data["init_args"]["train"])


def age(path: Path) -> None:
    """Let all files be older than the check that follows."""
    for file in (path, *path.rglob("*")):
        os.utime(file, (1e9, 1e9))


def run(program: str, path: Path) -> list[str]:
    return subprocess.run([sys.executable, "-c", program, str(path), *HEAVY], check=True,
                          capture_output=True, text=True).stdout.splitlines()


def test_a_second_check_imports_nothing_heavy(write: Write) -> None:
    path = write()
    age(path.parent)
    first, second = run(CHECK, path), run(CHECK, path)
    assert first[0] == f"{path}: ok, 2 cells, 4 runs"
    assert first[-1] != ""
    assert second == [*first[:-1], ""]


def test_a_misspelt_argument_is_refused_by_the_same_words_without_imports(write: Write) -> None:
    load_study(write())
    nested = {"class_path": "Classification", "init_args": {"loss": {
        "class_path": "Focal", "init_args": {"gama": 2.0}}}}
    data = load_study(write()).cells[0].data["init_args"]["train"]
    for changes, what in (
        ({"techniques": {"lora": {"class_path": "LoRA", "init_args": {"rnak": 4}}}},
         "LoRA has no argument 'rnak'"),
        ({"datasets": {"reviews": {"class_path": "TextClassification", "init_args": {
            "train": data, "task": nested}}}}, "Focal has no argument 'gama'"),
    ):
        path = write(**changes)
        with pytest.raises(InputError, match=what) as refused:
            load_study(path)
        assert run(MISSPELT, path) == [refused.value.what, refused.value.mend, ""]


def test_what_has_not_changed_is_not_checked_again(write: Write, checks: list[Study]) -> None:
    study = load_study(write())
    age(source(study))
    assert check_study(study) == check_study(study)
    assert len(checks) == 1
    check_study(study.with_shortcuts(False))
    check_study(load_study(write(select_by="val/loss")))
    assert len(checks) == 3


def test_a_changed_file_is_read_again(write: Write, checks: list[Study], tmp_path: Path,
                                      reviews: Path, tiny_bert: Path) -> None:
    data, model = tmp_path / "reviews.csv", tmp_path / "model"
    shutil.copy(reviews, data)
    shutil.copytree(tiny_bert, model)
    study = load_study(write(
        datasets={"reviews": {"class_path": "TextClassification", "init_args": {
            "train": str(data), "max_length": 32}}},
        backbones={"bert": {"class_path": "HuggingFace", "init_args": {"source": str(model)}}}))
    for change in (lambda: data.write_text(data.read_text() + "one more,good\n"),
                   lambda: (model / "tokenizer.json").write_bytes(
                       (model / "tokenizer.json").read_bytes() + b"\n"),
                   lambda: (model / "added_tokens.json").write_text("{}")):
        age(model)
        age(data)
        before = len(checks)
        check_study(study)
        check_study(study)
        assert len(checks) == before + 1
        change()
        check_study(study)
        assert len(checks) == before + 2
    data.unlink()
    for _ in range(2):
        with pytest.raises(InputError, match="no such file"):
            check_study(study)


def test_a_folder_that_gains_a_file_is_read_again(
        write: Write, checks: list[Study], tmp_path: Path, shapes: Path, tiny_resnet: Path) -> None:
    folder = tmp_path / "shapes"
    shutil.copytree(shapes, folder)
    study = load_study(write(
        datasets={"shapes": {"class_path": "ImageClassification", "init_args": {
            "train": str(folder), "image_size": 32}}},
        backbones={"resnet": {"class_path": "HuggingFace", "init_args": {
            "source": str(tiny_resnet)}}}))
    age(folder)
    check_study(study)
    check_study(study)
    assert len(checks) == 1
    label = next(path for path in folder.iterdir() if path.is_dir())
    Image.new("RGB", (32, 32), "red").save(label / "another.png")
    check_study(study)
    assert len(checks) == 2


def test_a_file_that_a_table_names_elsewhere_is_watched(
        write: Write, checks: list[Study], tmp_path: Path, tiny_resnet: Path) -> None:
    pictures, tables = tmp_path / "pictures", tmp_path / "tables"
    pictures.mkdir()
    tables.mkdir()
    lines = ["image,label"]
    for number in range(24):
        image = Image.new("RGB", (32, 32), (number * 10, 255 * (number % 2), 0))
        image.save(pictures / f"{number}.png")
        lines.append(f"../pictures/{number}.png,{number % 2}")
    (tables / "images.csv").write_text("\n".join(lines))
    study = load_study(write(
        datasets={"images": {"class_path": "ImageClassification", "init_args": {
            "train": str(tables / "images.csv"), "image_size": 32}}},
        backbones={"resnet": {"class_path": "HuggingFace", "init_args": {
            "source": str(tiny_resnet)}}}))
    age(tmp_path)
    check_study(study)
    check_study(study)
    assert len(checks) == 1
    (pictures / "7.png").unlink()
    with pytest.raises(InputError, match="no such image"):
        check_study(study)


def test_what_is_refused_or_allowed_is_never_remembered(write: Write, checks: list[Study]) -> None:
    deep = load_study(write(techniques={
        "deep": {"class_path": "PartialFineTuning", "init_args": {"last": 40}}}))
    age(source(deep))
    for _ in range(2):
        with pytest.raises(InputError, match="4 blocks"):
            check_study(deep)
    allowed = load_study(write(), allow=["json"])
    for _ in range(2):
        check_study(allowed)
    assert len(checks) == 4


def test_a_source_by_variable_is_where_the_variable_says(
        write: Write, checks: list[Study], reviews: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(reviews, tmp_path / reviews.name)
    age(tmp_path / reviews.name)
    age(reviews)
    monkeypatch.setenv("PLACE", str(reviews.parent))
    study = load_study(write(datasets={"reviews": {
        "class_path": "TextClassification",
        "init_args": {"train": "${PLACE}/" + reviews.name, "max_length": 32}}}))
    check_study(study)
    check_study(study)
    monkeypatch.setenv("PLACE", str(tmp_path))
    check_study(study)
    assert len(checks) == 2


def test_files_read__nothing_vouches_for_the_network_or_for_what_changed_meanwhile(
        tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("old")
    age(path)
    with files_read() as watch:
        path.read_text()
        (tmp_path / "missing").exists()
        with pytest.raises(FileNotFoundError):
            (tmp_path / "not there").read_text()
    assert watch.states() == {str(path): (3, 10**18), str(tmp_path / "not there"): None}
    with files_read() as watch:
        path.write_text("new")
        path.read_text()
    assert watch.states() is None
    with files_read() as watch, socket.socket() as asking:
        asking.settimeout(0.1)
        asking.connect_ex(("127.0.0.1", 9))
    assert watch.states() is None
