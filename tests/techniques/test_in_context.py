import importlib

import pytest
import torch

from ftlab.backbones.task_model import TaskModel
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible, InputError
from ftlab.techniques.in_context import InContext
from ftlab.techniques.label_likelihood import LabelLikelihoods, PromptBuilder, tokenise

TEMPLATE = "the film was {text} score {label}"


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest):
    module = importlib.import_module("worlds.text_classification_decoder")
    return module.make(request.getfixturevalue)


@pytest.fixture
def decoder(world):
    backbone, data = world()
    data.connect(backbone, 0)
    return backbone, data


def attach(technique, backbone, data) -> TaskModel:
    technique.prepare(data)
    return technique.bind(backbone.build(data.task, technique.output_type), data.task).eval().model


def log_likelihood(network, before: list[int], label: list[int]) -> float:
    """Of the label, one plain forward over the whole prompt."""
    with torch.no_grad():
        logits = network(input_ids=torch.tensor([before + label])).logits[0]
    every = logits.log_softmax(dim=-1)
    return sum(float(every[len(before) - 1 + i, token]) for i, token in enumerate(label))


@pytest.mark.parametrize("shots", [0, 1])
@pytest.mark.parametrize("per_token", [False, True])
def test_outputs__are_log_likelihoods_of_a_plain_forward(decoder, shots, per_token):
    backbone, data = decoder
    labels = {"bad": "very bad and poor", "good": "good"}
    technique = InContext(TEMPLATE, shots, labels, separator=" ", per_token=per_token)
    model = attach(technique, backbone, data)
    plain = backbone.build(data.task, "text").eval()
    tokenizer = data.preprocessing.tokenizer
    batch = next(iter(data.test_dataloader()))  # padded texts of different length
    with torch.no_grad():
        outputs = model(batch)
    prefix = technique.prompts.demonstrations
    for row, i in zip(outputs, batch["index"].tolist(), strict=True):
        written = f"{prefix}the film was {data.splits['test'].inputs[i]} score"
        before = tokenise(tokenizer, written)
        for value, words in zip(row, labels.values(), strict=True):
            label = tokenise(tokenizer, words)
            wanted = log_likelihood(plain.network, before, label)
            assert float(value) == pytest.approx(wanted / (len(label) if per_token else 1), rel=1e-4)


def test_demonstrations__are_of_each_class_stable_and_drawn_by_the_seed(world):
    def drawn(seed: int) -> str:
        backbone, data = world()
        data.connect(backbone, seed)
        technique = InContext("{text} = {label}", shots=2, separator=" | ")
        technique.prepare(data)
        return technique.prompts.demonstrations

    assert drawn(0) == drawn(0) != drawn(1)
    examples = [example.split(" = ") for example in drawn(0).split(" | ")[:-1]]
    assert sorted(label for _, label in examples) == ["bad"] * 2 + ["good"] * 2
    _, data = world()
    data.load()
    train = dict(zip(data.splits["train"].inputs, data.splits["train"].labels, strict=True))
    assert {text: label for text, label in examples} == {text: train[text] for text, _ in examples}


def test_calibration__makes_a_text_without_content_undecided(decoder):
    backbone, data = decoder
    technique = InContext(TEMPLATE, calibrate=True)
    model = attach(technique, backbone, data)
    empty = tokenise(data.preprocessing.tokenizer, "N/A")
    query = technique.prompts.query(empty)[0]
    with torch.no_grad():
        scores = model.reading.score(model.network, [query], torch.device("cpu"))
    torch.testing.assert_close(scores[0], model.reading.bias)
    batch = next(iter(data.test_dataloader()))
    raw = attach(InContext(TEMPLATE), backbone, data)
    with torch.no_grad():
        torch.testing.assert_close(model(batch), raw(batch) - scores)


def test_query__cuts_the_text_from_the_left_and_nothing_else(decoder):
    tokenizer = decoder[1].preprocessing.tokenizer
    prompts = PromptBuilder(tokenizer, "the film was ", " score", "bad plot ", [[5, 6], [7]], 13)
    assert prompts.room == 13 - 2 - 2
    words = "a very good cast and plot of the film"
    query, dropped = prompts.query(tokenizer(words)["input_ids"])
    assert len(query) == prompts.room
    assert dropped == 4
    assert tokenizer.decode(query) == "the film was and plot of the film score"
    assert prompts.query(tokenizer("good")["input_ids"]) == (
        tokenise(tokenizer, "the film was good score"), 0)


def test_prepare__says_how_many_texts_are_cut(world):
    backbone, data = world()
    data.connect(backbone, 0)
    technique = InContext("{text} score {label}", shots=1)
    technique.prepare(data)
    assert not any("lose their beginning" in note for note in data.notes)
    limit = len(technique.prompts.prefix) + 8
    object.__setattr__(data.preprocessing, "longest", limit)
    technique.prepare(data)
    lengths = [len(text.split()) for text in data.splits["test"].inputs]
    too_long = sum(length + 1 + 1 > 8 for length in lengths)  # with `score` and the label
    assert 0 < too_long < len(lengths)
    assert f"{too_long} of {len(lengths)} test texts lose their beginning" in data.notes[-1]


def test_prepare__refuses_demonstrations_that_do_not_fit(decoder):
    with pytest.raises(InputError, match="do not fit into the 64 that the network reads"):
        InContext(TEMPLATE, shots=10).prepare(decoder[1])
    with pytest.raises(InputError, match="40 shots, and train has 24 examples of 'bad'"):
        InContext(TEMPLATE, shots=40).prepare(decoder[1])
    with pytest.raises(InputError, match="labels has 'god', which is no class"):
        InContext(TEMPLATE, labels={"god": "good"}).prepare(decoder[1])


def test_prepare__refuses_what_is_no_text(request, tiny_resnet, shapes):
    module = importlib.import_module("worlds.image_classification")
    backbone, data = module.make(request.getfixturevalue)()
    data.connect(backbone, 0)
    with pytest.raises(Incompatible, match="ImageClassification with Classification does not"):
        InContext().prepare(data)


def test_build__refuses_an_encoder(request):
    module = importlib.import_module("worlds.text_classification")
    backbone, data = module.make(request.getfixturevalue)()
    data.connect(backbone, 0)
    with pytest.raises(Incompatible, match="bert was not pre-trained to continue a text"):
        attach(InContext(TEMPLATE), backbone, data)


@pytest.mark.parametrize("template", ["{label}", "{text}", "{label} {text}", "{text} {label} is it"])
def test_constructor__wants_the_label_last(template):
    with pytest.raises(ValueError, match=r"template must have {text} once and end in {label}"):
        InContext(template)


def test_constructor__refuses_negative_shots():
    with pytest.raises(ValueError, match="shots must not be negative, got -1"):
        InContext(shots=-1)


def test_begun__is_computed_once(decoder):
    backbone, data = decoder
    model = attach(InContext(TEMPLATE, shots=1), backbone, data)
    lengths = []
    model.network.register_forward_pre_hook(
        lambda _, __, kwargs: lengths.append(kwargs["input_ids"].shape), with_kwargs=True)
    batch = next(iter(data.test_dataloader()))
    with torch.no_grad():
        first, second = model(batch), model(batch)
    torch.testing.assert_close(first, second)
    assert isinstance(model.reading, LabelLikelihoods)
    assert len(lengths) == 3  # demonstrations, and each batch once: labels have one token
    assert lengths[0] == (1, len(model.reading.prompts.prefix))
    assert isinstance(data, TextClassification)
