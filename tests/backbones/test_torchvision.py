import hashlib
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from ftlab.backbones.torchvision import Torchvision
from ftlab.errors import InputError

MOBILENET_SHA256 = "b0353104"
VIT = [f"encoder.layers.encoder_layer_{i}" for i in range(12)]
SWIN = [f"features.{s}.{i}" for s, depth in ((1, 2), (3, 2), (5, 6), (7, 2)) for i in range(depth)]
CONVNEXT = [f"features.{s}.{i}" for s, depth in ((1, 3), (3, 3), (5, 9), (7, 3))
            for i in range(depth)]
EFFICIENTNET = [f"features.{s}.{i}" for s, depth in enumerate((1, 2, 2, 3, 3, 4, 1), start=1)
                for i in range(depth)]
BLOCKS = {
    "resnet18": ["stem", *(f"layer{s}.{i}" for s in range(1, 5) for i in range(2))],
    "vgg11": [*(f"features.{i}" for i in (0, 3, 6, 8, 11, 13, 16, 18)),
              "classifier.0", "classifier.3"],
    "vgg11_bn": [*(f"features.{i}" for i in (0, 4, 8, 11, 15, 18, 22, 25)),
                 "classifier.0", "classifier.3"],
    "alexnet": [*(f"features.{i}" for i in (0, 3, 6, 8, 10)), "classifier.1", "classifier.4"],
    "mobilenet_v2": [f"features.{i}" for i in range(19)],
    "mobilenet_v3_small": [f"features.{i}" for i in range(13)],
    "efficientnet_b0": ["features.0", *EFFICIENTNET, "features.8"],
    "vit_b_16": ["embeddings", *VIT],
    "convnext_tiny": ["features.0", *CONVNEXT],
    "swin_t": ["stem", *SWIN],
    "densenet121": ["stem", *(f"features.denseblock{i}" for i in range(1, 5))],
    "squeezenet1_0": ["stem", *(f"features.{i}" for i in (3, 4, 5, 7, 8, 9, 10, 12))],
    "regnet_x_400mf": ["stem", *(f"trunk_output.block{s}.block{s}-{i}" for s, depth in
                                 enumerate((1, 2, 7, 12), start=1) for i in range(depth))],
    "googlenet": ["conv1", "conv2", "conv3", "inception3a", "inception3b", "inception4a",
                  "inception4b", "inception4c", "inception4d", "inception4e", "inception5a",
                  "inception5b"],
}
OTHERS = ["inception_v3", "maxvit_t", "mnasnet0_5", "resnext50_32x4d", "shufflenet_v2_x0_5",
          "swin_v2_t", "efficientnet_v2_s", "regnet_y_400mf", "wide_resnet50_2"]
SMALL = ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "squeezenet1_0",
         "densenet121", "swin_t", "googlenet", "regnet_x_400mf"]


def images(size: int = 64) -> dict:
    return {"inputs": {"x": torch.randn(2, 3, size, size)}}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks__follow_the_architecture(name, task):
    model = Torchvision(name, weights=None).build(task, meta=True)
    assert [block.name for block in model.blocks] == BLOCKS[name]


@pytest.mark.parametrize("name", [*BLOCKS, *OTHERS])
def test_blocks__every_parameter_in_exactly_one(name, task):
    """Of every family of classification networks that torchvision has."""
    model = Torchvision(name, weights=None).build(task, meta=True)
    groups = [*model.blocks, model.head]
    for parameter, _ in model.named_parameters():
        assert sum(group.holds(parameter) for group in groups) == 1, parameter
    assert all(any(True for _ in block.parameters()) for block in model.blocks)
    for block in model.blocks:
        block.requires_grad_(False)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == \
        [n for n, _ in model.head.named_parameters()]


@pytest.mark.parametrize("name", [*SMALL, "vit_b_16", "convnext_tiny", "vgg11_bn"])
def test_blocks__run_in_order(name, task):
    size = 32 if name == "vit_b_16" else 64
    model = Torchvision(name, None, image_size=32 if size == 32 else None).build(task).eval()
    ran: list[str] = []
    for path, module in model.named_modules():
        if not any(True for _ in module.children()) and any(True for _ in module.parameters()):
            module.register_forward_hook(lambda *_, path=path: ran.append(path))
    with torch.no_grad():
        assert model(images(size)).shape == (2, task.outputs)
    places = [next(i for i, group in enumerate([*model.blocks, model.head]) if group.holds(path))
              for path in ran]
    assert places == sorted(places)
    # attention's output layer is called as a function, which no hook sees
    assert set(places) == set(range(len(model.blocks) + 1))


@pytest.mark.parametrize("name", SMALL)
def test_build_meta__has_the_real_names_and_shapes(name, task):
    meta = Torchvision(name, weights=None).build(task, meta=True)
    real = Torchvision(name, weights=None).build(task)
    assert all(p.is_meta for p in meta.parameters())
    assert [(n, p.shape) for n, p in meta.named_parameters()] == \
        [(n, p.shape) for n, p in real.named_parameters()]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "swin_t"])
def test_features__are_what_the_last_layer_reads(name, task):
    model = Torchvision(name, weights=None).build(task).eval()
    batch = images()
    layer = [m for _, m in model.head.named_modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        torch.testing.assert_close(layer(model.features(batch)), model(batch))


def test_features__of_a_convolutional_head_are_averaged(task):
    model = Torchvision("squeezenet1_0", weights=None).build(task).eval()
    with torch.no_grad():
        assert model.features(images()).shape == (2, 512)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(models.squeezenet1_1(weights=None).state_dict(), path)
    return path


def test_weights__all_but_the_head_are_loaded(file, task, tmp_path):
    state = torch.load(file, weights_only=True)
    other = tmp_path / "w.safetensors"
    save_file(state, other)
    for source in (file, other):
        torch.manual_seed(1)
        model = Torchvision("squeezenet1_1", str(source)).build(task)
        torch.manual_seed(1)
        again = Torchvision("squeezenet1_1", str(source)).build(task)
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, again.get_parameter(name))
            if not model.head.holds(name):
                assert torch.equal(parameter, state[name.removeprefix("network.")])
        assert all(p.requires_grad and not p.is_meta for p in model.parameters())
        assert Torchvision("squeezenet1_1", str(source)).fingerprint == \
            hashlib.sha256(source.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["googlenet", "densenet121", "swin_t", "regnet_x_400mf"])
def test_weights__give_the_networks_own_outputs(name, task, tmp_path):
    """Nothing of the network is lost on its way through a file and the meta device."""
    file = tmp_path / "weights.pth"
    options = {"init_weights": False, "transform_input": True} if name == "googlenet" else {}
    plain = models.get_model(name, weights=None, **options)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # statistics of one batch, so that signals reach the end
    plain(torch.randn(4, 3, 64, 64) * 2 + 1)
    plain.eval()
    torch.save(plain.state_dict(), file)
    model = Torchvision(name, str(file)).build(task).eval()
    path = model.head.paths[-1].removeprefix("network.")
    model.network.set_submodule(path, plain.get_submodule(path))
    batch = images()
    with torch.no_grad():
        torch.testing.assert_close(model(batch), plain(**batch["inputs"]))


def test_weights__old_densenet_names_are_known(task, tmp_path):
    state = models.densenet121(weights=None).state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): tensor
           for name, tensor in state.items()}
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "weights.pth")
    Torchvision("densenet121", str(tmp_path / "weights.pth")).build(task)


def test_weights__vision_transformer_fits_another_image_size(task, tmp_path):
    file = tmp_path / "weights.pth"
    plain = models.vit_b_32(weights=None, image_size=64)
    torch.save(plain.state_dict(), file)
    model = Torchvision("vit_b_32", str(file), image_size=96).build(task)
    assert model.network.encoder.pos_embedding.shape == (1, 10, 768)
    assert model(images(96)).shape == (2, 3)
    preprocessing = Torchvision("vit_b_32", str(file), image_size=96).preprocessing
    assert preprocessing.size == (96, 96) and preprocessing.fixed_size


@pytest.mark.shared
def test_mobilenet__real_weights(shared, task):
    file = shared / "models" / "mobilenet_v2-b0353104.pth"
    backbone = Torchvision("mobilenet_v2", str(file), sha256=MOBILENET_SHA256)
    model = backbone.build(task).eval()
    plain = models.mobilenet_v2(weights=None).eval()
    plain.load_state_dict(torch.load(file, weights_only=True))
    batch = images(96)
    with torch.no_grad():
        expected = plain.features(batch["inputs"]["x"]).mean((2, 3))
        torch.testing.assert_close(model.features(batch), expected)
    assert backbone.fingerprint == hashlib.sha256(file.read_bytes()).hexdigest()
    assert backbone.preprocessing.size == (224, 224)


@pytest.mark.parametrize(("change", "match"), [
    (lambda f: f.write_bytes(f.read_bytes()[:-1000]), "cannot be read"),
    (lambda f: f.write_bytes(b""), "cannot be read"),
    (lambda f: f.unlink(), "no such file"),
    (lambda f: torch.save([1, 2], f), "no plain state dict"),
    (lambda f: torch.save({"features.0.weight": torch.zeros(1)}, f), "does not fit"),
    (lambda f: torch.save({}, f), "does not fit: features.0.weight"),
    (lambda f: torch.save(torch.load(f, weights_only=True) | {"extra": torch.zeros(1)}, f),
     "extra missing or unexpected"),
])
def test_weights__damage_is_told_with_place_and_mend(change, match, file, task, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(file.read_bytes())
    change(path)
    with pytest.raises(InputError, match=match) as error:
        Torchvision("squeezenet1_1", str(path)).build(task)
    assert str(path) in error.value.what
    assert error.value.mend
    assert "\n" not in error.value.what


@pytest.mark.parametrize("name", ["weights-00000000.pth", "weights-0000000000000000.pth"])
def test_weights__hash_in_the_name_is_held(name, file, task, tmp_path):
    path = tmp_path / name
    path.write_bytes(file.read_bytes())
    with pytest.raises(InputError, match="sha256 is"):
        Torchvision("squeezenet1_1", str(path)).build(task)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    right = path.rename(tmp_path / f"weights-{digest[:8]}.pth")
    Torchvision("squeezenet1_1", str(right)).build(task)
    with pytest.raises(InputError, match="sha256 is"):
        Torchvision("squeezenet1_1", str(right), sha256="ff").build(task)


@pytest.mark.parametrize("weights", ["IMAGENET1K_SWAG_E2E_V1", "IMAGENET1K_SWAG_LINEAR_V1",
                                     "IMAGENET1K_V1", "IMAGENET1K_V2"])
def test_preprocessing__of_a_downloaded_file_is_its_own(weights, tmp_path):
    entry = models.RegNet_Y_16GF_Weights[weights]
    file = tmp_path / entry.url.rpartition("/")[2]
    ours, theirs = Torchvision("regnet_y_16gf", str(file)).preprocessing, entry.transforms()
    assert (ours.size[0], ours.interpolation) == (theirs.crop_size[0], theirs.interpolation.value)
    assert (ours.mean, ours.std) == (tuple(theirs.mean), tuple(theirs.std))


@pytest.mark.parametrize(("settings", "match", "mend"), [
    ({"name": "mobilnet_v2"}, "no classification network", "did you mean mobilenet_v2"),
    ({"name": "fasterrcnn_resnet50_fpn"}, "no classification network", "choose one of"),
    ({"name": "resnet18", "weights": "IMAGENET1K_V9"}, "IMAGENET1K_V9", "IMAGENET1K_V1"),
    ({"name": "vit_b_16", "weights": None, "image_size": 50}, "image_size 50", "multiple"),
])
def test_settings__mistakes_are_told(settings, match, mend, task):
    with pytest.raises(InputError, match=match) as error:
        Torchvision(**settings).build(task)
    assert mend in error.value.mend


@pytest.mark.parametrize(("settings", "match"), [
    ({"dropout": 1.5}, "dropout must be .* got 1.5"),
    ({"image_size": 0}, "image_size must be at least 1, got 0"),
])
def test_settings__out_of_range_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        Torchvision("resnet18", **settings)


def test_weights__published_without_network(task, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(InputError, match="no route to host") as error:
        Torchvision("resnet18", "IMAGENET1K_V1").build(task)
    assert str(tmp_path) in error.value.mend
    assert Torchvision("resnet18", "IMAGENET1K_V1").build(task, meta=True).head


def test_dropout__replaces_every_probability(task):
    model = Torchvision("efficientnet_b0", weights=None, dropout=0.4).build(task, meta=True)
    assert {m.p for m in model.modules() if type(m) is nn.Dropout} == {0.4}
    assert model.head.holds("network.classifier.0")  # the head's dropout is not the last block's


def test_dropout__is_in_the_block_that_it_follows(task):
    blocks = {b.name: b for b in Torchvision("vgg11", None).build(task, meta=True).blocks}
    assert blocks["classifier.0"].holds("network.classifier.2")
