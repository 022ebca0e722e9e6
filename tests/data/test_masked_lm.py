"""Masks over texts: what is drawn, when anew, and which texts a carved corpus has."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from masked import MASK, save_bert

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.masked_lm import MaskedLM
from ftlab.data.splits import Split, Subset
from ftlab.data.text import TextClassification
from ftlab.data.token_masking import Masking
from ftlab.errors import Incompatible, InputError
from ftlab.tasks.regression import Regression

SPECIAL = np.isin(np.arange(20), [0, 1, 2, 3, MASK])
WORDS = ["good", "bad", "film", "plot", "the", "of", "and", "very"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    rows = [f"{' '.join(draw.choice(WORDS, 6))},{number % 2}" for number in range(60)]
    path = tmp_path / "texts.csv"
    path.write_text("\n".join(["text,label", *rows]) + "\n")
    return path


@pytest.fixture
def bert(tmp_path: Path) -> HuggingFace:
    return HuggingFace(str(save_bert(tmp_path / "bert")))


def test_masking__shares_are_berts() -> None:
    masking, ids = Masking(), [2, *([4, 5, 6, 7, 8, 9, 10, 11] * 25), 3]
    becomes: Counter[str] = Counter()
    for number in range(200):
        masked, places = masking(ids, SPECIAL, MASK, number)
        assert len(places) == 30  # 15% of 200
        assert places == sorted(set(places))
        assert not {0, len(ids) - 1} & set(places), "special tokens are not named"
        changed = [at for at, (old, new) in enumerate(zip(ids, masked, strict=True)) if old != new]
        assert set(changed) <= set(places)
        for at in places:
            becomes["mask" if masked[at] == MASK else "same" if masked[at] == ids[at] else "other"] += 1
            assert not SPECIAL[masked[at]] or masked[at] == MASK
    total = sum(becomes.values())
    assert becomes["mask"] / total == pytest.approx(0.8, abs=0.02)
    # a random token is the same by chance in one case of fifteen
    assert becomes["same"] / total == pytest.approx(0.1 + 0.1 / 15, abs=0.015)
    assert becomes["other"] / total == pytest.approx(0.1 * 14 / 15, abs=0.015)


@pytest.mark.parametrize("tokens", [1, 2, 6])
def test_masking__names_one_token_at_least(tokens: int) -> None:
    _, places = Masking()([2, *range(4, 4 + tokens), 3], SPECIAL, MASK, 0)
    assert len(places) == 1


@pytest.mark.parametrize(("arguments", "says"), [
    ({"share": 0.0}, "share must be above 0"), ({"share": 1.0}, "share must be above 0"),
    ({"random": 0.6, "kept": 0.5}, "at most 1 together"), ({"kept": -0.1}, "0 or more")])
def test_masking__impossible(arguments: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Masking(**arguments)


def test_masks__are_drawn_anew_in_training_alone(table: Path, bert: HuggingFace) -> None:
    made = []
    for seed in (0, 0, 1):
        data = MaskedLM(str(table), max_length=16, batch_size=4)
        data.connect(bert, seed)
        made.append(data)
    first, same, other = (data.dataset("train", training=True) for data in made)
    assert [first[i].input for i in range(8)] == [same[i].input for i in range(8)]
    assert [first[i].input for i in range(8)] != [other[i].input for i in range(8)]
    earlier = [first[i].input for i in range(8)]
    first.set_epoch(1)
    assert [first[i].input for i in range(8)] != earlier
    fixed, fixed_other = (made[i].dataset("validation", training=False) for i in (0, 2))
    before = [fixed[i] for i in range(len(fixed))]
    fixed.set_epoch(1)
    assert [fixed[i].input for i in range(len(fixed))] == [row.input for row in before]
    assert [fixed_other[i].input for i in range(len(fixed))] == [row.input for row in before]
    tokens = bert.preprocessing.tokenizer
    for row, ids in zip(before, made[0]._tokens["validation"], strict=True):
        _, places = row.input
        assert row.target["labels"] == [ids[place] for place in places]
        assert row.target["text"] == " ".join(tokens.convert_ids_to_tokens(row.target["labels"]))


def test_batches__pad_places(table: Path, bert: HuggingFace) -> None:
    data = MaskedLM(str(table), max_length=16, masking=Masking(share=0.5))
    data.connect(bert, 0)
    data.splits["validation"] = data.splits["validation"].take([0, 1])
    data._tokens["validation"] = [[2, 4, 5, 6, 7, 8, 3], [2, 4, 3]]
    batch = next(iter(data.val_dataloader()))
    assert batch["inputs"]["places"].shape == (2, 3)
    assert batch["inputs"]["places"].tolist()[1] == [1, -1, -1]
    assert batch["target"]["labels"].tolist()[1] == [4, -100, -100]
    assert batch["inputs"]["attention_mask"].sum(dim=1).tolist() == [7, 3]


def test_long_texts__become_pieces_without_loss(tmp_path: Path, bert: HuggingFace) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}.txt").write_text(" ".join(WORDS * 2 + ["plot"] * number))
    (folder / "3.txt").write_text("unheard words alone")
    data = MaskedLM(str(folder), max_length=8)
    data.connect(bert, 0)
    names = {i: WORDS * 2 + ["plot"] * i for i in range(10) if i != 3}
    read: dict[str, list[str]] = {}
    for split in ("train", "validation", "test"):
        for place, ids in zip(data.splits[split].ids, data._tokens[split], strict=True):
            assert ids[0] == 2
            assert ids[-1] == 3
            assert len(ids) <= 8
            read.setdefault(place.split(":")[0], []).extend(
                bert.preprocessing.tokenizer.convert_ids_to_tokens(ids[1:-1]))
    assert read == {f"{i}.txt": words for i, words in names.items()}
    assert len(data.splits["train"].ids) == len(set(data.splits["train"].ids))


def test_carved__as_the_classifier_of_the_same_source(table: Path) -> None:
    settings = {"split": Split(seed=3), "subset": Subset(limit=20)}
    corpus, labelled = MaskedLM(str(table), **settings), TextClassification(str(table), **settings)
    corpus.load()
    labelled.load()
    for split in ("train", "validation", "test"):
        assert corpus.splits[split].ids == labelled.splits[split].ids
    assert corpus.inputs("train") == labelled.inputs("train")


@pytest.mark.parametrize("label", ["label", None])
def test_numbers__are_no_classes(tmp_path: Path, label: str | None) -> None:
    path = tmp_path / "rated.csv"
    path.write_text("\n".join(["text,label", *(f"film {n},{n / 7}" for n in range(40))]) + "\n")
    corpus, rated = MaskedLM(str(path), label=label), TextClassification(str(path), task=Regression())
    corpus.load()
    rated.load()
    assert corpus.splits["train"].ids == rated.splits["train"].ids


def test_paragraphs__of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(f"the film {word}" for word in WORDS * 3))
    data = MaskedLM(str(path))
    data.load()
    assert sum(map(len, data.splits.values())) == 24


def test_refusals(table: Path, save: object, backbone: object, bert: HuggingFace, tmp_path: Path) -> None:
    data = MaskedLM(str(table), max_length=16)
    with pytest.raises(Incompatible, match="needs a mask token, and the tokenizer of HuggingFace has none"):
        data.connect(backbone("gpt2"), 0)  # type: ignore[operator]  # a fixture's function
    with pytest.raises(InputError, match="max_length 64 is above the 32 tokens"):
        MaskedLM(str(table), max_length=64).connect(bert, 0)
    with pytest.raises(ValueError, match="max_length must be at least 4"):
        MaskedLM(str(table), max_length=3)
    strange = tmp_path / "strange.csv"
    strange.write_text("\n".join(["text", *["чужое слово"] * 20]) + "\n")
    with pytest.raises(InputError, match="the tokenizer knows no word of its texts"):
        MaskedLM(str(strange), max_length=16).connect(bert, 0)


def test_loss__of_a_batch_is_the_weighted_mean_of_its_rows(table: Path, bert: HuggingFace) -> None:
    data = MaskedLM(str(table), max_length=16, masking=Masking(share=0.4))
    data.connect(bert, 0)
    model = bert.build(data.task).eval()
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        outputs = model(batch)
    losses, weights = data.task.losses(outputs, batch), data.task.weights(batch)
    torch.testing.assert_close((losses * weights).sum() / weights.sum(), data.task.loss(outputs, batch))
    records = data.task.records(data.task.predict(model, batch, outputs), batch["target"])
    right = sum(a == b for said, meant in zip(records["prediction"], records["target"], strict=True)
                for a, b in zip(said.split(), meant.split(), strict=True))
    metric = data.task.metrics()[0].make()
    metric.update(data.task.predict(model, batch, outputs), batch["target"])
    assert float(metric.compute()) == pytest.approx(right / int(weights.sum()))
    assert data.task.contributions("accuracy", records).mean() == pytest.approx(
        right / int(weights.sum()), abs=1e-9) or len(records["target"]) < 2
