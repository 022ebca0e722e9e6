"""The classifier that a checkpoint ships, read beside the new head that stands in its place."""

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torchvision import models

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.timm import Timm
from ftlab.backbones.torchvision import Torchvision
from ftlab.errors import Incompatible
from ftlab.tasks.classification import Classification
from ftlab.techniques.features import linear_head

CLASSES = 7


@pytest.fixture
def task():
    task = Classification()
    task.fit(["a", "b", "c"])
    return task


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def found(backbone, task, inputs):
    """Probabilities of the checkpoint's classes, by the features that the new head reads."""
    model = backbone.build(task).eval()
    path = linear_head(model)[0].removeprefix("network.")
    with torch.no_grad():
        return backbone.source_layer(path).probabilities(model.features({"inputs": inputs}))


def agree(given, outputs):
    assert given.shape == outputs.shape
    assert given.dtype == torch.float64
    torch.testing.assert_close(given.float(), outputs.softmax(dim=1))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "regnet_y_400mf"])
def test_torchvision__gives_what_its_network_gives(name, task, tmp_path):
    network = models.get_model(name, weights=None, num_classes=CLASSES).eval()
    for parameter in network.parameters():  # else all outputs are nearly the same
        parameter.data += 0.1 * torch.randn_like(parameter)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        backbone = Torchvision(name, str(tmp_path / "weights.pth"))
        agree(found(backbone, task, {"x": images}), network(images))


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit", "test_resnet"])
def test_timm__gives_what_its_network_gives(name, task, tmp_path):
    timm = pytest.importorskip("timm")
    network = timm.create_model(name, num_classes=CLASSES).eval()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    images = torch.randn(3, 3, *network.pretrained_cfg["input_size"][1:])
    with torch.no_grad():
        backbone = Timm(name, str(tmp_path / "weights.safetensors"), dropout=0.2)
        agree(found(backbone, task, {"x": images}), network(images))


def test_timm__reads_the_names_of_efficientnet_pytorch(task, tmp_path):
    """Its names in timm's order: the same network, and the same classifier."""
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_efficientnet", num_classes=CLASSES).eval()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    state = network.state_dict()
    ends = {"conv_stem.weight": "_conv_stem.weight", "classifier.weight": "_fc.weight",
            "classifier.bias": "_fc.bias"}
    theirs = {ends.get(name, f"_blocks.{place}"): tensor
              for place, (name, tensor) in enumerate(state.items())}
    torch.save(theirs, tmp_path / "theirs.pth")
    torch.save(state, tmp_path / "timm.pth")
    images = torch.randn(3, 3, *network.pretrained_cfg["input_size"][1:])
    backbones = [Timm("test_efficientnet", str(tmp_path / f"{name}.pth"))
                 for name in ("theirs", "timm")]
    with torch.no_grad():
        features = [b.build(task).eval().features({"inputs": {"x": images}}) for b in backbones]
        assert features[0].std() > 0
        assert torch.equal(*features)
        agree(found(backbones[0], task, {"x": images}), network(images))


def test_timm__names_of_efficientnet_pytorch_of_another_network(task, tmp_path):
    pytest.importorskip("timm")
    torch.save({"_conv_stem.weight": torch.zeros(2), "_fc.weight": torch.zeros(3, 2)},
               tmp_path / "theirs.pth")
    with pytest.raises(Exception, match="does not fit"):
        Timm("test_efficientnet", str(tmp_path / "theirs.pth")).build(task)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_huggingface__gives_what_its_network_gives(file, task, tiny_bert, tmp_path):
    config = hf.BertConfig.from_pretrained(tiny_bert, num_labels=CLASSES)
    network = hf.BertForSequenceClassification(config).eval()
    network.save_pretrained(tmp_path)
    for path in tiny_bert.glob("*token*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    if file == "pytorch_model.bin":
        torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / file)
        (tmp_path / "model.safetensors").unlink()
    inputs = {"input_ids": torch.randint(4, 20, (3, 8)), "attention_mask": torch.ones(3, 8).long()}
    with torch.no_grad():
        outputs = network(**inputs).logits
        agree(found(HuggingFace(str(tmp_path), pooling="own"), task, inputs), outputs)


def saved_bert(folder, tiny_bert, **settings):
    config = hf.BertConfig.from_pretrained(tiny_bert, **settings)
    hf.BertForSequenceClassification(config).save_pretrained(folder)
    return HuggingFace(str(folder), pooling="own")


@pytest.mark.parametrize(("make", "path", "says"), [
    (lambda bert, tmp: HuggingFace(str(bert), pooling="own"), "classifier", "has no classifier"),
    (lambda bert, tmp: saved_bert(tmp, bert, num_labels=1), "classifier", "one output"),
    (lambda bert, tmp: saved_bert(tmp, bert, num_labels=4,
                                  problem_type="multi_label_classification"),
     "classifier", "do not exclude each other"),
    (lambda bert, tmp: Torchvision("mobilenet_v2", None), "classifier.1", "random"),
    (lambda bert, tmp: Timm("test_resnet", None), "fc", "random"),
], ids=["lacks one", "one output", "several labels", "torchvision", "timm"])
def test_source_layer__not_available(make, path, says, tiny_bert, tmp_path):
    backbone = make(tiny_bert, tmp_path)
    with pytest.raises(Incompatible, match=says) as caught:
        backbone.source_layer(path)
    assert caught.value.mend


def test_source_layer__a_convolution_is_none(tmp_path):
    network = models.squeezenet1_1(weights=None)
    torch.save(network.state_dict(), tmp_path / "squeeze.pth")
    with pytest.raises(Incompatible, match="is not a linear layer"):
        Torchvision("squeezenet1_1", str(tmp_path / "squeeze.pth")).source_layer("classifier.1")
