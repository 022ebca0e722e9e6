import pytest
import torch
from torch.nn.functional import normalize

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.image import ImageClassification
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible, InputError
from ftlab.tasks.regression import Regression
from ftlab.techniques.untuned import Untuned
from ftlab.techniques.zero_shot import ZeroShot


@pytest.fixture
def texts(tiny_bert, reviews):
    backbone, data = HuggingFace(str(tiny_bert)), TextClassification(str(reviews), max_length=32)
    data.connect(backbone, 0)
    return backbone, data


def attach(technique, backbone, data):
    technique.prepare(data)
    return technique.bind(backbone.build(data.task, technique.output_type), data.task).eval()


def test_logits__are_scaled_cosines_with_the_mean_of_the_templates(texts):
    backbone, data = texts
    templates = ["a {label} film", "the film was {label}", "{label} {label}"]
    model = attach(ZeroShot(templates, {"bad": "awful"}, scale=3.0), backbone, data).model
    plain = backbone.build(data.task, "embedding").eval()
    batch = next(iter(data.test_dataloader()))
    references = []
    for word in ("awful", "good"):  # `good` has no description
        filled = [f"a {word} film", f"the film was {word}", f"{word} {word}"]
        references.append(normalize(torch.cat([plain.embed_texts([t]) for t in filled]).mean(0), dim=0))
    with torch.no_grad():
        wanted = 3.0 * plain(batch) @ torch.stack(references).T
        torch.testing.assert_close(model(batch), wanted, rtol=1e-4, atol=1e-5)


def test_scale__is_the_network_s_own_and_moves_no_prediction(tiny_clip, shapes, texts):
    backbone, data = HuggingFace(str(tiny_clip)), ImageClassification(str(shapes))
    data.connect(backbone, 0)
    own = attach(ZeroShot(), backbone, data).model
    assert own.scorer.scale == own.logit_scale == pytest.approx(14.2857, rel=1e-3)
    assert attach(ZeroShot(), *texts).model.scorer.scale == 20
    other = attach(ZeroShot(scale=1.0), backbone, data).model
    batch = next(iter(data.test_dataloader()))
    with torch.no_grad():
        assert torch.equal(own(batch).argmax(1), other(batch).argmax(1))


def test_words__decide(texts):
    """Classes named by the very words of the texts are told apart, swapped they are confused."""
    backbone, data = texts
    batch = next(iter(data.test_dataloader()))
    one = attach(ZeroShot(descriptions={"bad": "poor film"}), backbone, data).model
    two = attach(ZeroShot(descriptions={"bad": "good", "good": "poor film"}), backbone, data).model
    with torch.no_grad():
        torch.testing.assert_close(one(batch), two(batch).flip(1))


def test_prepare__refuses_tasks_without_classes_and_unknown_classes(texts, tmp_path):
    with pytest.raises(InputError, match="descriptions has 'god', which is no class"):
        ZeroShot(descriptions={"god": "good"}).prepare(texts[1])
    table = tmp_path / "numbers.csv"
    table.write_text("text,label\n" + "".join(f"good {'film ' * i},{i}\n" for i in range(20)))
    data = TextClassification(str(table), max_length=32, task=Regression())
    data.load()
    with pytest.raises(Incompatible, match="the task Regression does not choose one class"):
        ZeroShot().prepare(data)


def test_adapt__refuses_a_model_without_text_embeddings(texts):
    backbone, data = texts
    with pytest.raises(Incompatible, match="does not embed texts"):
        ZeroShot().adapt(backbone.build(data.task))


@pytest.mark.parametrize(("settings", "said"), [
    ({"templates": []}, "templates must not be empty"),
    ({"templates": ["a film"]}, "must have {label} in it, got 'a film'"),
    ({"scale": 0.0}, "scale must be above 0, got 0.0")])
def test_constructor__refuses(settings, said):
    with pytest.raises(ValueError, match=said):
        ZeroShot(**settings)


def test_untuned__refuses_a_random_head(texts):
    backbone, data = texts
    with pytest.raises(Incompatible, match="this task's head is new and random"):
        Untuned().adapt(backbone.build(data.task))


def test_untuned__leaves_a_pre_trained_model_as_it_is(texts):
    backbone, data = texts
    model = backbone.build(data.task, "embedding").eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    Untuned().adapt(model)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
