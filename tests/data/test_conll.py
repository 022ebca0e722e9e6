"""CoNLL columns and tables of lists: what is read, and what is refused with which line."""

import random
from pathlib import Path

import pytest

from ftlab.data.conll import from_rows, read_conll
from ftlab.errors import InputError


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "corpus.conll"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("separator", [" ", "\t", "   "])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_read_conll__is_the_inverse_of_writing(separator: str, newline: str,
                                               tmp_path: Path) -> None:
    draw = random.Random(0)
    words = ["EU", "rejects", "call\u00a0s", "#", '"', "'s", "東京", "-"]
    sentences = [[(draw.choice(words), draw.choice(["O", "B-X"]))
                  for _ in range(draw.randint(1, 5))] for _ in range(20)]
    blocks = [newline.join(separator.join([w, "NNP", t]) for w, t in s) for s in sentences]
    path = write(tmp_path, (newline * 2).join(blocks) + newline)
    read, notes = read_conll(path, 0, -1)
    assert [list(zip(s.words, s.tags, strict=True)) for s in read] == sentences
    assert notes == []
    assert len({s.name for s in read}) == 20


def test_read_conll__skips_documents_and_names_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "-DOCSTART- -X- O\n\n\nEU B-ORG O\nruns O O\n \n"
                           "-DOCSTART- -X- O\nit O O")
    read, _ = read_conll(path, 0, 1)
    assert [(s.name, s.words) for s in read] == [("corpus:4", ["EU", "runs"]), ("corpus:8", ["it"])]
    assert read[0].tags == ["B-ORG", "O"]
    assert read[0].places == ["corpus.conll, line 4", "corpus.conll, line 5"]


def test_read_conll__counts_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    read, notes = read_conll(write(tmp_path, b"\xef\xbb\xbfcaf\xe9 O\ntea B-X\nno O\n"), 0, -1)
    assert read[0].words == ["caf\ufffd", "tea", "no"]
    assert notes == ["1 of 3 words in corpus.conll is not UTF-8; bytes replaced"]


@pytest.mark.parametrize("text", [
    "# sent_id = 1\n# text = EU runs\n1\tEU\tPROPN\n2\truns\tVERB\n\n# text = #\n1\t#\tSYM\n",
    "#\thttp://x\t[2009-10-17]\t-\n1\tEU\tPROPN\n2\truns\tVERB\n\n#\ty\n1\t#\tSYM\n",
])
def test_read_conll__comments_are_skipped_and_said(text: str, tmp_path: Path) -> None:
    read, notes = read_conll(write(tmp_path, text), 1, 2)
    assert [(s.words, s.tags) for s in read] == [(["EU", "runs"], ["PROPN", "VERB"]),
                                                 (["#"], ["SYM"])]
    [note] = notes
    count = 3 if "sent_id" in text else 2
    assert note.startswith(f"{count} lines in corpus.conll begin with #")


def test_read_conll__a_hash_with_the_columns_of_the_rest_is_a_word(tmp_path: Path) -> None:
    read, notes = read_conll(write(tmp_path, "# O\nEU B-ORG\n# O\n"), 0, 1)
    assert (read[0].words, notes) == (["#", "EU", "#"], [])


@pytest.mark.parametrize(("text", "says"), [
    ("EU NNP B-ORG\nruns O\n", "corpus.conll, line 2: 2 columns instead of 3"),
    ("EU\tNNP\tO\n\tVB\tO\n", "corpus.conll, line 2: the word is empty"),
    ("EU\tNNP\t\n", "corpus.conll, line 1: the tag is empty"),
    ("EU\nruns\n", "corpus.conll, line 1: word and tag are the same column"),
    ("\n\n-DOCSTART- O\n", "corpus.conll has no sentences"),
    ("", "has no sentences"),
])
def test_read_conll__refuses_with_the_line(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        read_conll(write(tmp_path, text), 0, -1)


@pytest.mark.parametrize("text", ["a O\rb B-X\r\rc O\r", "a O\nb B-X\n \t\nc O\n", "a\tO\nb\tB-X\n\t\nc\tO\n"],
                         ids=["carriage returns", "a blank line with blanks", "a row of empty cells"])
def test_read_conll__ends_sentences_at_lines_without_words(text: str, tmp_path: Path) -> None:
    sentences, _ = read_conll(write(tmp_path, text), 0, -1)
    assert [(each.words, each.tags) for each in sentences] == [(["a", "b"], ["O", "B-X"]), (["c"], ["O"])]


def test_read_conll__refuses_a_column_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 1: no column 3 for the tag") as error:
        read_conll(write(tmp_path, "EU NNP O\n"), 0, 3)
    assert error.value.mend == "the file's columns are 0 to 2"


def test_from_rows() -> None:
    (sentence,) = from_rows("a", "a.jsonl", [(["EU", "runs"], ["B-ORG", "O"])])
    assert (sentence.name, sentence.words, sentence.tags) == ("a:1", ["EU", "runs"], ["B-ORG", "O"])
    assert sentence.places == ["a.jsonl, row 1, word 1", "a.jsonl, row 1, word 2"]


@pytest.mark.parametrize(("row", "says"), [
    ((["EU"], ["O", "O"]), "a.jsonl, row 2: 1 words and 2 tags"),
    (([], []), "a.jsonl, row 2: 0 words and 0 tags"),
    (("EU runs", ["O"]), "row 2: the words are not a list of texts"),
    ((["EU"], None), "row 2: the tags are missing"),
    ((["EU"], [None]), "row 2, word 1: the tag is missing"),
    (([" "], ["O"]), "row 2, word 1: the word is empty"),
    ((["EU", None], ["O", "O"]), "row 2, word 2: the word is missing"),
    (([7], ["O"]), "row 2, word 1: 7 instead of a word"),
])
def test_from_rows__refuses_with_the_row(row: tuple, says: str) -> None:
    with pytest.raises(InputError, match=says):
        from_rows("a", "a.jsonl", [(["EU"], ["O"]), row])
