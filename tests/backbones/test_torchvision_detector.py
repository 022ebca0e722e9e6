import copy
from pathlib import Path

import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ftlab.backbones.detector_builders import FAMILIES, Levels
from ftlab.backbones.feature_maps import Trunk, choose_taps, cut, find_taps
from ftlab.backbones.heads.detection_model import DetectionModel, Keep
from ftlab.backbones.torchvision_detector import TorchvisionDetector
from ftlab.backbones.weight_files import last_layer, make_network
from ftlab.errors import Incompatible, InputError

SMALL = Levels(strides=(8, 16, 32), width=32, aspect_ratios=(1.0, 2.0))
TRUNKS = ["resnet18", "densenet121", "efficientnet_b0", "mobilenet_v3_small", "convnext_tiny",
          "swin_t", "vgg11_bn", "shufflenet_v2_x0_5", "googlenet", "regnet_y_400mf", "mnasnet0_5"]


class Boxes:
    output_type = "boxes"
    auto_classes = ()
    outputs = 3


def detector(architecture: str, **settings) -> TorchvisionDetector:
    settings = {"trunk": "shufflenet_v2_x0_5", "weights": None, "levels": SMALL,
                "image_size": 64} | settings
    return TorchvisionDetector(architecture, **settings)


@pytest.fixture
def batch() -> dict:
    def target(boxes: list, labels: list, ignored: list) -> dict:
        return {"boxes": torch.tensor(boxes).float().reshape(-1, 4),
                "labels": torch.tensor(labels, dtype=torch.long),
                "ignored": torch.tensor(ignored, dtype=torch.bool)}
    return {"inputs": {"images": torch.randn(3, 3, 64, 64)}, "target": [
        target([[4, 4, 40, 44], [30, 30, 60, 62]], [0, 2], [False, False]), target([], [], []),
        target([[4, 4, 40, 44], [0, 0, 20, 20]], [1, 0], [False, True])]}


def torchvision_s(model: DetectionModel) -> torch.nn.Module:
    """The same network as torchvision runs it; images are multiples of 32, so nothing is padded."""
    network = copy.deepcopy(model.network.network)
    network.transform = GeneralizedRCNNTransform(64, 64, [0.0] * 3, [1.0] * 3, _skip_resize=True)
    return network


@pytest.mark.parametrize("architecture", FAMILIES)
def test_losses_and_detections__equal_torchvision_s(architecture: str, batch: dict) -> None:
    model = detector(architecture, keep=Keep(score=0.0, most=20)).build(Boxes())
    reference = torchvision_s(model)
    offset = 1 if architecture in ("fasterrcnn", "ssdlite") else 0
    targets = [{"boxes": each["boxes"][~each["ignored"]],
                "labels": each["labels"][~each["ignored"]] + offset} for each in batch["target"]]
    torch.manual_seed(1)
    ours = model.train()(batch)
    torch.manual_seed(1)
    theirs = reference.train()(list(batch["inputs"]["images"]), targets)
    assert ours["detections"] == []
    assert sorted(x.item() for x in ours["losses"].values()) == pytest.approx(
        sorted(x.item() for x in theirs.values()), rel=1e-5)
    found = model.eval()(batch)["detections"]
    expected = reference.eval()(list(batch["inputs"]["images"]))
    for one, other in zip(found, expected, strict=True):
        assert len(one["boxes"]) > 0
        torch.testing.assert_close(one["boxes"], other["boxes"])
        torch.testing.assert_close(one["scores"], other["scores"])
        assert torch.equal(one["labels"], other["labels"] - offset)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_evaluation__repeats_and_leaves_the_generator(architecture: str, batch: dict) -> None:
    model = detector(architecture).build(Boxes()).eval()
    before = torch.get_rng_state()
    first, second = model(batch), model(batch)
    assert torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(first["losses"], second["losses"], rtol=0, atol=0)
    alone = model({"inputs": batch["inputs"]})
    assert alone["losses"] == {}
    torch.testing.assert_close(model.comparable(first), model.comparable(alone))


def test_mode__is_the_model_s_own(batch: dict) -> None:
    model = detector("fasterrcnn").build(Boxes()).train()
    model.network.eval()  # as techniques leave it that freeze the first block
    assert model(batch)["detections"] == []


@pytest.mark.parametrize("architecture", FAMILIES)
def test_parameters__in_one_place_each(architecture: str) -> None:
    model = detector(architecture).build(Boxes(), meta=True)
    held = [name for part in (*model.blocks, model.head) for name, _ in part.named_parameters()]
    assert sorted(held) == sorted(name for name, _ in model.named_parameters())
    assert all("trunk" in path for block in model.blocks for path in block.paths)
    assert not any("trunk.body" in path for path in model.head.paths)


@pytest.mark.parametrize("name", TRUNKS)
def test_maps__have_their_strides(name: str) -> None:
    body = make_network(name, pretrained=False, empty=True).eval()
    body.set_submodule(last_layer(body)[0].split(".")[0], torch.nn.Identity())
    taps, order = find_taps(body)
    chosen = choose_taps(taps, (8, 16), "x")
    cut(body, order, chosen[-1])
    maps = Trunk(body, chosen)(torch.zeros(2, 3, 64, 96, device="meta"))
    assert [tuple(x.shape) for x in maps] == [
        (2, chosen[0].channels, 8, 12), (2, chosen[1].channels, 4, 6)]
    assert chosen[0].channels >= 16


def test_cut__leaves_nothing_unused(batch: dict) -> None:
    model = detector("retinanet", levels=Levels(strides=(8,), width=32)).build(Boxes()).eval()
    sum(model(batch)["losses"].values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_maps__are_read_where_a_technique_put_something() -> None:
    model = detector("fcos", trunk="vgg11_bn", levels=Levels(strides=(8,), width=32)).build(Boxes())
    trunk = model.network.network.backbone.trunk
    images = torch.randn(1, 3, 64, 64)
    [before] = trunk(images)
    old = trunk.body.get_submodule(trunk.taps[0].path)
    trunk.body.set_submodule(trunk.taps[0].path,
                             torch.nn.Sequential(old, torch.nn.Threshold(0.5, 7.0)))
    [after] = trunk(images)
    assert not torch.equal(before, after)


def test_levels__beyond_the_trunk_s(batch: dict) -> None:
    for architecture in FAMILIES:
        levels = Levels(strides=(16, 32, 64), width=32)
        model = detector(architecture, levels=levels).build(Boxes()).eval()
        maps = model.network.network.backbone(batch["inputs"]["images"])
        assert [x.shape[-1] for x in maps.values()] == [4, 2, 1]


def test_weights__of_the_trunk(tiny_trunk: Path) -> None:
    backbone = detector("fasterrcnn", weights=str(tiny_trunk))
    state = torch.load(tiny_trunk, weights_only=True)
    body = backbone.build(Boxes()).network.network.backbone.trunk.body.state_dict()
    assert body
    assert all(torch.equal(tensor, state[name]) for name, tensor in body.items())
    assert backbone.fingerprint != detector("fasterrcnn").fingerprint


@pytest.mark.parametrize("architecture", FAMILIES)
def test_detector_weights__renew_the_predictors_alone(architecture: str, tmp_path: Path) -> None:
    first = detector(architecture).build(Boxes())
    torch.save(first.network.network.state_dict(), tmp_path / "detector.pth")

    class Other(Boxes):
        outputs = 5

    model = detector(architecture, detector_weights=str(tmp_path / "detector.pth")).build(Other())
    assert model.blocks[-1].name != first.blocks[-1].name, "the parts on the trunk are blocks"
    new = {name for name, _ in model.head.named_parameters()}
    old = dict(first.named_parameters())
    for name, parameter in model.named_parameters():
        assert (name in new) or torch.equal(parameter, old[name]), name
    assert all("predictor" in name or "classification_head" in name for name in new)


@pytest.mark.parametrize("name", ["fasterrcnn_mobilenet_v3_large_320_fpn", "retinanet_resnet50_fpn",
                                  "fcos_resnet50_fpn", "ssdlite320_mobilenet_v3_large"])
def test_whole_detectors(name: str, batch: dict) -> None:
    backbone = TorchvisionDetector(name, weights=None)
    assert len(backbone.preprocessing.mean) == 3
    model = backbone.build(Boxes(), meta=True)
    held = [n for part in (*model.blocks, model.head) for n, _ in part.named_parameters()]
    assert sorted(held) == sorted(n for n, _ in model.named_parameters())


@pytest.mark.parametrize(("architecture", "settings", "error", "message"), [
    ("yolo", {}, InputError, "no such architecture"),
    ("fasterrcnn_resnet18_fpn", {}, InputError, "no detection network"),
    ("maskrcnn_resnet50_fpn", {}, Incompatible, "masks or keypoints"),
    ("fcos", {"trunk": "resnet1"}, InputError, "no classification network"),
    ("fcos", {"trunk": "vit_b_16"}, Incompatible, "one size only"),
    ("fcos", {"levels": Levels(strides=(3, 6))}, Incompatible, "no feature map of stride 3, 6"),
    ("fcos", {"levels": Levels(width=48)}, InputError, "32 groups"),
    ("fcos", {"detector_weights": "COCO_V1"}, InputError, "must be a file"),
    ("fcos", {"weights": "/nowhere/x.pth"}, InputError, "x.pth"),
])
def test_refusals(architecture: str, settings: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        detector(architecture, **settings).build(Boxes())
    assert caught.value.mend


def test_refuses_other_forms() -> None:
    with pytest.raises(Incompatible, match="gives no vector"):
        detector("fcos").build(Boxes(), output_type="vector")


@pytest.mark.parametrize("wrong", [
    lambda: Levels(strides=(8, 24)), lambda: Levels(width=0), lambda: Levels(anchor_scales=(0.0,)),
    lambda: Keep(score=2), lambda: Keep(most=0), lambda: detector("fcos", image_size=0),
    lambda: detector("fcos", proposals=0)])
def test_settings__are_checked(wrong) -> None:
    with pytest.raises(ValueError, match="must be"):
        wrong()


def test_head__follows_torch_s_generator() -> None:
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        model = detector("fasterrcnn").build(Boxes())
        heads.append(torch.cat([p.flatten() for p in model.head.parameters()]))
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize("architecture", FAMILIES)
def test_half_precision__keeps_boxes_apart_by_pixels(architecture: str) -> None:
    """Above 256, bfloat16 knows every other pixel alone; boxes must not be rounded to it."""
    levels = Levels(strides=(32,), width=32, aspect_ratios=(1.0, 2.0))
    backbone = detector(architecture, levels=levels, image_size=320,
                        keep=Keep(score=0.0, overlap=1.0, most=10**5))
    model = backbone.build(Boxes()).eval()
    network = model.network.network
    if architecture == "fasterrcnn":
        network.rpn.nms_thresh = 1.0
    for name, parameter in model.named_parameters():  # boxes are the anchors, or around them
        if any(part in name for part in ("bbox", "regression_head.module_list")):
            torch.nn.init.constant_(parameter, 0.75 if name.endswith("bbox_reg.bias") and
                                    architecture == "fcos" else 0.0)
    batch = {"inputs": {"images": torch.randn(1, 3, 320, 320)}, "target": [
        {"boxes": torch.tensor([[201.0, 251.0, 281.0, 319.0]]), "labels": torch.tensor([1]),
         "ignored": torch.tensor([False])}]}
    with torch.no_grad():
        whole = model(batch)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(batch)
    for found in (whole, half):
        assert {x.dtype for x in model.comparable(found)} == {torch.float32}
    [one], [other] = ([found["boxes"] for found in outputs["detections"]]
                      for outputs in (whole, half))
    assert other.dtype == torch.float32
    assert len(other) >= 100
    nearest = (other[:, None] - one[None]).abs().amax(dim=2).min(dim=1).values
    assert nearest.max() < 1e-2
    box = "rpn_box" if architecture == "fasterrcnn" else "bbox_regression"
    torch.testing.assert_close(half["losses"][box], whole["losses"][box], rtol=1e-2, atol=1e-3)


def test_double_precision__stays_double() -> None:
    model = detector("fasterrcnn").build(Boxes()).double().eval()
    with torch.no_grad():
        found = model({"inputs": {"images": torch.randn(1, 3, 64, 64, dtype=torch.float64)}})
    assert {x.dtype for x in model.comparable(found)} == {torch.float64}


def test_sizes__are_said_to_data_modules() -> None:
    sizes = {name: detector(name, levels=Levels(strides=(8, 16, 32, 64), width=32)).preprocessing
             for name in FAMILIES}
    assert {prepare.multiple for prepare in sizes.values()} == {64}
    assert [name for name, prepare in sizes.items() if prepare.fixed_size] == ["ssdlite"]
    whole = TorchvisionDetector("retinanet_resnet50_fpn", weights=None).preprocessing
    assert (whole.multiple, whole.fixed_size) == (32, False)
    ssd = TorchvisionDetector("ssdlite320_mobilenet_v3_large", weights=None).preprocessing
    assert (ssd.multiple, ssd.fixed_size) == (1, False)
