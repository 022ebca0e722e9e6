"""What a user's `pipeline(...)` answers is what `ftlab predict` answers, of every kind of export.

Examples are of odd lengths: longer than training read, of one word, of words nobody knows.
Where transformers has no pipeline, the lines of the card stand for it.
"""

import json
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import soundfile
import torch
import transformers
from exported import restored
from families import WORDS, tokenizer
from matrix import WORLDS, World, make_world
from PIL import Image
from tokenizers import ByteLevelBPETokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.speech_settings import Speech
from ftlab.data.audio_classification import AudioClassification
from ftlab.data.audio_sources import Speakers
from ftlab.data.causal_lm import CausalLM
from ftlab.data.prediction_split import put
from ftlab.data.speech_recognition import SpeechRecognition
from ftlab.data.text import TextClassification
from ftlab.errors import FtlabError
from ftlab.exports.export import write_model
from ftlab.exports.predictions import predictions_of
from ftlab.exports.restore_run import Restored
from ftlab.tasks.language_modelling import LanguageModelling
from ftlab.tasks.multi_label import MultiLabel
from ftlab.tasks.regression import Regression
from ftlab.tasks.same_prediction import alike
from ftlab.tasks.transcription import Transcription

# PEFT asks transformers for what this calls outdated
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

SIZE = 3
"""Of a batch of a pipeline's."""
AT_ONCE = 32
"""Examples in a batch of a card's."""
TEXTS = ["good", "the plot of the film was very very quite fine and the cast was bad of a score",
         "unheard words", " ".join(["awful film and"] * 9), "a good, fine film",
         " ".join(["great"] * 21), "bad"]
KINDS = ("neg", "pos", "so-so")
PARTS = (0.11, 0.4, 0.83, 0.25, 1.0)
"""Of the longest recording."""
OWN_HEADS = ("classes", "pairs", "labels", "number", "decoder", "decoder_number")


def table_of(folder: Path, columns: dict[str, Sequence[Any]]) -> str:
    """A .jsonl file with these columns."""
    path = folder / "odd.jsonl"
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def named_joy(source: Path, folder: Path, save: type) -> Path:
    """A network with classes of its own, as many as the task has."""
    config = transformers.AutoConfig.from_pretrained(source)
    config.id2label = dict(enumerate(["joy", "anger"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = save(config)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def own_head(name: str, fixture: Callable[[str], Any], folder: Path) -> World:
    """Texts for a network whose head is its own, which is where pipelines look for one."""
    source = fixture("save")("gpt2") if name.startswith("decoder") else fixture("tiny_bert")
    if name == "pairs":  # whose tokenizer puts something between two texts
        source = folder / "bert"
        transformers.BertTokenizer(vocab={word: i for i, word in enumerate(
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}).save_pretrained(source)
        transformers.BertConfig.from_pretrained(fixture("tiny_bert")).save_pretrained(source)
    kind: type = (transformers.GPT2ForSequenceClassification if name.startswith("decoder")
                  else transformers.BertForSequenceClassification)
    network = named_joy(source, folder / "network", kind)
    count = 24
    texts = [f"{('good', 'bad')[i % 2]} {'film ' * (i % 5)}and plot" for i in range(count)]
    columns: dict[str, Sequence[Any]] = {"text": texts}
    settings: dict[str, Any] = {}
    if name.endswith("number"):
        columns["label"] = [1000 + 7.5 * i for i in range(count)]
        settings["task"] = Regression()
    elif name == "labels":
        columns["label"] = [["work", "praise"][:i % 3] or "-" for i in range(count)]
        columns["label"] = [label if label == "-" else "|".join(label) for label in columns["label"]]
        settings["task"] = MultiLabel(nothing="-")
    else:
        columns["label"] = [KINDS[i % 2] for i in range(count)]
    if name == "pairs":
        columns["other"] = texts[::-1]
        settings["text_pair"] = "other"
    (folder / "train").mkdir()
    train = table_of(folder / "train", columns)
    return lambda: (HuggingFace(str(network), dropout=0.0),
                    TextClassification(train, max_length=20, batch_size=4, **settings))


def scores_of(answers: Sequence[Any], names: Sequence[str]) -> list[list[float]]:
    """Scores by class, of what a pipeline has sorted."""
    found = [{answer["label"]: answer["score"] for answer in row} for row in answers]
    assert all(set(row) == set(names) for row in found), found
    return [[row[name] for name in names] for row in found]


@pytest.fixture
def exported(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Any]:
    """A world's model adapted and moved, what `predict` answers of a source, and its export."""
    def make(world: World, source: str, technique: str, merged: bool = False,
             where: Path = tmp_path) -> tuple[Restored, dict[str, list[Any]], Path]:
        def odd() -> tuple[Any, Any]:
            backbone, data = world()
            data.load()
            put(data, source)
            return backbone, data

        work, folder = where / "run", where / "export"
        work.mkdir()
        folder.mkdir()
        found = restored(odd, technique, work)
        answers = predictions_of(found).columns
        write_model(found, folder, merged)
        return found, answers, folder
    return make


def piped(task: str, folder: Path, inputs: Sequence[Any], by_card: bool = False,
          **how: Any) -> Any:
    """What the shortest way to a pipeline answers, one at a time and in batches alike.

    Args:
        task: of the pipeline.
        folder: of the export.
        inputs: for the pipeline.
        by_card: load by its lines, where transformers' network cannot load adapters itself.
        how: what else the pipeline is told.
    """
    model: Any = str(folder)
    parts: dict[str, Any] = {}
    if by_card:
        with pytest.raises(ValueError, match="Could not load model"):
            transformers.pipeline(task, model=str(folder))
        model = card_of(folder)["model"]
        parts = {"feature_extractor": transformers.AutoFeatureExtractor.from_pretrained(folder)}
        if task == "automatic-speech-recognition":
            parts["tokenizer"] = str(folder)
    pipe = transformers.pipeline(task, model=model, **parts)
    alone = [plain(pipe([one], **how)[0]) for one in inputs]
    if task != "automatic-speech-recognition":  # which writes what it hears in the padding
        assert alike(plain(pipe(list(inputs), batch_size=SIZE, **how)), alone, 1e-4)
    return alone


def card_of(folder: Path) -> dict[str, Any]:
    """What the lines define that the card shows."""
    names: dict[str, Any] = {"folder": str(folder)}
    code = (folder / "README.md").read_text().split("```python\n")[1].split("\n```")[0]
    exec(code.replace('folder = "."', ""), names)  # noqa: S102  what the card shows
    return names


def plain(answer: Any) -> Any:
    """With Python's own numbers."""
    if isinstance(answer, dict):
        return {name: plain(value) for name, value in answer.items()}
    if isinstance(answer, list):
        return [plain(value) for value in answer]
    return float(answer) if isinstance(answer, np.floating) else answer


TECHNIQUES = (("FullFineTuning", False), ("LoRA", False), ("LoRA", True), ("IA3", False))
TEXT_CASES = [(name, *how) for name in OWN_HEADS for how in TECHNIQUES[:2]]
TEXT_CASES += [("classes", *how) for how in TECHNIQUES[2:]]


@pytest.mark.parametrize(("name", "technique", "merged"), TEXT_CASES)
def test_text_classification(name: str, technique: str, merged: bool, exported: Callable[..., Any],
                             request: pytest.FixtureRequest, tmp_path: Path) -> None:
    world = own_head(name, request.getfixturevalue, tmp_path)
    columns: dict[str, Any] = {"text": TEXTS} | ({"other": TEXTS[::-1]} if name == "pairs" else {})
    found, answers, folder = exported(world, table_of(tmp_path, columns), technique, merged)
    inputs: list[Any] = TEXTS
    if name == "pairs":
        inputs = [{"text": one, "text_pair": other}
                  for one, other in zip(TEXTS, TEXTS[::-1], strict=True)]
    given = piped("text-classification", folder, inputs, top_k=None, truncation=True)
    names = found.run.data.task.names
    if not names:
        numbers = [row[0]["score"] for row in given]
        if name == "decoder_number":  # its head has no bias that could take the mean in
            train = found.run.data.splits["train"].labels
            mean, std = statistics.fmean(train), statistics.pstdev(train)
            assert given[0][0]["label"] == f"(number - {mean:.6g}) / {std:.6g}"
            numbers = [mean + std * number for number in numbers]
        assert numbers == pytest.approx(answers["prediction"], rel=1e-5)
        return
    expected = [list(row) for row in zip(*(answers[f"score {name}"] for name in names), strict=True)]
    assert alike(scores_of(given, names), expected, 1e-4)
    if name != "labels":
        assert [row[0]["label"] for row in given] == answers["prediction"]


def test_number__of_another_layer_is_refused(
    exported: Callable[..., Any], request: pytest.FixtureRequest, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftlab.exports.export.output_layer",
                        lambda model: model.network.bert.pooler.dense)
    world = own_head("number", request.getfixturevalue, tmp_path)
    with pytest.raises(FtlabError, match="in the target's own units"):
        exported(world, table_of(tmp_path, {"text": TEXTS}), "FullFineTuning")


def test_adapter__found_by_peft_alone(exported: Callable[..., Any],
                                      request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """PEFT's Auto class finds the network, its names and the head by the folder."""
    world = own_head("classes", request.getfixturevalue, tmp_path)
    for technique in ("LoRA", "PromptTuning", "PrefixTuning"):
        (tmp_path / technique).mkdir()
        _, answers, folder = exported(world, table_of(tmp_path, {"text": TEXTS}), technique,
                                      where=tmp_path / technique)
        model = peft.AutoPeftModelForSequenceClassification.from_pretrained(folder).eval()
        pipe = transformers.pipeline("text-classification", model=model, tokenizer=str(folder))
        given = pipe(TEXTS, top_k=None, truncation=True)
        expected = zip(answers["score neg"], answers["score pos"], strict=True)
        assert alike(scores_of(given, ["neg", "pos"]), list(map(list, expected)), 1e-4)
        moved = folder.rename(folder.with_name("moved"))  # the lines go along, the shortest way ends
        assert card_of(moved)["predict"](TEXTS)[0] == answers["prediction"]
        with pytest.raises((OSError, ValueError), match="base-00000000"):
            transformers.pipeline("text-classification", model=str(moved))


def of_bytes(folder: Path, world: World) -> World:
    """The same sentences for a network whose words are bytes with a space in front."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([" ".join(TEXTS)], 300, special_tokens=["<s>", "<pad>", "</s>", "<unk>"])
    folder.mkdir()
    bpe.save_model(str(folder))
    transformers.RobertaTokenizer(str(folder / "vocab.json"),
                                  str(folder / "merges.txt")).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = transformers.RobertaModel(transformers.RobertaConfig(
            vocab_size=310, hidden_size=16, num_attention_heads=2, intermediate_size=24,
            num_hidden_layers=2, max_position_embeddings=40))
        for parameter in network.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.5)
    network.save_pretrained(folder)
    return lambda: (HuggingFace(str(folder), dropout=0.0), world()[1])


@pytest.mark.parametrize(("network", "technique", "merged"), [
    *(("bert", *how) for how in TECHNIQUES[:3]), ("roberta", *TECHNIQUES[0])])
def test_token_classification(network: str, technique: str, merged: bool,
                              exported: Callable[..., Any], request: pytest.FixtureRequest,
                              tmp_path: Path) -> None:
    sentences = [text.split() for text in TEXTS]
    world = make_world("token_classification", request.getfixturevalue)
    if network == "roberta":
        world = of_bytes(tmp_path / "roberta", world)
    _, answers, folder = exported(world, table_of(tmp_path, {"tokens": sentences}), technique, merged)
    given = piped("token-classification", folder, sentences, is_split_into_words=True,
                  ignore_labels=[])
    for words, tokens, tags in zip(sentences, given, answers["prediction"], strict=True):
        starts = np.cumsum([0, *(len(word) + 1 for word in words)])[:-1].tolist()
        first = {token["start"]: token["entity"] for token in reversed(tokens)}
        assert [first.get(start, "O") for start in starts] == tags


def waves(folder: Path, longest: float) -> list[np.ndarray]:
    """Recordings as files, and as what pipelines take."""
    draw = np.random.default_rng(0)
    sounds = [draw.normal(0, 0.1, int(16000 * longest * part)).astype(np.float32)
              for part in PARTS]
    for i, sound in enumerate(sounds):
        soundfile.write(folder / f"{i}.wav", sound, 16000, subtype="FLOAT")
    return sounds


def listening(name: str, fixture: Callable[[str], Any], folder: Path) -> World:
    """Classes or transcripts, written by characters (CTC) or tokens (Whisper)."""
    recordings, speakers = fixture("spoken"), Speakers(("cy",), ("di",))
    if name == "classes":
        return lambda: (HuggingFace(str(fixture("tiny_wav2vec2")), dropout=0.0),
                        AudioClassification(str(recordings / "words"), batch_size=4,
                                            pattern="{label}_{speaker}_{index}"))
    if name == "characters":
        return lambda: (HuggingFace(str(fixture("tiny_wav2vec2")), dropout=0.0),
                        SpeechRecognition(str(recordings / "table.csv"), speakers=speakers,
                                          batch_size=4))
    whisper = folder / "whisper"
    symbols = [*bytes_to_unicode().values(), "<|endoftext|>", "<|startoftranscript|>", "<|en|>",
               "<|transcribe|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    ids = {symbol: i for i, symbol in enumerate(symbols)}
    transformers.WhisperTokenizer(vocab=ids, merges=[]).save_pretrained(whisper)
    start, end = ids["<|startoftranscript|>"], ids["<|endoftext|>"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.WhisperConfig.from_pretrained(
            fixture("tiny_whisper"), max_source_positions=100, max_target_positions=40,
            vocab_size=len(ids), decoder_start_token_id=start, bos_token_id=end,
            eos_token_id=end, pad_token_id=end)
        transformers.WhisperForConditionalGeneration(config).save_pretrained(whisper)
    transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=2).save_pretrained(whisper)
    backbone = HuggingFace(str(whisper), dropout=0.0, speech=Speech(seconds=1))
    if name == "whisper_classes":
        return lambda: (backbone, AudioClassification(str(recordings / "words"), batch_size=4,
                                                      pattern="{label}_{speaker}_{index}"))
    return lambda: (backbone, SpeechRecognition(
        str(recordings / "table.csv"), speakers=speakers, batch_size=4,
        task=Transcription(max_new_tokens=20)))


@pytest.mark.parametrize(("technique", "merged"), TECHNIQUES[:2])
@pytest.mark.parametrize("name", ["classes", "characters", "tokens", "whisper_classes"])
def test_speech(name: str, technique: str, merged: bool, exported: Callable[..., Any],
                request: pytest.FixtureRequest, tmp_path: Path) -> None:
    sounds = waves(tmp_path, 1.0)
    by_card = technique == "LoRA" and not name.startswith(("tokens", "whisper"))
    world = listening(name, request.getfixturevalue, tmp_path)
    source = table_of(tmp_path, {"audio": [f"{i}.wav" for i in range(len(sounds))]})
    found, answers, folder = exported(world, source, technique, merged)
    if name.endswith("classes"):
        given = piped("audio-classification", folder, sounds, by_card, top_k=None)
        names = found.run.data.task.names
        expected = zip(*(answers[f"score {name}"] for name in names), strict=True)
        assert alike(scores_of(given, names), list(map(list, expected)), 1e-4)
    else:
        given = piped("automatic-speech-recognition", folder, sounds, by_card)
        spelled = [re.sub("<(/?s|unk|pad)>", "", one["text"]) for one in given]  # as it shows symbols
        assert spelled == answers["prediction"]
        assert any(answers["prediction"])


def writing(fixture: Callable[[str], Any], folder: Path) -> World:
    """A decoder whose files ask for samples, penalties and many tokens."""
    network = folder / "decoder"
    tokenizer(decoder=True).save_pretrained(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        decoder = transformers.GPT2LMHeadModel(transformers.GPT2Config(
            vocab_size=20, n_embd=32, n_head=2, n_layer=2, n_positions=32, bos_token_id=2,
            eos_token_id=3, tie_word_embeddings=False))
        for parameter in decoder.parameters():
            if parameter.ndim > 1:  # large enough to write something else for each prompt
                torch.nn.init.normal_(parameter, std=0.6)
    decoder.save_pretrained(network)
    transformers.GenerationConfig(
        do_sample=True, temperature=2.0, repetition_penalty=3.0, max_new_tokens=9, eos_token_id=3,
    ).save_pretrained(network)
    (folder / "train").mkdir()
    train = table_of(folder / "train", {"text": [f"a film {'very ' * (i % 3)}good" for i in range(24)],
                                        "answer": ["good", "not bad"] * 12})
    return lambda: (HuggingFace(str(network), dropout=0.0),
                    CausalLM(train, prompt="the {text} is", response="{answer}", max_length=14,
                             batch_size=4, task=LanguageModelling(max_new_tokens=5)))


@pytest.mark.parametrize(("technique", "merged"), TECHNIQUES[:3])
def test_text_generation(technique: str, merged: bool, exported: Callable[..., Any],
                         request: pytest.FixtureRequest, tmp_path: Path) -> None:
    world = writing(request.getfixturevalue, tmp_path)
    _, answers, folder = exported(world, table_of(tmp_path, {"text": TEXTS}), technique, merged)
    assert len(set(answers["prediction"])) > 3
    prompts = [f"the {text} is" for text in TEXTS]
    given = piped("text-generation", folder, prompts, return_full_text=False, truncation=True)
    assert [one[0]["generated_text"].strip() for one in given] == answers["prediction"]
    assert card_of(folder)["predict"](prompts) == answers["prediction"]


CHAT = ("{% for m in messages %}{{ m['role'][0] }} {{ m['content'] }} [SEP] {% endfor %}"
        "{% if add_generation_prompt %}a {% endif %}")


def prompted(fixture: Callable[[str], Any], folder: Path, **settings: Any) -> World:
    """The decoder of `writing`, which has 32 positions, and prompts that training cuts."""
    backbone, _ = writing(fixture, folder)()
    own = tokenizer(decoder=True)
    own.chat_template = CHAT
    own.save_pretrained(backbone.source)
    rows = [f"{'the film was very ' * 5}{WORDS[i % 8]} good" for i in range(24)]
    columns: dict[str, Sequence[Any]] = {"prompt": rows, "response": ["good", "very bad of it"] * 12}
    if "messages" in settings:
        columns = {"messages": [[{"role": "user", "content": row[:16]},
                                 {"role": "assistant", "content": answer},
                                 {"role": "user", "content": "the plot of a film"},
                                 {"role": "assistant", "content": "good"}]
                                for row, answer in zip(*columns.values(), strict=True)]}
    train = table_of(folder / "train", columns)
    task = LanguageModelling(max_new_tokens=settings.pop("most", 5))
    return lambda: (HuggingFace(backbone.source, dropout=0.0),
                    CausalLM(train, batch_size=4, task=task, **settings))


def test_prompts__that_were_cut_are_answered_as_if_nobody_knew_their_answers(
    exported: Callable[..., Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The run's own test prompts, which its answers leave less room: the lines know none."""
    world = prompted(request.getfixturevalue, tmp_path, max_length=12)
    backbone, data = world()
    data.load()
    (tmp_path / "run").mkdir()
    (tmp_path / "export").mkdir()
    found = restored(world, "FullFineTuning", tmp_path / "run")
    write_model(found, tmp_path / "export")
    prompts = found.run.data.splits["test"].inputs
    ids = found.run.backbone.preprocessing.tokenizer(prompts)["input_ids"]
    assert {len(row) for row in ids} == {22}
    network = card_of(tmp_path / "export")["model"]
    cut = [torch.tensor([row[-10:]]) for row in ids]  # "good" and the end token need two
    tokens = [network.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=5)[0, 10:]
              for row in cut]
    expected = [backbone.preprocessing.tokenizer.decode(row, skip_special_tokens=True)
                for row in tokens]
    assert card_of(tmp_path / "export")["predict"](prompts) == expected


def test_prompts__near_the_last_position(exported: Callable[..., Any], tmp_path: Path,
                                         request: pytest.FixtureRequest) -> None:
    world = prompted(request.getfixturevalue, tmp_path, max_length=30, most=10)
    prompts = ["the film", "good bad film " * 9, "a b", "plot " * 24]
    source = table_of(tmp_path, {"prompt": prompts})
    _, answers, folder = exported(world, source, "FullFineTuning")
    assert card_of(folder)["predict"](prompts) == answers["prediction"]
    assert "prompts of at most 22 tokens" in (folder / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:Position ids are not supported")  # PEFT's, at every token
@pytest.mark.parametrize("technique", ["LoRA", "PromptTuning"])
def test_conversations__lose_the_same_turns(technique: str, exported: Callable[..., Any],
                                            request: pytest.FixtureRequest, tmp_path: Path) -> None:
    def turns(*contents: str, system: str = "") -> list[dict[str, str]]:
        head = [{"role": "system", "content": system}] if system else []
        return head + [{"role": ("user", "assistant")[place % 2], "content": content}
                       for place, content in enumerate(contents)]

    asked = [turns("the film"), turns("the film", "good", "and the plot was very bad"),
             turns("a", "b", "c", "good", "bad film and plot is the"), turns("very " * 20),
             turns("very bad", "bad", "is was of the a", system="the plot of a film")]
    world = prompted(request.getfixturevalue, tmp_path, messages="messages", max_length=16)
    _, answers, folder = exported(world, table_of(tmp_path, {"messages": asked}), technique)
    card = card_of(folder)
    assert card["predict"](asked) == answers["prediction"]
    pipe = transformers.pipeline("text-generation", model=card["model"], tokenizer=str(folder))
    kept = [asked[0], asked[1][2:], asked[2][4:]]
    given = [pipe([one], max_new_tokens=5)[0][0]["generated_text"][-1]["content"] for one in kept]
    assert given == answers["prediction"][:3]
    assert ("a batch has one prompt" in (folder / "README.md").read_text()) == (
        technique == "PromptTuning")


def test_chat__prompts_are_turns_for_pipelines(exported: Callable[..., Any], tmp_path: Path,
                                               request: pytest.FixtureRequest) -> None:
    prompts = ["the film", "good bad", "very"]
    world = prompted(request.getfixturevalue, tmp_path, chat=True, max_length=12)
    _, answers, folder = exported(world, table_of(tmp_path, {"prompt": prompts}), "FullFineTuning")
    told = (folder / "README.md").read_text().replace("\\", "")
    assert '[{"role": "user", "content": prompt}]' in told.split("```")[2]
    pipe = transformers.pipeline("text-generation", model=str(folder))
    given = pipe([[{"role": "user", "content": prompt}] for prompt in prompts], batch_size=2)
    assert [one[0]["generated_text"][-1]["content"] for one in given] == answers["prediction"]


def pictures(folder: Path, sizes: Sequence[tuple[int, int]]) -> list[str]:
    """Files of noise in these sizes, width and height."""
    draw = np.random.default_rng(0)
    for i, (width, height) in enumerate(sizes):
        pixels = draw.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return [f"{i}.png" for i in range(len(sizes))]


SIZES = [(32, 32), (50, 31), (33, 80), (64, 64), (7, 9), (32, 33)]
MANY = 3 * AT_ONCE + 1
SOURCES: dict[str, Callable[[Path], dict[str, Sequence[Any]]]] = {
    "text": lambda _: {"text": (TEXTS * MANY)[:MANY]},
    "first": lambda _: {"first": TEXTS, "second": TEXTS[::-1]},
    "tokens": lambda _: {"tokens": [text.split() for text in TEXTS]},
    "source": lambda _: {"source": TEXTS},
    "audio": lambda folder: {"audio": [f"{i}.wav" for i in range(len(waves(folder, 0.5)))]},
    "image": lambda folder: {"image": pictures(folder, SIZES)},
}
COLUMN = {"text_pairs": "first", "token_classification": "tokens", "seq2seq": "source",
          "audio_classification": "audio", "speech_recognition_ctc": "audio",
          "speech_recognition_whisper": "audio", "image_classification": "image",
          "image_classification_clip": "image", "regression": "image"}


@pytest.mark.parametrize("name", [world for world in WORLDS if world not in (
    "object_detection", "masked_images", "masked_lm", "semantic_segmentation")])
def test_card__answers_as_predict(name: str, exported: Callable[..., Any],
                                  request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """By the lines that it shows, and no more at once than they say."""
    columns = SOURCES[COLUMN.get(name, "text")](tmp_path)
    found, answers, folder = exported(make_world(name, request.getfixturevalue),
                                      table_of(tmp_path, columns), "FullFineTuning")
    names = card_of(folder)
    computed: list[int] = []
    compute = names["compute"]

    def watched(**inputs: Any) -> Any:
        computed.append(len(next(iter(inputs.values()))))
        return compute(**inputs)

    names["compute"] = watched
    examples = found.run.data.splits["test"].inputs
    told, nothing, one = (names["predict"](some) for some in (examples, [], examples[-1:]))
    assert max(computed, default=0) <= AT_ONCE
    card = (folder / "README.md").read_text()
    assert ("whole ones alone" in card) == (name == "speech_recognition_whisper")  # half a second
    if not isinstance(told, tuple):
        assert nothing == []
        assert alike(told, answers["prediction"], 1e-4)
        assert alike(one, told[-1:], 1e-4)
        return
    assert nothing == ([], [])
    scores = [answers[f"score {label}"] for label in found.run.data.task.names]
    assert alike(told[0], answers["prediction"], 0)
    assert alike(told[1], list(map(list, zip(*scores, strict=True))), 1e-4)
    assert alike(one, tuple(part[-1:] for part in told), 1e-4)


@pytest.mark.parametrize(("name", "technique"), [
    ("image_classification", "FullFineTuning"), ("image_classification", "LoRA"),
    ("regression", "FullFineTuning")])
@pytest.mark.parametrize("sizes", [SIZES[:1] * 3, SIZES], ids=["as_read", "odd"])
def test_images(sizes: Sequence[tuple[int, int]], name: str, technique: str,
                exported: Callable[..., Any], request: pytest.FixtureRequest,
                tmp_path: Path) -> None:
    files = pictures(tmp_path, sizes)
    world = make_world(name, request.getfixturevalue)
    found, answers, folder = exported(world, table_of(tmp_path, {"image": files}), technique)
    given = piped("image-classification", folder, [str(tmp_path / file) for file in files],
                  top_k=5)
    if not (names := found.run.data.task.names):
        assert [row[0]["score"] for row in given] == pytest.approx(answers["prediction"], rel=1e-5)
        return
    expected = zip(*(answers[f"score {name}"] for name in names), strict=True)
    assert alike(scores_of(given, names), list(map(list, expected)), 1e-4)

