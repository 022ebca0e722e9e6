"""Two texts an example: held against transformers' own tokenizers and networks."""

import json
import pickle
import random

import pytest
import torch
import transformers as hf
from families import WORDS

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.sources import read
from ftlab.data.splits import Split
from ftlab.data.text import TextClassification
from ftlab.data.text_augment import TextAugment
from ftlab.data.text_normalise import Lemmatise
from ftlab.errors import Incompatible, InputError
from ftlab.techniques.in_context import InContext
from ftlab.techniques.prefix_tuning import PrefixTuning
from ftlab.techniques.prompt_tuning import PromptTuning
from ftlab.techniques.zero_shot import ZeroShot

SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24,
         "num_hidden_layers": 2, "max_position_embeddings": 40}


def bert(folder):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokens = hf.BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)})
    return tokens, hf.BertForSequenceClassification(hf.BertConfig(
        **SIZES, vocab_size=len(vocabulary), num_labels=2))


def roberta(folder):
    letters = ["Ġ", *sorted(set("".join(WORDS)))]
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters]
    tokens = hf.RobertaTokenizer(vocab={word: i for i, word in enumerate(vocabulary)}, merges=[])
    return tokens, hf.RobertaForSequenceClassification(hf.RobertaConfig(
        **SIZES, vocab_size=len(vocabulary), num_labels=2, pad_token_id=1, type_vocab_size=1))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder, tokenizer and network of a family, with weights large enough for parts to tell."""
    made = {}
    for family in (bert, roberta):
        folder = tmp_path_factory.mktemp(family.__name__)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            tokens, network = family(folder)
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
        tokens.save_pretrained(folder)
        network.save_pretrained(folder)
        made[family.__name__] = str(folder), tokens, network.eval()
    return made


@pytest.fixture(scope="module")
def rows():
    draw = random.Random(0)
    return [{"premise": " ".join(draw.choices(WORDS, k=draw.choice((1, 3, 25)))),
             "claim": " ".join(draw.choices(WORDS, k=draw.choice((1, 4, 20)))),
             "label": "yes" if i % 2 else "no"} for i in range(60)]


@pytest.fixture(scope="module")
def source(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def module(source, **settings):
    return TextClassification(source, **{
        "text": "premise", "text_pair": "claim", "max_length": 24, "batch_size": 8, **settings})


def connected(source, folder, **settings):
    data = module(source, **settings)
    data.connect(HuggingFace(folder), seed=0)
    return data


def plain(tokens, pairs, longest=24):
    first, second = map(list, zip(*pairs, strict=True))
    return dict(tokens(first, second, truncation="longest_first", max_length=longest, padding=True,
                       return_tensors="pt"))


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("augment", [None, TextAugment(dropout=0.0, swap=0.0)])
def test_batches__are_the_tokenizers_own(saved, source, family, augment):
    folder, tokens, _ = saved[family]
    data = connected(source, folder, augment=augment)
    assert data.token_types == (family == "bert")
    for split, loader in (("train", data.train_dataloader()), ("test", data.eval_loader("test"))):
        for batch in loader:
            pairs = [data.splits[split].inputs[i] for i in batch["index"].tolist()]
            expected = plain(tokens, pairs)
            assert batch["inputs"].keys() == expected.keys()
            assert ("token_type_ids" in expected) == (family == "bert")
            for name, value in expected.items():
                assert torch.equal(batch["inputs"][name], value), name
    cut = [note for note in data.notes if "were cut at 24 tokens" in note]
    whole = [len(ids) > 24 for ids in tokens(*map(list, zip(*data.splits["train"].inputs,
                                                            strict=True)))["input_ids"]]
    assert cut == [f"{100 * sum(whole) / len(whole):.1f}% of training texts were cut at 24 tokens"]


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_network__reads_pairs_as_transformers_does(saved, source, family):
    folder, tokens, network = saved[family]
    data = module(source)
    data.load()
    chosen = HuggingFace(folder, pooling="own")
    model = chosen.build(data.task).eval()
    data.connect(chosen, seed=0)
    batch = next(iter(data.eval_loader("test")))
    trunk = network.base_model
    inputs = plain(tokens, [data.splits["test"].inputs[i] for i in batch["index"].tolist()])
    other = {**inputs, "token_type_ids": torch.zeros_like(inputs["input_ids"])}
    with torch.no_grad():
        ours = model.network.base_model(**batch["inputs"]).last_hidden_state
        theirs, untyped = (trunk(**each).last_hidden_state for each in (inputs, other))
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(theirs, untyped) == (family == "roberta")


def test_kept_tokens__are_those_of_pairs(saved, source, rows):
    folder = saved["bert"][0]
    data = connected(source, folder)  # kept, or found
    first = [data.dataset("train", False)[i].input for i in range(len(data.splits["train"]))]
    again = connected(source, folder)
    again.plain = True
    assert first == [again.dataset("train", False)[i].input for i in range(len(first))]
    assert list(data.lengths("train")) == [len(ids) for ids, _ in first]
    other = module(source, text="claim", text_pair="premise")
    other.connect(HuggingFace(folder), seed=0)
    assert first != [other.dataset("train", False)[i].input for i in range(len(first))]


def test_other_backbone__leaves_no_token_types_behind(saved, source):
    data = connected(source, saved["bert"][0])
    data.connect(HuggingFace(saved["roberta"][0]), seed=0)
    batch = next(iter(data.train_dataloader()))
    assert batch["inputs"].keys() == {"input_ids", "attention_mask"}


def test_augment__changes_each_text_by_itself(saved, source):
    data = connected(source, saved["bert"][0], augment=TextAugment(dropout=0.5), max_length=40)
    dataset = pickle.loads(pickle.dumps(data.dataset("train", training=True)))
    tokens = saved["bert"][1]
    both = 0
    for i, pair in enumerate(data.splits["train"].inputs):
        ids, types = dataset[i].input
        found = [tokens.decode([token for token, kind in zip(ids, types, strict=True)
                                if kind == side], skip_special_tokens=True).split()
                 for side in (0, 1)]
        for words, text in zip(found, pair, strict=True):
            assert words and set(words) <= set(text.split())
        both += all(len(words) < len(text.split())
                    for words, text in zip(found, pair, strict=True))
    assert both > 10


def test_augment__equal_texts_are_not_changed_in_step(saved, tmp_path):
    text = " ".join(WORDS)
    (tmp_path / "t.jsonl").write_text("\n".join(
        json.dumps({"premise": text, "claim": text, "label": label}) for label in "xy" * 10))
    data = connected(str(tmp_path / "t.jsonl"), saved["bert"][0], max_length=40,
                     augment=TextAugment(dropout=0.5))
    ids, _ = data.dataset("train", training=True)[0].input
    first, second = saved["bert"][1].decode(ids).removeprefix("[CLS]").split("[SEP]")[:2]
    assert first.split() != second.split()


def test_fingerprint_and_duplicates__of_both_texts(tmp_path):
    def loaded(*pairs):
        path = tmp_path / "t.jsonl"
        path.write_text("\n".join(json.dumps({"premise": a, "claim": b, "label": label})
                                  for a, b in pairs for label in "xy"))
        data = module(str(path), validation=str(path), test=str(path))
        data.load()
        return data

    prints = [loaded(pair).fingerprint for pair in (
        ("a", "b"), ("a", "c"), ("b", "a"), ("a b", "c"), ("a", "b c"))]
    assert len(set(prints)) == len(prints)
    assert "2 of 2 test inputs are also in train (exact duplicates)" in loaded(("a", "b")).notes
    first, second = tmp_path / "1.tsv", tmp_path / "2.tsv"
    first.write_text("a\tb\tx\na\tb\ty\n")
    second.write_text("a\tc\tx\na\tc\ty\n")
    data = TextClassification(*map(str, (first, second, first)), text=0, text_pair=1, label=2)
    data.load()
    assert data.splits["validation"].inputs == [("a", "c")] * 2
    assert [note for note in data.notes if "duplicates" in note] == [
        "2 of 2 test inputs are also in train (exact duplicates)"]


def test_normalise__both(source, rows):
    data = module(source, normalise=Lemmatise())
    data.load()
    change = Lemmatise()
    assert data.splits["train"].inputs[0] in [
        (change(row["premise"]), change(row["claim"])) for row in rows]


def test_read__hub_and_unlabelled(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")
    part = datasets.Dataset.from_dict({"sentence1": ["a"], "sentence2": ["b"], "label": [1]})
    datasets.DatasetDict({"train": part}).save_to_disk(str(tmp_path / "saved"))
    examples, _ = read(f"hf:{tmp_path / 'saved'}", "train", "text", "sentence1", "label",
                       "sentence2")
    assert (examples.inputs, examples.labels) == ([("a", "b")], [1])
    (tmp_path / "new.csv").write_text("premise,claim\na,b\nc,d\n")
    found = module("x").read_new(str(tmp_path / "new.csv"))
    assert (found.inputs, found.labels) == ([("a", "b"), ("c", "d")], [None, None])


@pytest.mark.parametrize(("rows_", "settings", "says"), [
    ("premise,label\na,x\n", {}, "has no column 'claim'"),
    ("premise,claim,label\na,,x\n", {}, "row 1: the second text is empty"),
    ("premise,claim,label\na,b,x\n", {"text_pair": 1}, "columns 'premise', 1 and 'label' mix"),
])
def test_bad_tables__are_refused(tmp_path, rows_, settings, says):
    (tmp_path / "t.csv").write_text(rows_)
    with pytest.raises(InputError, match=says):
        module(str(tmp_path / "t.csv"), **settings).load()


def test_files_of_texts__are_refused(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.txt").write_text("a")
    with pytest.raises(InputError, match="have no second text") as error:
        module(str(tmp_path)).load()
    assert "table" in error.value.mend
    with pytest.raises(InputError, match="have no second text"):
        module("x").read_new(str(tmp_path / "x" / "a.txt"))


def test_backbones_and_techniques__that_read_one_text_refuse_two(backbone, saved, source):
    data = module(source)
    with pytest.raises(Incompatible, match="puts nothing between two texts"):
        data.connect(backbone("gpt2"), seed=0)
    data = connected(source, saved["bert"][0], split=Split(test=0.3))
    for technique in (InContext(), ZeroShot()):
        with pytest.raises(Incompatible, match="text_pair gives two"):
            technique.prepare(data)
    for technique in (PromptTuning(tokens=2), PrefixTuning(tokens=2)):
        technique.prepare(data)
        name = type(technique).__name__
        assert any(note.startswith(f"{name} reads both texts of a pair as the first")
                   for note in data.notes)
