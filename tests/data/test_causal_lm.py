"""Prompts and responses from tables, and plain texts."""

import json
from pathlib import Path

import pytest
from families import tokenizer

from ftlab.data.causal_lm import CausalLM
from ftlab.data.prompt_templates import Template
from ftlab.data.splits import Split
from ftlab.errors import Incompatible, InputError
from ftlab.tasks.language_modelling import LanguageModelling
from ftlab.techniques.prefix_tuning import PrefixTuning
from ftlab.techniques.prompt_tuning import PromptTuning

TOKENS = tokenizer(decoder=True)
END = TOKENS.eos_token_id


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "sst.tsv"
    rows = [("a good film", 1), ("the plot was bad", 0)] * 10
    path.write_text("".join(f"{text}\t{label}\n" for text, label in rows))
    return path


def connected(backbone, *sources, **settings) -> CausalLM:
    data = CausalLM(*map(str, sources), **settings)
    data.connect(backbone("gpt2"), seed=0)
    return data


def read(data: CausalLM, split: str = "test") -> list[tuple[str, str]]:
    """What each example's prompt and labels say."""
    rows = data.dataset(split, training=False)
    return [(TOKENS.decode(row.input), TOKENS.decode(row.target["labels"]))
            for row in (rows[i] for i in range(len(rows)))]


def test_templates__over_numbered_columns_with_classes(table, backbone):
    data = connected(backbone, table, prompt="the film: {0} is", response="{1}",
                     classes={"0": "bad", "1": "good"}, max_length=16)
    found = set(read(data, "train") + read(data))
    assert found == {("the film [UNK] a good film is", "good [SEP]"),
                     ("the film [UNK] the plot was bad is", "bad [SEP]")}
    batch = next(iter(data.train_dataloader()))
    assert set(batch["target"]["text"]) == {"good", "bad"}
    assert data.packs is False
    with pytest.raises(InputError, match=r"sst:\d+: label '0' is not in classes"):
        CausalLM(str(table), prompt="{0}", response="{1}", classes={"1": "good"}).load()


def test_template__holds_names_alone():
    template = Template("{{x}} {a} and {0}", "prompt")
    assert template.columns == ["a", 0]
    assert template.fill({"a": "{b}", 0: "c"}) == "{x} {b} and c"
    for wrong in ("no column", "{}", "{a!r}", "{a:>3}", "{a"):
        with pytest.raises(ValueError, match="prompt must"):
            Template(wrong, "prompt")


def test_long_prompts__are_cut_from_the_left_and_counted(tmp_path, backbone):
    path = tmp_path / "long.jsonl"
    rows = [{"prompt": "a b c the of and very", "response": "not bad"}] * 20
    path.write_text("\n".join(map(json.dumps, rows)))
    data = connected(backbone, path, max_length=7)
    assert set(read(data)) == {("the of and very", "not bad [SEP]")}
    assert any(note.startswith("4 of 4 test prompts were cut from the left") for note in data.notes)
    with pytest.raises(InputError, match=r"long:\d+: the response has 3 tokens") as error:
        connected(backbone, path, max_length=3)
    assert "max_length" in error.value.mend
    bound = connected(backbone, path, max_length=16, task=LanguageModelling(max_new_tokens=1))
    assert any("no generated text can match" in note for note in bound.notes)
    numbers = LanguageModelling(max_new_tokens=4, final_number="last")
    noted = connected(backbone, path, max_length=16, task=numbers).notes
    assert any(note.startswith("4 of 4 test responses have no number") for note in noted)
    whole = connected(backbone, path, max_length=16)
    assert not any("cut" in note or "match" in note for note in whole.notes)


def test_chat__puts_the_prompt_into_the_template(table, backbone):
    chosen = backbone("gpt2")
    data = CausalLM(str(table), prompt="{0}", response="{1}", chat=True, max_length=24)
    with pytest.raises(Incompatible, match="no chat template"):
        data.connect(chosen, seed=0)
    chosen.preprocessing.tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }} is {{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %} of{% endif %}")
    data = CausalLM(str(table), prompt="{0}", response="{1}", chat=True, max_length=24)
    data.connect(chosen, seed=0)
    assert {prompt for prompt, _ in read(data, "train")} == {"[UNK] is a good film of",
                                                   "[UNK] is the plot was bad of"}


def test_plain_text__each_token_is_predicted_once(tmp_path, backbone):
    path = tmp_path / "texts.txt"
    texts = ["a b c good bad film plot the of", "and very\nnot", "is"] * 4
    path.write_text("\n\n".join(texts))
    data = connected(backbone, path, prompt=None, response="{text}", max_length=4,
                     split=Split(validation=0.2, test=0.3))
    seen: dict[str, list[int]] = {}
    for split in ("train", "validation", "test"):
        rows = data.dataset(split, training=False)
        for place, row in zip(data.splits[split].ids, (rows[i] for i in range(len(rows))), strict=True):
            document = ":".join(place.split(":")[:2])
            before = seen.setdefault(document, [END])
            assert len(row.input) == 1
            assert row.input[0] == before[-1]
            assert 1 + len(row.target["labels"]) <= 4
            before += row.target["labels"]
    want = sorted([END, *TOKENS(text)["input_ids"]] for text in texts)
    assert sorted(seen.values()) == want
    batch = next(iter(data.test_dataloader()))
    assert batch["index"].shape[0] == batch["target"]["labels"].shape[0]
    data.connect(backbone("gpt2"), seed=1)  # chunks are made of the texts, not of chunks
    assert {i for s in data.splits.values() for i in s.ids} >= set(seen) - {
        i for i in seen if f"{i}:1" in {j for s in data.splits.values() for j in s.ids}}


@pytest.mark.parametrize("completion_only", [True, False])
def test_packing__trains_on_the_same_tokens(table, backbone, completion_only):
    counts = []
    for packing in (True, False):
        data = connected(backbone, table, prompt="{0}", response="{1}", max_length=16,
                         packing=packing, completion_only=completion_only, batch_size=20)
        batch = next(iter(data.train_dataloader()))
        labels = batch["target"]["labels"]
        counts.append((sorted(batch["index"].tolist()), sorted(labels[labels >= 0].tolist())))
        assert data.packs is packing
        assert "segments" not in next(iter(data.test_dataloader()))["inputs"]
    assert counts[0] == counts[1]
    learned = {TOKENS.decode([i]) for i in counts[0][1]}
    assert ("film" in learned) is not completion_only


@pytest.mark.parametrize("technique", [PromptTuning, PrefixTuning])
def test_packing__virtual_tokens_are_refused(table, technique):
    data = CausalLM(str(table), prompt="{0}", response="{1}", packing=True)
    with pytest.raises(Incompatible, match="before a row"):
        technique().prepare(data)
    technique().prepare(CausalLM(str(table), prompt="{0}", response="{1}"))


@pytest.mark.parametrize("settings, message", [
    ({"prompt": "{2}", "response": "{1}"}, "no column 2"),
    ({"prompt": "{text}", "response": "{1}"}, "mix name and number"),
    ({"prompt": "{0}", "response": "{1}", "max_length": 64}, "above the 32 tokens"),
])
def test_settings__that_do_not_fit(table, backbone, settings, message):
    with pytest.raises(InputError, match=message):
        connected(backbone, table, **{"max_length": 16} | settings)


def test_cells__must_hold_text(tmp_path, backbone):
    path = tmp_path / "gaps.csv"
    path.write_text("prompt,response\na,good\nb,\n")
    with pytest.raises(InputError, match=r"gaps\.csv, row 2: column 'response' is empty"):
        connected(backbone, path, max_length=16)
    with pytest.raises(ValueError, match="chat must be false for plain text"):
        CausalLM(str(path), prompt=None, chat=True)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_plain_text__paragraphs_whatever_ends_a_line(newline, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(newline.join(["a b", "", "c of", "and", " ", "", "very"] * 4).encode())
    data = CausalLM(str(path), prompt=None, response="{text}")
    data.load()
    found = {text for part in data.splits.values() for text in part.inputs}
    assert found == {"a b", "c of\nand", "very\na b", "very"}


@pytest.mark.parametrize(("cell", "says"), [
    ([{"role": "user", "content": "hi"}], "column 'prompt' is of type list"),
    ({"content": "hi"}, "is of type dict"), (True, "is of type bool"),
    (float("nan"), "column 'prompt' has no text in it, but a missing value"),
    (None, "but a missing value"), ("  ", "column 'prompt' is empty")])
def test_cells__that_are_no_text_are_refused(cell, says, tmp_path):
    path = tmp_path / "chat.jsonl"
    rows = [{"prompt": 1, "response": 2.5}, {"prompt": cell, "response": "b"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=says) as error:
        CausalLM(str(path)).load()
    assert "row 2" in error.value.what and error.value.mend
