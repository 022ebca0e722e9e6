"""Segmentation networks of transformers and torchvision: heads, blocks, weights."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision import models
from transformers import AutoModelForSemanticSegmentation

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.torchvision_segmenter import TorchvisionSegmenter
from ftlab.errors import Incompatible, InputError

TASK = SimpleNamespace(output_type="pixels", auto_classes=("AutoModelForSemanticSegmentation",), outputs=3)


def images(edge: int = 32) -> dict:
    return {"inputs": {"pixel_values": torch.randn(2, 3, edge, edge, generator=torch.Generator().manual_seed(0))}}


@pytest.mark.parametrize("name", ["segformer", "upernet", "beit", "dpt"])
def test_transformers__a_new_last_layer_on_the_checkpoint_s_decoder(name: str, segmenter_folder) -> None:
    folder = segmenter_folder(name)
    model = HuggingFace(str(folder)).build(TASK).eval()
    last = [m for _, m in model.head.named_modules() if isinstance(m, nn.Conv2d)]
    assert len(last) == 1 and last[0].out_channels == 3
    assert [block.name for block in model.blocks][-1] == "decoder"
    # with the checkpoint's own last layer it is transformers' own network
    theirs = AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    path = next(name for name, module in model.network.named_modules() if module is last[0])
    model.network.set_submodule(path, theirs.get_submodule(path))
    with torch.no_grad():
        torch.testing.assert_close(model(images()), theirs(**images()["inputs"]).logits)
    held = {id(p) for part in (*model.blocks, model.head) for p in part.parameters()}
    assert held == {id(p) for p in model.network.parameters()}


def test_transformers__a_new_decoder_where_the_checkpoint_has_none(segmenter_folder) -> None:
    folder = segmenter_folder("segformer of imagenet")
    model = HuggingFace(str(folder)).build(TASK)
    assert {id(p) for p in model.head.parameters()} == {id(p) for p in model.network.decode_head.parameters()}
    assert "decoder" not in [block.name for block in model.blocks]
    meta = HuggingFace(str(folder)).build(TASK, meta=True)
    assert [block.name for block in meta.blocks] == [block.name for block in model.blocks]


def test_transformers__a_decoder_that_is_lacking_is_no_new_one(segmenter_folder, tmp_path: Path) -> None:
    shutil.copytree(segmenter_folder("segformer of imagenet"), tmp_path, dirs_exist_ok=True)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("ForImageClassification", "ForSemanticSegmentation"))
    with pytest.raises(InputError, match=r"the weights lack, .* decode_head"):
        HuggingFace(str(tmp_path)).build(TASK)


def test_transformers__refuses_a_network_that_segments_nothing(save) -> None:
    with pytest.raises(Incompatible, match=r"transformers has no resnet that segments images"):
        HuggingFace(str(save("resnet"))).build(TASK)


TINY = "lraspp_mobilenet_v3_large"


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", TINY])
def test_torchvision__trunk_s_weights_and_a_new_top(name: str, tmp_path: Path) -> None:
    trunk = models.get_model(name.partition("_")[2], weights=None)
    file = tmp_path / "trunk.pth"
    torch.save(trunk.state_dict(), file)
    backbone = TorchvisionSegmenter(name, str(file))
    model = backbone.build(TASK)
    top = {id(p) for p in model.network.classifier.parameters()}
    assert {id(p) for p in model.head.parameters()} == top
    theirs = {tuple(p.shape): p for p in trunk.parameters()}
    first = next(p for _, p in model.blocks[0].named_parameters() if p.ndim == 4)
    assert torch.equal(first, next(p for p in theirs.values() if p.shape == first.shape))
    batch = {"inputs": {backbone.preprocessing.input_name: torch.randn(2, 3, 48, 64)}}
    assert model.eval()(batch).shape == (2, 3, 48, 64)
    assert sum(1 for _ in model.blocks) > 10


def test_torchvision__whole_weights_keep_all_but_what_says_the_class(tmp_path: Path) -> None:
    whole = models.get_model(TINY, weights=None, weights_backbone=None, num_classes=5)
    file = tmp_path / "whole.pth"
    torch.save(whole.state_dict(), file)
    model = TorchvisionSegmenter(TINY, segmenter_weights=str(file)).build(TASK).eval()
    assert sorted({name.split(".")[-2] for name, _ in model.head.named_parameters()}) == \
        ["high_classifier", "low_classifier"]
    for layer in ("low_classifier", "high_classifier"):
        model.network.classifier.set_submodule(layer, whole.classifier.get_submodule(layer))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model({"inputs": {"input": x}}), whole.eval()(x)["out"])


def test_torchvision__auxiliary_classifiers_in_files_are_left_out(tmp_path: Path) -> None:
    name = "deeplabv3_mobilenet_v3_large"
    whole = models.get_model(name, weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    model = TorchvisionSegmenter(name, segmenter_weights=str(tmp_path / "whole.pth")).build(TASK)
    assert [block.name for block in model.blocks][-1] == "classifier"
    assert not any("aux" in name for name, _ in model.named_parameters())


def test_torchvision__says_what_it_is_not(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no segmentation network 'fcn_resnet5'") as caught:
        TorchvisionSegmenter("fcn_resnet5", None).build(TASK)
    assert "fcn_resnet50" in caught.value.mend
    vector = SimpleNamespace(output_type="vector", auto_classes=(), outputs=3)
    with pytest.raises(Incompatible, match="segments images; it gives no vector"):
        TorchvisionSegmenter(TINY, None).build(vector)
    torch.save({"other": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="does not fit"):
        TorchvisionSegmenter(TINY, str(tmp_path / "other.pth")).build(TASK)


def test_torchvision__meta_has_the_same_parts() -> None:
    backbone = TorchvisionSegmenter(TINY, None)
    shapes = [{name: p.shape for name, p in backbone.build(TASK, meta=meta).named_parameters()}
              for meta in (False, True)]
    assert shapes[0] == shapes[1]
