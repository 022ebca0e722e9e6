"""Streams beside the training examples, columns of examples, and batches composed as wholes."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matrix import WORLDS, make_world

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.batches import SplitDataset, pick
from ftlab.data.causal_lm import CausalLM
from ftlab.data.examples import Stream
from ftlab.data.sampling import Balanced, Natural, PKSampling
from ftlab.data.streams import StreamBatches
from ftlab.data.text import TextClassification
from ftlab.data.text_augment import TextAugment
from ftlab.data.train_batches import set_epoch
from ftlab.errors import InputError
from ftlab.studies.discover import family, members
from ftlab.techniques.lora import LoRA
from ftlab.techniques.mcc import MCC
from ftlab.techniques.replay import Replay
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("name", WORLDS)
def test_stream__comes_with_each_batch(name: str, labelled: bool,
                                       request: pytest.FixtureRequest) -> None:
    backbone, data = make_world(name, request.getfixturevalue)()
    data.sources["beside.more"] = data.sources["train"]
    data.beside = {"more": Stream(str(data.sources["train"]), labelled)}
    data.load()
    data.connect(backbone, seed=0)
    assert "beside" not in next(iter(data.train_dataloader()))
    data = data.with_streams(["more"])
    assert "beside.more" not in data.measured and "beside.more" in data.needed(whole=False)
    batches = list(data.train_dataloader())
    seen = [int(i) for batch in batches for i in batch["beside"]["more"]["index"]]
    count = len(data.splits["beside.more"])
    assert sorted(seen[:count]) == list(range(count)) if len(seen) >= count else (
        len({*seen}) == len(seen))
    assert all(("target" in batch["beside"]["more"]) == labelled for batch in batches)
    model = backbone.build(data.task)
    if labelled:
        batch = batches[0]["beside"]["more"]
        assert torch.isfinite(data.task.loss(model(batch), batch))
    assert "beside" not in pick(batches[0], [0])


class Numbers(SplitDataset):
    def input(self, index: int) -> int:
        return index


@pytest.mark.parametrize("world", [1, 2])
def test_positions__are_one_order_after_another_over_epochs_and_ranks(world: int) -> None:
    def drawn(epochs: int, steps: int) -> list[list[int]]:
        ranks = [StreamBatches(Numbers([0] * 7, 0), lambda batches: None,  # type: ignore[arg-type,return-value]  # not asked
                               4, False, "a", 5, rank, world) for rank in range(world)]
        return [[position for part in parts for position in part]
                for epoch in range(epochs)
                for parts in zip(*(one.positions(epoch, steps) for one in ranks), strict=True)]

    batches = drawn(3, 5)
    assert [len(batch) for batch in batches] == [4] * 15
    if world == 1:
        flat = [position for batch in batches for position in batch]
        whole = [sorted(flat[begin:begin + 7]) for begin in range(0, 56, 7)]
        assert whole == [list(range(7))] * 8
        assert flat[:7] != flat[7:14]
    assert drawn(3, 5) == batches
    # the same examples in the same order, however long an epoch is
    assert [set(batch) for batch in drawn(5, 3)] == [set(batch) for batch in batches]


def test_positions__are_neither_those_of_train_nor_of_another_stream() -> None:
    def order(name: str) -> list[list[int]]:
        stream = StreamBatches(Numbers([0] * 50, 0), lambda batches: None,  # type: ignore[arg-type,return-value]  # not asked
                               50, False, name, 5)
        return [sorted(range(50), key=batch.__getitem__) for batch in stream.positions(0, 3)]

    own = [np.argsort(Natural().order([None] * 50, 5, epoch)).tolist() for epoch in range(3)]
    drawn = [order("a"), order("b"), own]
    assert len({tuple(one) for rounds in drawn for one in rounds}) == 9


def test_augmentation__is_another_one_each_time_an_example_comes() -> None:
    seen: list[tuple[int, int]] = []
    rows = Numbers([0] * 3, 0)

    def loader(batches: Sequence[list[int]]) -> Any:
        for batch in batches:
            seen.extend((position, rows.epoch) for position in batch)
            yield {"target": 0}

    stream = StreamBatches(rows, loader, 3, False, "a", 5)  # type: ignore[arg-type]  # as a loader is
    list(stream.of_epoch(0, 4))
    list(stream.of_epoch(1, 4))
    assert len({*seen}) == len(seen) == 24


def test_overlap_with_what_is_measured_is_said(reviews: Path) -> None:
    data = TextClassification(str(reviews), beside={"memory": Stream(str(reviews), labelled=True)})
    data.load()
    count = len(data.splits["test"])
    assert f"{count} of {count} test inputs are also in beside.memory (exact duplicates)" in data.notes


def test_stream__may_be_written_as_its_source(reviews: Path) -> None:
    data = TextClassification(str(reviews), beside={"target": str(reviews)})
    assert data.beside == {"target": Stream(str(reviews))}
    with pytest.raises(ValueError, match="columns: 'a/b' is not a name"):
        TextClassification(str(reviews), columns={"a/b": "who"})


@pytest.mark.parametrize("labelled", [False, True])
def test_views__of_a_stream_come_from_the_cache_of_its_own_rows(
    labelled: bool, tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    results = []
    for plain in (False, True):
        folder = tmp_path / f"{plain}"
        folder.mkdir()
        data = TextClassification(
            str(reviews), max_length=16, batch_size=8, augment=TextAugment(0.5, views=2),
            beside={"more": Stream(str(reviews), labelled, batch_size=4)})
        technique = (Replay if labelled else MCC)(LoRA(lr=1e-2, last=1), stream="more")
        run = Run(HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0), data, technique,
                  TrainerSettings(max_epochs=3), 0, "val/loss", folder, plain=plain)
        events: list[Any] = []
        results.append(execute(run, events.append)["test/loss"])
        assert plain or any("prefix" in json.dumps(event) for event in events
                            if event["event"] == "shortcut")
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_unlabelled_stream__may_lack_labels(reviews: Path, tmp_path: Path,
                                            tiny_bert: Path) -> None:
    bare = tmp_path / "bare.csv"
    bare.write_text("text,label\na fine film,nobody knows\na bad film,\n")
    data = TextClassification(str(reviews), max_length=16, beside={"target": Stream(str(bare))})
    data.load()
    data.connect(HuggingFace(str(tiny_bert), pooling="mean"), seed=0)
    assert data.describe()["beside.target"] == {"examples": 2, "classes": {}}
    batch = next(iter(data.with_streams(["target"]).train_dataloader()))
    assert set(batch["beside"]["target"]) == {"inputs", "index", "stream"}
    bare.write_text("text,label\na fine film,nobody knows\n")
    with pytest.raises(InputError, match=r"beside\.target split of .*bare\.csv, bare:1"):
        TextClassification(str(reviews), beside={"target": Stream(str(bare), True)}).load()


def test_fingerprint__follows_a_stream_and_a_column(tmp_path: Path) -> None:
    rows = ["text,label,who", *(f"text {i},{i % 2},{'ab'[i % 3 == 0]}" for i in range(30))]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    (tmp_path / "b.csv").write_text("\n".join(rows[:20]))

    def fingerprint(**arguments: object) -> str:
        data = TextClassification(str(tmp_path / "a.csv"), **arguments)  # type: ignore[arg-type]  # as given
        data.load()
        return data.fingerprint

    plain = fingerprint()
    assert fingerprint(beside={}, columns={}) == plain
    assert fingerprint(beside={"x": Stream(str(tmp_path / "b.csv"))}) != plain
    grouped = fingerprint(columns={"site": "who"})
    assert grouped != plain
    (tmp_path / "a.csv").write_text("\n".join(rows).replace("text 1,1,a", "text 1,1,b"))
    assert fingerprint() == plain
    assert fingerprint(columns={"site": "who"}) != grouped


@pytest.mark.parametrize("cls", members(family("data")).values())
def test_every_data_module_takes_them(cls: type) -> None:
    parameters = inspect.signature(cls).parameters
    assert parameters["beside"].default is None and parameters["columns"].default is None


@pytest.fixture
def grouped(tmp_path: Path) -> Path:
    rows = [f"text number {i},{'abc'[i % 3]},{'big' if i % 8 else 'small'}" for i in range(96)]
    path = tmp_path / "grouped.csv"
    path.write_text("\n".join(["text,label,who", *rows]))
    return path


def test_columns__follow_their_examples(grouped: Path, tmp_path: Path) -> None:
    data = TextClassification(str(grouped), columns={"site": "who"})
    data.load()
    for examples in data.splits.values():
        for text, who in zip(examples.inputs, examples.columns["site"], strict=True):
            assert who == ("big" if int(text.split()[-1]) % 8 else "small")
    folder = tmp_path / "files"
    for number in range(40):
        path = folder / "ab"[number % 2] / f"{'xy'[number % 4 > 1]}_{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text {number}")
    data = TextClassification(str(folder), columns={"client": r"/([xy])_"})
    data.load()
    train = data.splits["train"]
    assert train.columns["client"] == [name.split("/")[1][0] for name in train.ids]


@pytest.mark.parametrize("columns, words", [
    ({"site": "whom"}, r"no column 'whom'"),
    ({"site": 2}, r"mix name and number"),
])
def test_columns__of_a_table_are_checked(grouped: Path, columns: dict[str, str | int],
                                         words: str) -> None:
    with pytest.raises(InputError, match=words):
        TextClassification(str(grouped), columns=columns).load()


@pytest.mark.parametrize("column, words", [
    (0, "is not a table and has no column 0"), ("(", "is not a regular expression"),
    ("x", "has 0 groups"), ("(z)_", "does not fit columns"),
])
def test_columns__of_a_folder_are_checked(tmp_path: Path, column: str | int, words: str) -> None:
    for number in range(20):
        path = tmp_path / "ab"[number % 2] / f"x_{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"text {number}")
    with pytest.raises(InputError, match=words):
        TextClassification(str(tmp_path), columns={"site": column}).load()


def test_columns__of_plain_text_are_refused() -> None:
    with pytest.raises(ValueError, match="whose pieces train joined to those of other texts"):
        CausalLM("corpus.jsonl", prompt=None, chat=False, columns={"site": "who"})


def test_columns__empty_cell_is_named(tmp_path: Path) -> None:
    rows = [f"text {i},{i % 2},{'' if i == 3 else 'a'}" for i in range(30)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label,who", *rows]))
    with pytest.raises(InputError, match=r"row 4: column 'who' is empty"):
        TextClassification(str(tmp_path / "a.csv"), columns={"site": "who"}).load()


def connected(path: Path, bert: Path, **arguments: object) -> TextClassification:
    data = TextClassification(str(path), max_length=8, **arguments)  # type: ignore[arg-type]  # as given
    data.connect(HuggingFace(str(bert), pooling="mean"), seed=0)
    return data


def test_balanced__over_a_column(grouped: Path, tiny_bert: Path) -> None:
    data = connected(grouped, tiny_bert, columns={"site": "who"}, sampling=Balanced("site"))
    loader, counts = data.train_dataloader(), Counter[str]()
    for epoch in range(20):
        set_epoch(loader, epoch)
        for batch in loader:
            counts.update(data.splits["train"].columns["site"][i] for i in batch["index"])
    assert counts["small"] / counts.total() == pytest.approx(0.5, abs=0.05)
    with pytest.raises(InputError, match=r"Balanced: the data set has no column 'sex' in columns"):
        connected(grouped, tiny_bert, columns={"site": "who"}, sampling=Balanced("sex"))


def test_pk__batches_have_p_classes_of_k_examples(grouped: Path, tiny_bert: Path) -> None:
    data = connected(grouped, tiny_bert, sampling=PKSampling(2), batch_size=8)
    loader = data.train_dataloader()
    epochs = []
    for epoch in range(3):
        set_epoch(loader, epoch)
        batches = [batch["index"].tolist() for batch in loader]
        assert len(batches) == len(loader) == len(data.splits["train"]) // 8
        labels = data.splits["train"].labels
        for batch in batches:
            assert sorted(Counter(labels[i] for i in batch).values()) == [4, 4]
            assert len({*batch}) == 8
        epochs.append(batches)
    assert epochs[0] != epochs[1]
    few = PKSampling(2).plan([*"aaaaabbbbbbb"], 8, 0, 0)  # 5 and 7 of which 4 are in each batch
    assert all(len({*batch}) == 8 for epoch in range(9)
               for batch in PKSampling(2).plan([*"aaaaabbbbbbb"] * 3, 8, 0, epoch)) and few
    scarce = PKSampling(2).plan([*"aabbbbbbbbbb"], 8, 0, 0)[0]
    assert sorted(Counter(i < 2 for i in scarce).values()) == [4, 4]
    set_epoch(loader, 1)
    assert [batch["index"].tolist() for batch in loader] == epochs[1]
    with pytest.raises(InputError, match="wants 4 classes in each batch"):
        next(iter(connected(grouped, tiny_bert, sampling=PKSampling(4)).train_dataloader()))
    with pytest.raises(InputError, match="batch_size 32 is not a multiple of classes 3"):
        next(iter(connected(grouped, tiny_bert, sampling=PKSampling(3)).train_dataloader()))
