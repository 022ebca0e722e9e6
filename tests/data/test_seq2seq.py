"""Pairs of texts: labels, prefixes, what is cut and said."""

from collections.abc import Callable
from pathlib import Path

import pytest
from families import tokenizer

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.seq2seq import Seq2Seq, encode_targets
from ftlab.errors import Incompatible, InputError
from ftlab.tasks.sequence_to_sequence import SequenceToSequence

PAIRS = [("the good film", "a b"), ("plot", "the plot of a film was bad"), ("bad film", "c"),
         ("a b c of the plot and the film", "not good")]
END = 3


def table(folder: Path, pairs=PAIRS, header: str = "source,target") -> str:
    path = folder / "pairs.csv"
    path.write_text("\n".join([header, *(f"{a},{b}" for a, b in pairs)]) + "\n")
    return str(path)


def three_times(source: str, **settings) -> Seq2Seq:
    return Seq2Seq(source, source, source, **{"max_source_length": 16, "max_target_length": 16,
                                              "batch_size": 4} | settings)


def test_batch__has_sources_labels_and_texts(tmp_path: Path,
                                             backbone: Callable[..., HuggingFace]) -> None:
    t5 = backbone("t5")
    data = three_times(table(tmp_path))
    data.connect(t5, seed=0)
    batch = next(iter(data.test_dataloader()))
    words = tokenizer(decoder=False)
    for row, index in enumerate(batch["index"].tolist()):
        source, target = PAIRS[index]
        mask = batch["inputs"]["attention_mask"][row].bool()
        assert batch["inputs"]["input_ids"][row][mask].tolist() == words(source)["input_ids"]
        labels = batch["target"]["labels"][row]
        assert labels[labels >= 0].tolist() == words(target)["input_ids"]
        assert set(labels[labels < 0].tolist()) <= {-100}
        assert batch["target"]["text"][row] == target
    assert not any("cut" in note for note in data.notes)
    loss = data.task.loss(t5.build(data.task).eval()(batch), batch)
    assert loss.isfinite()


def test_prefix__is_before_every_source_and_counts(tmp_path: Path,
                                                   backbone: Callable[..., HuggingFace]) -> None:
    data = three_times(table(tmp_path), prefix="not very ", max_source_length=6)
    data.connect(backbone("t5"), seed=0)
    words = tokenizer(decoder=False)
    for (source, _), ids in zip(PAIRS, data._sources["test"], strict=True):
        whole = words(f"not very {source}")["input_ids"]
        assert ids == (whole if len(whole) <= 6 else [*whole[:5], END])
    assert "2 of 4 test sources were cut at max_source_length 6" in data.notes


def test_cut_targets__lose_their_end_and_are_said(tmp_path: Path,
                                                  backbone: Callable[..., HuggingFace]) -> None:
    data = three_times(table(tmp_path), max_target_length=5,
                       task=SequenceToSequence(max_new_tokens=3))
    data.connect(backbone("t5"), seed=0)
    for (_, text), target in zip(PAIRS, data._targets["train"], strict=True):
        assert target["text"] == text  # metrics read it whole
        assert (END in target["labels"]) == (len(text.split()) <= 3)
        assert len(target["labels"]) <= 5
    for split in ("train", "validation", "test"):
        assert (f"1 of 4 {split} targets were cut at max_target_length 5, and lost their end token"
                in data.notes)
    # of 3, 8, 2 and 3 tokens with the first: the end token needs no match
    for bound, longer in ((8, 0), (7, 1), (3, 1), (2, 3)):
        data = three_times(table(tmp_path), task=SequenceToSequence(max_new_tokens=bound))
        data.connect(backbone("t5"), seed=0)
        said = [note for note in data.notes if "test targets have more" in note]
        assert len(said) == (longer > 0)
        assert all(note.startswith(f"{longer} of 4 test targets") for note in said)
        assert not any("train targets have more" in note for note in data.notes)


def test_encode_targets__end_once() -> None:
    """A tokenizer that adds no end token would teach nothing to stop."""
    ends, open_ended = tokenizer(decoder=False), tokenizer(decoder=True)
    assert encode_targets(ends, ["a b", "c"]) == ends(["a b", "c"])["input_ids"]
    assert encode_targets(open_ended, ["a b"]) == [[*open_ended("a b")["input_ids"], END]]
    assert encode_targets(ends, []) == []


def test_bad_input__is_refused(tmp_path: Path, backbone: Callable[..., HuggingFace]) -> None:
    with pytest.raises(InputError, match=r"pairs.csv, row 2: the target is missing"):
        three_times(table(tmp_path, [("a", "b"), ("c", "")])).load()
    with pytest.raises(InputError, match=r"pairs.csv, row 2: the target is missing"):
        three_times(table(tmp_path, [("a", "b"), ("c", " ")])).load()
    with pytest.raises(InputError, match="row 1: the source is empty"):
        three_times(table(tmp_path, [(" ", "b")])).load()
    source = table(tmp_path)
    with pytest.raises(InputError, match="no column 'summary'"):
        three_times(source, target="summary").load()
    for name in ("max_source_length", "max_target_length"):
        with pytest.raises(InputError, match=f"{name} 999 is above the"):
            three_times(source, **{name: 999}).connect(backbone("bart"), 0)
        with pytest.raises(ValueError, match=f"{name} must be at least 2, got 1"):
            Seq2Seq(source, **{name: 1})
    with pytest.raises(Incompatible, match="yields texts"):
        three_times(source).connect(backbone("vit"), 0)


def test_fingerprint__covers_sources_and_targets(tmp_path: Path) -> None:
    found = set()
    for pairs in (PAIRS, [*PAIRS[:3], ("x", "y")], [*PAIRS[:3], ("x", "z")]):
        data = three_times(table(tmp_path, pairs))
        data.load()
        found.add(data.fingerprint)
    assert len(found) == 3
