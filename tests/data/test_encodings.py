"""Texts in other encodings: refused with what they look like, read where `encoding:` says it."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from ftlab.data.audio_classification import AudioClassification
from ftlab.data.base import DataModule
from ftlab.data.causal_lm import CausalLM
from ftlab.data.object_detection import ObjectDetection
from ftlab.data.prediction_split import put
from ftlab.data.seq2seq import Seq2Seq
from ftlab.data.speech_recognition import SpeechRecognition
from ftlab.data.text import TextClassification
from ftlab.data.token_classification import TokenClassification
from ftlab.data.utf8 import Cleaner, check_encoding, decoded, reading
from ftlab.errors import InputError
from ftlab.studies.discover import members
from ftlab.tasks.tagging import Tagging

GERMAN = ["Das Gerät läuft", "schöne Grüße", "Übung macht den Meister", "nichts", "für „alle“ 5 €"]
OTHERS = {"cp1250": ["Zażółć gęślą jaźń", "słaby"], "cp1251": ["Очень хороший фильм", "Плохой"],
          "gb18030": ["这个产品非常好", "质量太差了"], "shift_jis": ["この映画はとても", "品質が悪い"],
          "mac_roman": GERMAN, "cp850": GERMAN[:4]}


def texts(count: int = 40) -> list[str]:
    return [f"{GERMAN[i % 5]} {i}" for i in range(count)]


def table(folder: Path, encoding: str, words: list[str] = GERMAN, name: str = "t.csv") -> str:
    rows = [f"{words[i % len(words)]} {i};{('gut', 'mäßig' if words is GERMAN else 'b')[i % 2]}"
            for i in range(40)]
    path = folder / name
    path.write_bytes("\n".join(["text;label", *rows]).encode(encoding))
    return str(path)


def seen(data: DataModule) -> list[str]:
    """All inputs, whatever their split."""
    data.load()
    return sorted(text for part in data.splits.values() for text in part.inputs)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_table__is_refused_by_name_and_read_as_it_says(tmp_path: Path, encoding: str) -> None:
    path = table(tmp_path, encoding)
    with pytest.raises(InputError) as error:
        TextClassification(path).load()
    assert f"set encoding: {encoding}" in error.value.mend and "t.csv" in error.value.what
    data = TextClassification(path, encoding=encoding)
    assert seen(data) == sorted(texts())
    assert data.task.names == ["gut", "mäßig"] and not any("UTF-8" in n for n in data.notes)


@pytest.mark.parametrize("encoding", OTHERS)
def test_table__of_another_script_is_not_called_western(tmp_path: Path, encoding: str) -> None:
    path = table(tmp_path, encoding, OTHERS[encoding])
    with pytest.raises(InputError, match="rows are not UTF-8") as error:
        TextClassification(path).load()
    assert "looks like" not in error.value.mend and "encoding:" in error.value.mend
    assert seen(TextClassification(path, encoding=encoding)) == sorted(
        f"{OTHERS[encoding][i % len(OTHERS[encoding])]} {i}" for i in range(40))


@pytest.mark.parametrize("encoding", [None, "utf-8", "UTF8", "utf-8-sig"])
@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig"])
def test_utf8__with_or_without_mark_and_argument_is_one(tmp_path, encoding, mark) -> None:
    data = TextClassification(table(tmp_path, mark), encoding=encoding)
    assert seen(data) == sorted(texts())
    # as it was before there was an argument
    assert data.fingerprint == FINGERPRINT


FINGERPRINT = "6ede87c731fb49fdf42258765b156acea5b4dc55c3da7cdf6575d468ebaa67cc"


def test_encoding__that_is_not_the_files(tmp_path: Path) -> None:
    path = table(tmp_path, "utf-8")
    with pytest.raises(InputError, match=r"t\.csv is UTF-8, where encoding says cp1252"):
        TextClassification(path, encoding="cp1252").load()
    with pytest.raises(InputError, match=r"t\.csv, line 2: not ascii"):
        TextClassification(table(tmp_path, "cp1252"), encoding="ascii").load()
    for wrong in ("cp9999", "base64", "rot13", ""):
        with pytest.raises(ValueError, match="encoding must be a name that Python knows"):
            TextClassification(path, encoding=wrong)
    assert check_encoding("windows-1252") == "cp1252"


def test_encoding__holds_while_a_module_reads(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), reading("cp1252"):
        assert decoded(b"\xfc", "") == "ü"
        raise RuntimeError
    assert decoded(b"\xfc", "") == "\udcfc"


@pytest.mark.parametrize(("rows", "wrong", "refused"), [
    (2, 1, False), (999, 2, True), (1000, 1, False), (2000, 2, False), (2000, 3, True), (1, 2, True)])
def test_stray_bytes__one_or_one_in_a_thousand_rows(rows: int, wrong: int, refused: bool) -> None:
    cleaner = Cleaner()
    for i in range(rows):
        bad = "\udce9" * (wrong if rows == 1 else 1)
        cleaner((f"text{bad if i < wrong else ''}", "label"))
    if refused:
        with pytest.raises(InputError, match=rf"not UTF-8 \({wrong} bytes, number 1 first\)"):
            cleaner.replaced("rows", "t.csv")
    else:
        assert cleaner.replaced("rows", "t.csv") == wrong


def test_damage__among_utf8_is_told_from_another_encoding() -> None:
    cleaner = Cleaner()
    for text in ("schön", "gr\udcf6\udcdfe", "für"):
        cleaner(text)
    with pytest.raises(InputError, match="number 2 first") as error:
        cleaner.replaced("texts", "folder")
    assert error.value.mend == "other texts are UTF-8: mend these, or remove them"


def test_stray_byte__in_a_label_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [f"a {i},{'good' if i % 2 else 'bad'}" for i in range(40)]
    path.write_bytes("\n".join(["text,label", *rows]).encode().replace(b"good", b"g\xf6od", 1))
    with pytest.raises(InputError, match="t:2: label 'g\ufffdod' has bytes in it that could not be read"):
        TextClassification(str(path)).load()


def test_escapes_of_json__are_no_bytes() -> None:
    cleaner = Cleaner()
    assert [cleaner(text) for text in ("\ud83d a", "\ud83d b")] == ["\ufffd a", "\ufffd b"]
    assert cleaner.replaced("rows", "t.jsonl") == 2


# every data module


def folder_of_texts(folder: Path) -> TextClassification:
    for i, text in enumerate(texts()):
        path = folder / "texts" / ("pos", "neg")[i % 2] / f"{i}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("cp1252"))
    return TextClassification(str(folder / "texts"), encoding="cp1252")


def pairs(folder: Path) -> Seq2Seq:
    return Seq2Seq(table(folder, "cp1252"), source="text", target="label", encoding="cp1252")


def prompts(folder: Path) -> CausalLM:
    return CausalLM(table(folder, "cp1252"), prompt="{text}", response="{label}", encoding="cp1252")


def paragraphs(folder: Path) -> CausalLM:
    (folder / "t.txt").write_bytes("\n\n".join(texts()).encode("cp1252"))
    return CausalLM(str(folder / "t.txt"), prompt=None, response="{text}", encoding="cp1252")


def sentences(folder: Path) -> TokenClassification:
    (folder / "t.conll").write_bytes(
        "\n\n".join("\n".join(f"{word}\tß" for word in text.split()) + f"\n{i}\tZahl"
                    for i, text in enumerate(texts())).encode("cp1252"))
    return TokenClassification(str(folder / "t.conll"), task=Tagging("none"), encoding="cp1252")


def rows_of_words(folder: Path) -> TokenClassification:
    rows = [json.dumps({"tokens": text.split(), "tags": ["ß", *["O"] * (len(text.split()) - 1)]},
                       ensure_ascii=False) for text in texts()]
    (folder / "t.jsonl").write_bytes("\n".join(rows).encode("cp1252"))
    return TokenClassification(str(folder / "t.jsonl"), task=Tagging("none"), encoding="cp1252")


def recordings(folder: Path, transcripts: bool) -> None:
    for i in range(20):
        soundfile.write(folder / f"{i}.wav", [0.1] * 800, 8000)
        if transcripts:
            (folder / f"{i}.txt").write_bytes(f"für {i}".encode("cp1252"))
    (folder / "t.csv").write_bytes("\n".join(["audio,label", *(
        f"{i}.wav,{('für', 'wider')[i % 2]}" for i in range(20))]).encode("cp1252"))


def sounds(folder: Path) -> AudioClassification:
    recordings(folder, False)
    return AudioClassification(str(folder / "t.csv"), encoding="cp1252")


def spoken(folder: Path) -> SpeechRecognition:
    recordings(folder, True)
    return SpeechRecognition(str(folder), encoding="cp1252")


MAKERS = [folder_of_texts, pairs, prompts, paragraphs, sentences, rows_of_words, sounds, spoken]


@pytest.mark.parametrize("make", MAKERS)
def test_modules__read_every_kind_of_source_in_it(tmp_path: Path, make: Callable) -> None:
    data = make(tmp_path)
    data.load()
    read = json.dumps([[part.inputs if isinstance(part.inputs[0], str | list) else [], part.labels]
                       for part in data.splits.values()], ensure_ascii=False)
    assert "\ufffd" not in read and any(word in read for word in ("ß", "ü"))
    data = make(tmp_path)
    data.encoding = None  # as without the argument
    with pytest.raises(InputError, match=r"not UTF-8") as error:
        data.load()
    assert "cp1252" in error.value.mend


def test_every_module__has_the_argument() -> None:
    for name, cls in members(DataModule).items():
        if "encoding" not in inspect.signature(cls).parameters:
            assert cls.__name__ == "SemanticSegmentation"  # which reads no text
            continue
        built: Any = cls("unread", encoding="cp1252")
        assert built.encoding == "cp1252", name


def test_boxes__lists_of_images(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_bytes("größe\n".encode("cp1252"))
    with pytest.raises(InputError, match="it is not UTF-8") as error:
        ObjectDetection(str(tmp_path)).load()
    assert "cp1252" in error.value.mend
    with pytest.raises(InputError, match="größe has no annotation"):
        ObjectDetection(str(tmp_path), encoding="cp1252").load()


def test_predict__reads_with_the_runs_encoding(tmp_path: Path) -> None:
    data = TextClassification(table(tmp_path, "cp1252"), encoding="cp1252")
    data.load()
    (tmp_path / "new.csv").write_bytes("text\nfür Müller\n".encode("cp1252"))
    assert put(data, str(tmp_path / "new.csv")) == [False]
    assert data.splits["test"].inputs == ["für Müller"]
    assert all(put(data, table(tmp_path, "cp1252", name="labelled.csv")))
    assert data.splits["test"].inputs == texts()
    plain = TextClassification(table(tmp_path, "utf-8"))
    plain.load()
    with pytest.raises(InputError, match="it is not UTF-8"):
        put(plain, str(tmp_path / "new.csv"))
