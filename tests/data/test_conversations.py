"""Conversations: what is read, which tokens are learned, and what a network makes of them.

References are transformers' own chat templates: the ids of `apply_chat_template`, and its mask of
the assistant's tokens where the same template marks them with `{% generation %}`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.causal_lm import CausalLM
from ftlab.data.chat_tokens import chats
from ftlab.data.prediction_split import put
from ftlab.data.splits import Split
from ftlab.errors import Incompatible, InputError
from ftlab.exports.predictions import Predictions
from ftlab.tasks.language_modelling import LanguageModelling
from ftlab.training.evaluate import evaluate

S, U, A = "system", "user", "assistant"
BARE = ("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{{ m['content'] + '<|im_end|>' }}"
        "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
LAST_ALONE = ("{% for m in messages %}{% if loop.last or m['role'] != 'assistant' %}"
              "{{ m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}")
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def turns(*said: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in said]


ONE_TURN = turns((U, "name a good film"), (A, "the good plot"))
LONG = turns((S, "be very short"), (U, "is the film good?"), (A, "it is  not\ngood."), (U, "and the plot?"),
             (A, "that is bad"), (U, "why?"), (A, "no reason"))


@pytest.fixture(scope="module")
def bpe() -> hf.PreTrainedTokenizerFast:
    """Byte-level, as GPT-2's and Qwen's, with ChatML's two tokens."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    texts = [message["content"] for message in [*ONE_TURN, *LONG]] + ["system\n", "user\n", "assistant\n"]
    raw.train_from_iterator(texts * 3, trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    made = hf.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>",
                                      additional_special_tokens=["<|im_start|>"], pad_token="<pad>")
    made.chat_template = BARE
    return made


def tokens(tokenizer: Any, messages: list[dict[str, str]], longest: int = 10**6) -> dict[str, list[int]]:
    made = chats(tokenizer, [messages[:-1]], [messages[-1]["content"]], ["here"], longest, "")
    return {name: list(column[0]) for name, column in made.columns.items()}


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("messages", [ONE_TURN, LONG, LONG[1:], LONG[:3]])
def test_tokens__are_those_of_the_template(messages: list, marked: bool,
                                           bpe: hf.PreTrainedTokenizerFast) -> None:
    reference = bpe.apply_chat_template(messages, chat_template=MARKED, return_dict=True,
                                        return_assistant_tokens_mask=True)
    assert reference["input_ids"] == bpe.apply_chat_template(messages)["input_ids"]
    bpe.chat_template = MARKED if marked else BARE
    found = tokens(bpe, messages)
    bpe.chat_template = BARE
    ids = found["prompts"] + found["responses"]
    assert ids == reference["input_ids"][:-1], "but for the line feed behind the last"
    assert found["learned"] == reference["assistant_masks"][:-1]
    assert found["prompts"] == bpe.apply_chat_template(messages[:-1], add_generation_prompt=True)["input_ids"]
    assert bpe.decode(found["responses"]) == messages[-1]["content"] + "<|im_end|>"


def test_answer__that_begins_in_the_middle_of_a_token(bpe: hf.PreTrainedTokenizerFast) -> None:
    """A template that ends in a space, which a word's token has in front: read as generated from."""
    bpe.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<|im_end|>' }}{% endfor %}" \
                        "{% if add_generation_prompt %}assistant: {% endif %}"
    found = tokens(bpe, ONE_TURN)
    assert found["prompts"] == bpe.apply_chat_template(ONE_TURN[:-1], add_generation_prompt=True)["input_ids"]
    assert found["responses"] == bpe("the good plot<|im_end|>")["input_ids"]
    bpe.chat_template = BARE


def test_answer__without_an_end_gets_one(bpe: hf.PreTrainedTokenizerFast) -> None:
    bpe.chat_template = "{% for m in messages %}{{ m['role'].upper() + ':' + m['content'] + '\n' }}{% endfor %}" \
                        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    found = tokens(bpe, ONE_TURN)
    assert bpe.decode(found["responses"]) == "the good plot<|im_end|>"
    bpe.chat_template = BARE


def test_long_conversation__loses_whole_turns_and_keeps_the_system(bpe) -> None:
    def rendered(messages: list) -> list[int]:
        return bpe.apply_chat_template(messages)["input_ids"][:-1]

    whole, without_one, least = LONG, [LONG[0], *LONG[3:]], [LONG[0], *LONG[5:]]
    for longest, expected, dropped in (
            (len(rendered(whole)), whole, []), (len(rendered(whole)) - 1, without_one, [0]),
            (len(rendered(without_one)), without_one, [0]), (len(rendered(least)), least, [0])):
        found = tokens(bpe, LONG, longest)
        assert found["prompts"] + found["responses"] == rendered(expected)
        assert found["dropped"] == dropped
        assert len(found["learned"]) == len(rendered(expected))
    short = tokens(bpe, LONG, len(rendered(least)) - 2)
    assert short["prompts"] + short["responses"] == rendered(least)[2:]
    assert short["dropped"] == [1]
    with pytest.raises(InputError, match=r"here: the last answer has .* max_length is 3"):
        tokens(bpe, LONG, 3)


@pytest.mark.parametrize(("template", "says"), [
    ("{{ raise_exception('System role not supported') }}", "refuses the turns.*System role not supported"),
    (LAST_ALONE, "rewrites earlier turns"),
    (BARE.split("{% if add")[0], "begins no turn of the assistant"),
    (MARKED.replace("<|im_start|>assistant", "<|im_start|>bot"), "otherwise than it writes it"),
])
def test_templates__that_cannot_be_learned_from(template: str, says: str, bpe) -> None:
    bpe.chat_template = template
    with pytest.raises(InputError, match=says) as caught:
        tokens(bpe, LONG)
    assert caught.value.mend
    assert "\n" not in caught.value.what
    bpe.chat_template = BARE


# Files

TOOLS = [*turns((S, ""), (U, "look it up")),
         {"role": A, "content": None, "tool_calls": [{"function": {"name": "look"}}]},
         {"role": "tool", "content": "42", "name": "look"},
         {"role": A, "content": [{"type": "text", "text": "it is "}, {"type": "text", "text": "42"}]},
         {"role": U, "content": "thanks"}]


def written(rows: list[Any], kind: str, folder: Path, column: str = "messages") -> str:
    import pandas as pd

    path = folder / f"chat.{kind}"
    if kind == "csv":
        pd.DataFrame({column: [json.dumps(row) for row in rows]}).to_csv(path, index=False)
    elif kind == "parquet":
        pd.DataFrame({column: rows}).to_parquet(path)
    elif kind == "hub":
        import datasets

        datasets.Dataset.from_list([{column: row} for row in rows]).save_to_disk(str(path))
        return f"hf:{path}"
    else:
        path.write_text("".join(json.dumps({column: row}) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "hub"])
def test_files__tools_are_left_out_with_a_note(kind: str, tmp_path: Path) -> None:
    tools = TOOLS if kind != "hub" else [  # Arrow's lists have one kind of content
        {**m, "content": "it is 42"} if isinstance(m["content"], list) else m for m in TOOLS]
    data = CausalLM(written([tools, *[LONG] * 9], kind, tmp_path), messages="messages")
    examples = data.read("train", str(data.sources["train"]))
    assert examples.inputs[0] == turns((U, "look it up"))
    assert examples.labels[0] == "it is 42"
    assert examples.inputs[1] == LONG[:-1] and examples.labels[1] == "no reason"
    assert [note.split(" in ")[0] + note.split(" are")[-1] for note in data.notes] == [
        "1 messages empty and of the system and left out",
        "2 messages of tools, or with calls of them, and left out",
        "1 messages behind the last answer and left out"]


@pytest.mark.parametrize(("row", "says"), [
    (turns((U, "hi")), "no turn of the assistant"), ([], "no messages"), ("hi", "not JSON"),
    (7, "int instead of a list of messages"), (None, "the messages are missing"), (turns((A, "hi")), "nothing stands before"),
    (turns((U, "hi"), (A, " ")), "turn 2: the assistant's content is empty"),
    (turns((U, None), (A, "a")), "turn 1: the user's content is empty"),  # type: ignore[arg-type]
    (turns(("human", "hi"), (A, "a")), "message 1: the role 'human' is none of system, user"),
    ([{"from": "human", "value": "hi"}, {"from": "gpt", "value": "a"}], "message 1: it has no role"),
    ([{"role": U, "content": [{"type": "image_url"}]}, *turns((A, "a"))], "message 1: .* type image_url"),
    ([*turns((U, "hi")), {"role": A, "content": "a", "weight": 0}], "message 2: its weight is 0"),
    ([{"role": U, "content": 3}, *turns((A, "a"))], "its content is of type int"),
])
def test_files__refused_in_one_line(row: Any, says: str, tmp_path: Path) -> None:
    source = written([ONE_TURN, row], "jsonl", tmp_path)
    with pytest.raises(InputError, match=says) as caught:
        CausalLM(source, messages="messages").load()
    assert f"{source}, row 2" in caught.value.what
    assert caught.value.mend and "\n" not in caught.value.what
    if "from" in str(row):
        assert "from and value as role and content" in caught.value.mend


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_file_of_messages__without_the_setting_names_it(kind: str, tmp_path: Path) -> None:
    source = written([ONE_TURN, LONG], kind, tmp_path)
    with pytest.raises(InputError, match="has no column 'prompt'") as caught:
        CausalLM(source).load()
    assert "set messages: messages in place of prompt and response" in caught.value.mend
    (tmp_path / "other.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    with pytest.raises(InputError, match="has no column 'prompt'") as caught:
        CausalLM(str(tmp_path / "other.jsonl")).load()
    assert "messages" not in caught.value.mend


def test_settings__that_messages_take_the_place_of() -> None:
    with pytest.raises(ValueError, match="messages has prompts and responses in it"):
        CausalLM("x.jsonl", messages="messages", prompt="{text}")


# With a network

WORD_CHAT = ("{% for m in messages %}{{ m['role'][0] }} {{ m['content'] }} [SEP] {% endfor %}"
             "{% if add_generation_prompt %}a {% endif %}")
ROWS = [turns((S, "very good"), (U, "the film"), (A, "bad"), (U, "and not"), (A, "good plot")),
        turns((U, "is"), (A, "not good")), turns((U, "the plot of film was"), (A, "a film"), (U, "b"), (A, "c")),
        turns((U, "of"), (A, "bad"))] * 5


@pytest.fixture
def connected(backbone: Callable[..., HuggingFace], tmp_path: Path) -> Callable[..., tuple[Any, CausalLM]]:
    def make(connect: bool = True, **settings: Any) -> tuple[Any, CausalLM]:
        chosen = backbone("gpt2")
        chosen.preprocessing.tokenizer.chat_template = WORD_CHAT
        data = CausalLM(written(ROWS, "jsonl", tmp_path), messages="messages", batch_size=4,
                        split=Split(validation=0.2, test=0.4), task=LanguageModelling(max_new_tokens=3),
                        **{"max_length": 24} | settings)
        data.load()
        if connect:
            data.connect(chosen, 0)
        return chosen, data

    return make


def by_hand(network: Any, tokenizer: Any, messages: list[dict[str, str]]) -> tuple[float, int]:
    """Summed cross-entropy of the assistant's words and end tokens, and their number, token by token."""
    ids: list[int] = []
    learned: list[bool] = []
    for message in messages:
        said = tokenizer(message["content"])["input_ids"]
        ids += [tokenizer.convert_tokens_to_ids(message["role"][0]), *said, 3]
        learned += [False, *[message["role"] == A] * (len(said) + 1)]
    logits = network(torch.tensor([ids])).logits[0].log_softmax(-1)
    losses = [-logits[place - 1, ids[place]].item() for place in range(1, len(ids)) if learned[place]]
    return sum(losses), len(losses)


@pytest.mark.parametrize("marked", [False, True])
def test_leading_turn_of_the_assistant__is_said_where_it_is_not_learned(
    marked: bool, backbone: Callable[..., HuggingFace], tmp_path: Path
) -> None:
    chosen = backbone("gpt2")
    chosen.preprocessing.tokenizer.chat_template = WORD_CHAT if not marked else (
        "{% for m in messages %}{{ m['role'][0] }} {% if m['role'] == 'assistant' %}{% generation %}"
        "{{ m['content'] }} [SEP]{% endgeneration %}{% else %}{{ m['content'] }} [SEP]{% endif %} "
        "{% endfor %}{% if add_generation_prompt %}a {% endif %}")
    rows = [turns((A, "good film"), *((m["role"], m["content"]) for m in row))
            for row in ROWS if row[0]["role"] == U]
    data = CausalLM(written(rows, "jsonl", tmp_path), messages="messages", max_length=30,
                    task=LanguageModelling(max_new_tokens=3))
    data.load()
    data.connect(chosen, 0)
    first = data.dataset("train", True)[0]
    assert first.target["learned"][:4] == ([0, 1, 1, 1] if marked else [0, 0, 0, 0])
    count = len(data.splits["train"])
    said = [note for note in data.notes if "begin with a turn of the assistant" in note]
    assert [note.split(" conversations")[0] for note in said][:1] == (
        [] if marked else [f"{count} of {count}"])


@pytest.mark.parametrize("packing", [False, True])
def test_loss__is_that_of_the_assistants_tokens(packing: bool, connected) -> None:
    chosen, data = connected(packing=packing)
    model = chosen.build(data.task).eval()
    network = model.network
    for loader in (data.test_dataloader(), data.train_dataloader()):
        for batch in loader:
            name = "test" if loader.batch_sampler.sampler.__class__.__name__ != "TrainSampler" else "train"
            rows = [[*data.splits[name].inputs[i], {"role": A, "content": data.splits[name].labels[i]}]
                    for i in batch["index"].tolist()]
            with torch.no_grad():
                loss = data.task.loss(model(batch), batch).item()
                sums = [by_hand(network, model.tokenizer, row) for row in rows]
            assert data.task.weight(batch) == sum(count for _, count in sums)
            assert loss == pytest.approx(sum(total for total, _ in sums) / sum(n for _, n in sums), abs=1e-5)


def test_answers__are_generated_for_the_last_turn(connected) -> None:
    chosen, data = connected()
    model = chosen.build(data.task).eval()
    _, records = evaluate(model, data.test_dataloader(), data.task, data.splits["test"].ids, lambda b: b)
    tokenizer = model.tokenizer
    for context, label, target, answer in zip(data.splits["test"].inputs, data.splits["test"].labels,
                                              records["target"], records["prediction"], strict=True):
        prompt = tokenizer.apply_chat_template(context, add_generation_prompt=True, return_tensors="pt",
                                               return_dict=True)["input_ids"]
        with torch.no_grad():
            expected = model.network.generate(prompt, max_new_tokens=3, do_sample=False,
                                              attention_mask=torch.ones_like(prompt))
        assert answer == tokenizer.decode(expected[0, prompt.shape[1]:], skip_special_tokens=True)
        assert target == label


def test_predict__answers_the_last_turn(connected, tmp_path: Path) -> None:
    chosen, data = connected(connect=False)
    rows = [ROWS[0], ROWS[0][:4], turns((U, "the film"), (A, ""))]
    assert put(data, written(rows, "jsonl", tmp_path)) == [True, False, False]
    assert [len(context) for context in data.splits["test"].inputs] == [4, 4, 1]
    data.connect(chosen, 0)
    batch = next(iter(data.test_dataloader()))
    model = chosen.build(data.task).eval()
    texts = dict(zip(batch["index"].tolist(), model.generate(batch, 3), strict=True))
    assert texts[0] == texts[1]
    assert data.splits["test"].columns["messages"][0] == ROWS[0]
    said = Predictions({"id": ["a"], "messages": [ROWS[0]], "prediction": ["x"]}, {})
    assert said.write(tmp_path / "said.parquet").exists()


def test_without_a_template__is_refused(backbone, tmp_path: Path) -> None:
    data = CausalLM(written(ROWS, "jsonl", tmp_path), messages="messages", max_length=24)
    with pytest.raises(Incompatible, match="messages: this tokenizer has no chat template"):
        data.connect(backbone("gpt2"), 0)


def test_stray_byte__is_replaced_with_a_note(tmp_path: Path) -> None:
    rows = [turns(("user", f"hi {i}"), ("assistant", "yo")) for i in range(20)]
    path = Path(written(rows, "jsonl", tmp_path))
    path.write_bytes(path.read_bytes().replace(b"hi 5", b"hi \xe9 5"))
    data = CausalLM(str(path), messages="messages")
    data.load()
    note = f"1 of 20 rows in {path} is not UTF-8; bytes replaced"
    assert note in data.notes
    assert any("\ufffd" in messages[0]["content"] for part in data.splits.values()
               for messages in part.inputs)
    data.notes = []
    put(data, str(path))
    assert data.notes == [note]
