"""`ftlab init`: what is guessed of a source, and a file that checks as it was written."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import transformers as hf
from PIL import Image
from typer.testing import CliRunner

from ftlab.cli import app
from ftlab.errors import InputError
from ftlab.studies.first_study import fitting, guess, techniques_of
from ftlab.studies.study import load_study


def table(path: Path, header: list[str], rows: list[list[object]]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def test_guess__texts_and_classes_by_their_content(tmp_path: Path) -> None:
    rows: list[list[object]] = [[n, f"a long sentence number {n}", "good" if n % 2 else "bad"] for n in range(9)]
    guessed = guess(table(tmp_path / "a.csv", ["number", "body", "verdict"], rows))
    assert (guessed.module, guessed.arguments["text"], guessed.arguments["label"]) == (
        "TextClassification", "body", "verdict")
    assert "task" not in guessed.arguments


def test_guess__a_quantity_is_regression(tmp_path: Path) -> None:
    rows: list[list[object]] = [[f"text {n}", n / 7] for n in range(9)]
    assert guess(table(tmp_path / "a.csv", ["text", "score"], rows)).arguments["task"] == "Regression"


def test_guess__names_of_images(tmp_path: Path) -> None:
    guessed = guess(table(tmp_path / "a.csv", ["file", "label"], [["a.png", "x"], ["b.jpg", "y"]]))
    assert (guessed.module, guessed.arguments["image"]) == ("ImageClassification", "file")


@pytest.mark.parametrize(("suffix", "module"), [
    (".png", "ImageClassification"), (".txt", "TextClassification"), (".wav", "AudioClassification")])
def test_guess__class_folders(suffix: str, module: str, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"1{suffix}").write_bytes(b"")
    assert guess(str(tmp_path)).module == module


def test_guess__what_it_cannot_tell(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder of class folders"):
        guess(str(tmp_path))
    with pytest.raises(InputError, match="one column alone"):
        guess(table(tmp_path / "a.csv", ["text"], [["x"]]))


def test_techniques__by_any_case_and_refused() -> None:
    assert techniques_of(["lora", "FullFineTuning", "bitfit"]) == {
        "lora": "LoRA", "full_fine_tuning": "FullFineTuning", "bit_fit": "BitFit"}
    with pytest.raises(InputError, match="LoRAA"):
        techniques_of(["LoRAA"])


def test_time__seeds_where_there_is_room_and_a_limit_where_there_is_none() -> None:
    assert fitting(600, 100, 2) == (6, None)
    assert fitting(6000, 100, 2) == (10, None)
    assert fitting(150, 100, 2) == (3, 25.0)


def test_front_door__the_file_is_asked_for_written_and_checks(tmp_path: Path, tiny_bert: Path,
                                                            reviews: Path) -> None:
    path, longer = tmp_path / "mine.yaml", tmp_path / "longer"  # as many tokens as texts have by default
    shutil.copytree(tiny_bert, longer)
    config = hf.AutoConfig.from_pretrained(tiny_bert)
    config.max_position_embeddings = 128
    hf.AutoModel.from_config(config).save_pretrained(longer)
    asked = CliRunner().invoke(app, ["init", str(path)], input=f"{reviews}\n{longer}\nlora,LinearProbe\n5\n")
    assert asked.exit_code == 0, asked.output
    study = load_study(path)
    assert [cell.key.technique for cell in study.cells] == ["lora", "linear_probe"]
    assert len(study.seeds) == 10, asked.output  # a tiny network takes no time
    again = CliRunner().invoke(app, ["init", str(path)])
    assert isinstance(again.exception, InputError) and "is there already" in again.exception.what


def test_images__their_folder_and_a_network_of_torchvision(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for n in range(10):
            Image.new("RGB", (8, 8), (n, 0, 9)).save(tmp_path / "pets" / name / f"{n}.png")
    path = tmp_path / "pets.yaml"
    done = CliRunner().invoke(app, [
        "init", str(path), "--data", str(tmp_path / "pets"), "--backbone", "mobilenet_v3_small",
        "--techniques", "LinearProbe", "--minutes", "1"])
    assert done.exit_code == 0, done.output
    assert "not timed" in done.output  # its weights are not here
    assert json.dumps(str(tmp_path / "pets")) in path.read_text()
