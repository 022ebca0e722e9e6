import re
from types import SimpleNamespace

import lightning
import pytest
import torch
from torch import nn

from ftlab.backbones.preprocessing import ImagePreprocessing, TextPreprocessing
from ftlab.data.sampling import Balanced
from ftlab.data.splits import Split, Subset
from ftlab.data.text import TextClassification
from ftlab.data.text_augment import TextAugment
from ftlab.data.text_normalise import Lemmatise
from ftlab.errors import Incompatible, InputError


def encode(texts, longest):
    return ([[int(re.sub(r"\D", "", word) or 0) for word in text.split()][:longest]
             for text in texts], sum(len(text.split()) > longest for text in texts))


def pad(rows):
    tokens = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, -1)
    return {"input_ids": tokens}


class Words:
    """A backbone whose tokens are the numbers in the text."""

    preprocessing = TextPreprocessing(encode, pad, longest=512)


class Pixels:
    preprocessing = ImagePreprocessing("pixels", (8, 8), (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def source(tmp_path):
    """40 texts: text i is the number i, then i % 5 zeros; class b is every fourth."""
    lines = [f"{i}{' 0' * (i % 5)}\t{'b' if i % 4 == 0 else 'a'}" for i in range(40)]
    (tmp_path / "all.tsv").write_text("\n".join(lines))
    return str(tmp_path / "all.tsv")


def connected(source, seed=0, **settings):
    data = TextClassification(source, text=0, label=1, **settings)
    data.connect(Words(), seed)
    return data


def indices(loader):
    return [i for batch in loader for i in batch["index"].tolist()]


def test_loaders__each_example_once_with_its_own_target(source):
    data = connected(source, batch_size=7)
    for split, loader in (("train", data.train_dataloader()), ("validation", data.val_dataloader()),
                          ("test", data.test_dataloader()), ("train", data.eval_loader("train"))):
        examples = data.splits[split]
        assert sorted(indices(loader)) == list(range(len(examples)))
        for batch in loader:
            for row, target, i in zip(batch["inputs"]["input_ids"], batch["target"],
                                      batch["index"].tolist(), strict=True):
                assert [n for n in row.tolist() if n >= 0] == encode([examples.inputs[i]], 9)[0][0]
                assert examples.labels[i] == ["a", "b"][target]
            assert batch["inputs"]["input_ids"].shape[1] <= 5  # padded to the batch's longest


def test_eval_loader__longest_first(source):
    data = connected(source)
    lengths = [len(data.splits["train"].inputs[i].split())
               for i in indices(data.eval_loader("train"))]
    assert lengths == sorted(lengths, reverse=True)


def test_splits__do_not_follow_the_runs_seed_but_order_does(source):
    a, b = connected(source, seed=0), connected(source, seed=1)
    assert a.fingerprint == b.fingerprint
    assert {name: part.ids for name, part in a.splits.items()} == {
        name: part.ids for name, part in b.splits.items()}
    assert indices(a.train_dataloader()) != indices(b.train_dataloader())
    assert indices(a.train_dataloader()) == indices(connected(source).train_dataloader())
    assert {i for part in a.splits.values() for i in part.ids} == {
        f"all:{i}" for i in range(1, 41)}


def test_loaders__leave_the_global_generator_alone(source):
    data = connected(source, augment=TextAugment(), sampling=Balanced())
    before = torch.get_rng_state()
    indices(data.train_dataloader())
    assert torch.equal(before, torch.get_rng_state())


def test_fingerprint__every_text_label_and_the_split_count(source, tmp_path):
    def changed(old, new, **settings):
        path = tmp_path / "all.tsv"
        content = path.read_text()
        path.write_text(content.replace(old, new, 1))
        data = TextClassification(source, text=0, label=1, **settings)
        data.load()
        path.write_text(content)
        return data.fingerprint

    prints = [changed("", ""), changed("39 ", "93 "), changed("39 0 0 0 0\ta", "39 0 0 0 0\tb"),
              changed("", "", split=Split(seed=1)), changed("", "", subset=Subset(limit=10))]
    assert len(set(prints)) == len(prints)
    assert changed("", "") == prints[0]


def test_workers__the_same_batches_however_many(source):
    settings = {"augment": TextAugment(0.3, 0.3), "batch_size": 5}
    rows = connected(source, **settings).dataset("train", training=True)
    once = [row.input for row in map(rows.__getitem__, range(len(rows)))]
    rows.set_epoch(1)
    assert once != [row.input for row in map(rows.__getitem__, range(len(rows)))]
    for epoch in (0, 3):
        seen = []
        for workers in (0, 2):
            loader = connected(source, workers=workers, **settings).train_dataloader()
            loader.sampler.set_epoch(epoch)
            seen.append([batch["inputs"]["input_ids"].tolist() for batch in loader])
        assert seen[0] == seen[1]


class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = []
        self.validated = []

    def training_step(self, batch):
        self.seen.append(batch["inputs"]["input_ids"].tolist())
        return self.weight * batch["target"].sum()

    def validation_step(self, batch):
        self.validated += batch["index"].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings(
    "ignore:The '.*' does not have many workers",  # on many cores
    "ignore:.*LeafSpec.*:FutureWarning")  # lightning 2.6.6 with torch 2.14
def test_trainer__sets_the_epoch_of_order_and_augmentation(source):
    data = connected(source, augment=TextAugment(), batch_size=64)
    net = Net()
    lightning.Trainer(max_epochs=2, accelerator="cpu", logger=False, barebones=True,
                      use_distributed_sampler=False).fit(net, datamodule=data)
    expected = []
    loader = connected(source, augment=TextAugment(), batch_size=64).train_dataloader()
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        expected += [batch["inputs"]["input_ids"].tolist() for batch in loader]
    assert net.seen == expected and expected[0] != expected[1]
    assert sorted(net.validated) == sorted([0, 1, 2, 3] * 2)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks__evaluation_is_exact_and_steps_are_equal(source, world):
    class Rank:
        world_size = world

        def __init__(self, rank):
            self.global_rank = rank

    evaluated, steps = [], set()
    data = connected(source, batch_size=6)
    for rank in range(world):
        data.trainer = Rank(rank)
        evaluated += indices(data.test_dataloader())
        steps.add(len(data.train_dataloader()))
    assert sorted(evaluated) == list(range(len(data.splits["test"])))
    assert len(steps) == 1


def test_notes__cut_share_and_duplicates_once(source, tmp_path):
    text = connected(source).splits["train"].inputs[0]
    (tmp_path / "test.tsv").write_text(f"{text}\tb\nnew\ta\n")
    data = connected(source, test=str(tmp_path / "test.tsv"), max_length=2)
    cut = sum(len(text.split()) > 2 for text in data.splits["train"].inputs)
    note = f"{100 * cut / len(data.splits['train']):.1f}% of training texts were cut at 2 tokens"
    data.connect(Words(), 1)
    assert [text for text in data.notes if "cut" in text] == [note]
    assert "1 of 2 test inputs are also in train (exact duplicates)" in data.notes


def test_describe__counts(source):
    data = TextClassification(source, text=0, label=1, subset=Subset(shots=2))
    data.load()
    assert data.describe()["train"] == {"examples": 4, "classes": {"a": 2, "b": 2}}
    assert data.describe()["test"] == {"examples": 8, "classes": {"a": 6, "b": 2}}


def test_classes__rename_and_merge(source):
    data = TextClassification(source, text=0, label=1, classes={"a": "x", "b": "y"})
    data.load()
    assert set(data.splits["test"].labels) == {"x", "y"}
    data = TextClassification(source, text=0, label=1, classes={"a": "x"})
    with pytest.raises(InputError, match="label 'b' is not in classes"):
        data.load()


def test_normalise__all_splits(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n" + "cats ran,1\ndogs ran,0\n" * 5)
    data = TextClassification(str(tmp_path / "a.csv"), normalise=Lemmatise())
    data.load()
    assert all(set(part.inputs) == {"cat run", "dog run"} for part in data.splits.values())


def test_load__label_in_test_that_train_lacks(source, tmp_path):
    (tmp_path / "test.tsv").write_text("0\tb\n1\tzebra\n")
    data = TextClassification(source, test=str(tmp_path / "test.tsv"), text=0, label=1)
    with pytest.raises(InputError, match=r"test split of .*test\.tsv, test:2: .*'zebra'"):
        data.load()
    assert not data.splits


def test_connect__refuses_what_does_not_fit(source):
    with pytest.raises(Incompatible, match="Pixels reads images"):
        TextClassification("not/read/yet.tsv").connect(Pixels(), 0)
    with pytest.raises(InputError, match="above the 512 tokens"):
        connected(source, max_length=513)
    with pytest.raises(RuntimeError, match="connect"):
        TextClassification(source).train_dataloader()


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"max_length": 0}, {"workers": -1}])
def test_constructor__refuses_values_out_of_range(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be at least"):
        TextClassification("x", **settings)


def test_task__is_not_shared(source):
    a, b = (TextClassification(source, text=0, label=1) for _ in range(2))
    assert a.task is not b.task


@pytest.mark.shared
def test_sst2__as_published(shared):
    folder = shared / "data/sst2"
    data = TextClassification(*(str(folder / f"{name}.tsv") for name in ("train", "dev", "test")),
                              text=0, label=1)
    data.load()
    assert [len(part) for part in data.splits.values()] == [6920, 872, 1821]
    assert data.task.outputs == 2


@pytest.mark.parametrize("loader", ["train_dataloader", "val_dataloader"])
def test_loaders__devices_share_a_batch(source, loader):
    def batches(world: int) -> list[list[int]]:
        ranks = []
        for rank in range(world):
            data = connected(source, batch_size=4)
            data.trainer = SimpleNamespace(global_rank=rank, world_size=world)
            ranks.append([batch["index"].tolist() for batch in getattr(data, loader)()])
        return [sorted(i for rank in ranks for i in (rank[k] if k < len(rank) else []))
                for k in range(len(ranks[0]))]

    assert batches(2) == batches(4) == batches(1)
    data = connected(source, batch_size=4)
    data.trainer = SimpleNamespace(global_rank=0, world_size=3)
    with pytest.raises(InputError, match="batch_size 4 is of a batch over all devices, and 3"):
        getattr(data, loader)()
