"""Tags at the first token of each word, whole sentences in the target, bad input refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.token_classification import TokenClassification
from ftlab.data.word_alignment import Alignment, in_tokens
from ftlab.errors import Incompatible, InputError
from ftlab.tasks.tagging import Tagging

SENTENCES = [(["the", "good", "film"], ["O", "B-X", "I-X"]), (["bad", "plot"], ["B-Y", "O"]),
             (["a"], ["O"]), (["of", "the", "film", "and", "plot"], ["O", "O", "B-X", "O", "B-Y"])]


def conll(folder: Path, sentences=SENTENCES, name: str = "all.conll") -> str:
    path = folder / name
    path.write_text("\n".join("".join(f"{w} {t}\n" for w, t in zip(*s, strict=True))
                              for s in sentences))
    return str(path)


def three_times(source: str, **settings) -> TokenClassification:
    return TokenClassification(source, source, source, **{"max_length": 16} | settings)


def wordpieces(side: str = "right") -> hf.PreTrainedTokenizerFast:
    """Words of more than two letters fall into several tokens; `~` into none."""
    letters = "abcdefghijklmnoprstuvw"
    vocabulary = {piece: i for i, piece in enumerate(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", *letters, *(f"##{c}" for c in letters)])}
    raw = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.normalizer = normalizers.Replace("~", "")
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return hf.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]",
                                      padding_side=side)


def byte_level(folder: Path, **settings) -> hf.PreTrainedTokenizerBase:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.train_from_iterator(["a film of the lower world"] * 4 + [" film lower world the of"] * 4,
                            trainers.BpeTrainer(vocab_size=320, show_progress=False,
                            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    hf.RobertaConfig().save_pretrained(folder)
    raw.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}')
    return hf.AutoTokenizer.from_pretrained(folder, **settings)


def align(reader: hf.PreTrainedTokenizerBase, sentences: list[list[str]], tags: list[list[int]],
          longest: int) -> Alignment:
    return Alignment(in_tokens(reader, sentences, longest), tags)


def test_align__has_a_tag_at_each_first_token() -> None:
    (row,) = align(wordpieces(), [["the", "good", "a"]], [[7, 8, 9]], 16)
    assert len(row.tokens) == 1 + 1 + 4 + 1 + 1
    assert row.labels == [-100, 7, 8, -100, -100, -100, 9, -100]
    assert row.words == [-100, 0, 1, -100, -100, -100, 2, -100]
    assert row.tags == [7, 8, 9]


def test_align__leaves_out_words_that_are_cut_or_have_no_token() -> None:
    (row,) = align(wordpieces(), [["~", "the", "good", "plot"]], [[6, 7, 8, 9]], 5)
    assert row.words == [-100, 1, 2, -100, -100]
    assert row.labels == [-100, 7, 8, -100, -100]
    assert row.tags == [6, 7, 8, 9]


def test_align__gives_byte_level_words_their_space(tmp_path: Path) -> None:
    words = ["film", "of", "lower", "world"]
    plain, spaced = byte_level(tmp_path), byte_level(tmp_path, add_prefix_space=True)
    (row,) = align(plain, [words], [[1, 2, 3, 4]], 30)
    expected = spaced(words, is_split_into_words=True)
    assert row.tokens == expected["input_ids"]
    assert row.tokens == spaced(" ".join(words))["input_ids"]
    assert row.tokens != plain(words, is_split_into_words=True)["input_ids"]
    first = [i for i, w in enumerate(expected.word_ids()) if w is not None
             and expected.word_ids()[i - 1] != w]
    assert [i for i, word in enumerate(row.words) if word >= 0] == first


@pytest.mark.parametrize("side", ["left", "right"])
def test_batch__has_labels_where_the_tokens_are(side: str, tmp_path: Path,
                                                backbone: Callable[..., HuggingFace]) -> None:
    data = three_times(conll(tmp_path), batch_size=4)
    bert = backbone("bert")
    bert._tokenizer.padding_side = side
    data.connect(bert, seed=0)
    batch = next(iter(data.test_dataloader()))
    ids, target, task = batch["inputs"]["input_ids"], batch["target"], data.task
    vocabulary = bert._tokenizer.get_vocab()
    assert batch["inputs"]["attention_mask"].sum(dim=1).unique().numel() > 1
    for row, index in enumerate(batch["index"].tolist()):
        words, tags = SENTENCES[index]
        first = target["words"][row] >= 0
        assert target["words"][row][first].tolist() == list(range(len(words)))
        assert ids[row][first].tolist() == [vocabulary[word] for word in words]
        assert [task.tags[i] for i in target["labels"][row][first].tolist()] == tags
        assert (target["labels"][row][~first] == -100).all()
        assert [task.tags[i] for i in target["tags"][row]] == tags


def test_sources__say_the_same(tmp_path: Path, backbone: Callable[..., HuggingFace]) -> None:
    (tmp_path / "all.jsonl").write_text("".join(
        json.dumps({"tokens": words, "tags": tags}) + "\n" for words, tags in SENTENCES))
    (tmp_path / "named.jsonl").write_text("".join(
        json.dumps({"t": tags, "w": words}) + "\n" for words, tags in SENTENCES))
    ours = [three_times(conll(tmp_path)), three_times(str(tmp_path / "all.jsonl")),
            three_times(str(tmp_path / "named.jsonl"), word="w", tag="t")]
    for data in ours:
        data.load()
        assert data.splits["train"].inputs == [words for words, _ in SENTENCES]
        assert data.splits["train"].labels == [tags for _, tags in SENTENCES]
    assert ours[0].splits["test"].ids == ["all:1", "all:5", "all:8", "all:10"]  # lines
    assert ours[2].splits["test"].ids == [f"named:{row}" for row in (1, 2, 3, 4)]


def test_hub__tags_come_by_name(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")
    names = ["O", "B-X", "I-X", "B-Y"]
    features = datasets.Features({"words": datasets.List(datasets.Value("string")),
                                  "ner_tags": datasets.List(datasets.ClassLabel(names=names))})
    columns = {"words": [words for words, _ in SENTENCES],
               "ner_tags": [[names.index(tag) for tag in tags] for _, tags in SENTENCES]}
    part = datasets.Dataset.from_dict(columns, features)
    datasets.DatasetDict({"train": part, "validation": part, "test": part}).save_to_disk(
        str(tmp_path / "saved"))
    data = TokenClassification(f"hf:{tmp_path / 'saved'}", word="words", tag="ner_tags")
    data.load()
    for split in ("train", "validation", "test"):
        assert data.splits[split].labels == [tags for _, tags in SENTENCES]


def test_cut_words__are_said(tmp_path: Path, backbone: Callable[..., HuggingFace]) -> None:
    data = three_times(conll(tmp_path), max_length=4)
    data.connect(backbone("bert"), seed=0)
    assert ("4 words in 2 of 4 test sentences have no token within max_length 4; they count as O"
            in data.notes)


def test_repair__is_counted_and_otherwise_refused(tmp_path: Path) -> None:
    source = conll(tmp_path, [(["a", "film"], ["O", "I-X"]), (["bad", "the"], ["I-Y", "I-X"])])
    with pytest.raises(InputError, match=r"all.conll, line 2: I-X cannot follow O") as error:
        three_times(source).load()
    assert "repair: true" in error.value.mend
    data = three_times(source, repair=True)
    data.load()
    assert data.splits["train"].labels == [["O", "B-X"], ["B-Y", "B-X"]]
    assert f"3 I- tags in {source} continued nothing; each begins an entity now" in data.notes


@pytest.mark.parametrize(("tags", "scheme", "says"), [
    (["O", "PER"], "IOB2", r"line 2: 'PER' is no tag of the scheme IOB2"),
    (["B-X", "O"], "IOBES", r"line 2: O cannot follow B-X"),
    (["O", "B-X"], "IOBES", r"line 2: the end cannot follow B-X"),
    (["I-X", "O"], "IOB2", r"line 1: I-X cannot follow the beginning"),
])
def test_bad_sequences__are_refused_with_the_line(tags: list[str], scheme: str, says: str,
                                                  tmp_path: Path) -> None:
    source = conll(tmp_path, [(["a", "film"], tags)])
    with pytest.raises(InputError, match=says):
        three_times(source, task=Tagging(scheme)).load()


def test_a_type_that_train_lacks__is_refused(tmp_path: Path) -> None:
    train = conll(tmp_path, SENTENCES)
    test = conll(tmp_path, [(["a"], ["O"]), (["film"], ["B-Z"])], "test.conll")
    with pytest.raises(InputError, match=r"test.conll, test:3: tag 'B-Z' is of a type that train"):
        TokenClassification(train, train, test).load()


def test_wrong_settings__are_refused(tmp_path: Path, backbone: Callable[..., HuggingFace]) -> None:
    source = conll(tmp_path)
    with pytest.raises(ValueError, match="repair is for the scheme IOB2, got IOBES"):
        TokenClassification(source, repair=True, task=Tagging("IOBES"))
    with pytest.raises(ValueError, match="max_length must be at least 1, got 0"):
        TokenClassification(source, max_length=0)
    with pytest.raises(InputError, match="columns have no names"):
        three_times(source, word="token").load()
    with pytest.raises(InputError, match="is not a file"):
        three_times(str(tmp_path)).load()
    with pytest.raises(InputError, match="max_length 999 is above"):
        three_times(source, max_length=999).connect(backbone("bert"), 0)
    with pytest.raises(Incompatible, match="yields texts"):
        three_times(source).connect(backbone("vit"), 0)


def test_fingerprint__covers_words_and_tags(tmp_path: Path) -> None:
    found = set()
    for i, sentences in enumerate((SENTENCES, [*SENTENCES[:3], (["b"], ["O"])],
                                   [*SENTENCES[:3], (["b"], ["B-X"])])):
        folder = tmp_path / str(i)
        folder.mkdir()
        data = three_times(conll(folder, sentences))
        data.load()
        found.add(data.fingerprint)
    assert len(found) == 3


def test_padding__changes_no_loss(tmp_path: Path, backbone: Callable[..., HuggingFace]) -> None:
    data = three_times(conll(tmp_path), batch_size=4)
    data.connect(backbone("bert"), seed=0)
    model = backbone("bert").build(data.task).eval()
    whole = next(iter(data.test_dataloader()))
    data.batch_size = 1
    with torch.no_grad():
        total = sum(float(data.task.loss(model(b), b)) * data.task.weight(b)
                    for b in data.test_dataloader())
        assert total == pytest.approx(
            float(data.task.loss(model(whole), whole)) * data.task.weight(whole), rel=1e-4)


def test_table__that_is_not_utf8_is_cleaned_and_said(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    rows = [{"tokens": ["café", "film"], "tags": ["O", "B-X"]}, {"tokens": ["a"], "tags": ["O"]}]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(text.encode("latin-1"))
    data = three_times(str(path))
    data.load()
    assert data.splits["train"].inputs[0] == ["caf\ufffd", "film"]
    assert data.fingerprint
    assert f"1 of 2 rows in {path} is not UTF-8; bytes replaced" in data.notes
