import hashlib
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ftlab.backbones.timm import Timm
from ftlab.errors import Incompatible, InputError
from ftlab.studies.discover import members
from ftlab.tasks.classification import Classification
from ftlab.techniques.base import Technique, is_norm
from ftlab.techniques.peft_injection import adaptable_layers

timm = pytest.importorskip("timm")
BLOCKS = {  # how many, and the first two
    "resnet18": (9, "stem", "layer1.0"),
    "mobilenetv3_small_050": (13, "stem", "blocks.0.0"),
    "efficientnet_b0": (17, "stem", "blocks.0.0"),
    "convnext_atto": (13, "stem", "stages.0.blocks.0"),
    "vit_tiny_patch16_224": (13, "embeddings", "blocks.0"),
    "deit_tiny_distilled_patch16_224": (13, "embeddings", "blocks.0"),
    "swin_tiny_patch4_window7_224": (13, "embeddings", "layers.0.blocks.0"),
    "regnetx_002": (12, "stem", "s3.b1"),
    "densenet121": (5, "stem", "features.denseblock1"),
    "levit_128s": (14, "stem", "stages.0.blocks.0"),
    "poolformer_s12": (13, "stem", "stages.0.blocks.0"),
    "mobilevit_xxs": (12, "stem", "stages.0.0"),
}
# registered in another order than run, or with branches that meet
TANGLED = ["twins_svt_small", "fastvit_t8", "coat_tiny", "cait_xxs24_224"]
TINY = ["test_vit", "test_resnet", "test_efficientnet", "test_convnext", "test_nfnet"]


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def awake(model: nn.Module) -> nn.Module:
    """Without the zeros that random residual branches start from."""
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return model


def batch_for(backbone: Timm) -> dict:
    size = backbone.preprocessing.size if backbone.preprocessing.fixed_size else (64, 64)
    return {"inputs": {"x": torch.randn(2, 3, *size)}}


@pytest.mark.parametrize("name", [*BLOCKS, *TANGLED])
def test_blocks__every_parameter_in_exactly_one(name, task):
    model = Timm(name, None).build(task, meta=True)
    groups = [*model.blocks, model.head]
    for parameter, _ in model.named_parameters():
        assert sum(group.holds(parameter) for group in groups) == 1, parameter
    assert all(any(True for _ in group.parameters()) for group in groups)
    if name in BLOCKS:
        names = [block.name for block in model.blocks]
        assert (len(names), *names[:2]) == BLOCKS[name]


def reads(tensor: torch.Tensor, place: dict[int, int], known: dict) -> int:
    """The last group among the parameters that a tensor was computed from."""
    waiting = [tensor.grad_fn]
    while waiting:
        node = waiting[-1]
        before = [parent for parent, _ in node.next_functions if parent is not None]
        new = [parent for parent in before if parent not in known]
        if new:
            waiting += new
            continue
        own = place.get(id(getattr(node, "variable", None)), -1)
        known[node] = max([own, *(known[parent] for parent in before)])
        waiting.pop()
    return known[tensor.grad_fn]


@pytest.mark.parametrize("name", [*BLOCKS, *TANGLED])
def test_blocks__read_nothing_of_later_ones(name, task):
    """What a frozen prefix's cache stands on: nothing in a block depends on a later one."""
    backbone = Timm(name, None)
    model = backbone.build(task).eval()
    groups = [*model.blocks, model.head]
    place = {id(p): i for i, group in enumerate(groups) for p in group.parameters()}
    known: dict = {}
    ran: set[int] = set()

    def hook(module, args):
        own = max(place[id(p)] for p in module.parameters(recurse=False))
        ran.add(own)
        for given in args:
            if isinstance(given, torch.Tensor) and given.grad_fn is not None:
                assert reads(given, place, known) <= own, (own, module)

    for module in model.modules():
        if any(id(p) in place for p in module.parameters(recurse=False)) and \
                not any(True for child in module.children() for _ in child.parameters()):
            module.register_forward_pre_hook(hook)
    assert model(batch_for(backbone)).shape == (2, task.outputs)
    assert ran == set(range(len(groups)))


@pytest.mark.parametrize("name", TINY)
def test_build_meta__has_the_real_names_and_shapes(name, task):
    meta, real = (Timm(name, None, dropout=0.1).build(task, meta=meta) for meta in (True, False))
    assert all(p.is_meta for p in meta.parameters())
    assert [(n, p.shape) for n, p in meta.named_parameters()] == \
        [(n, p.shape) for n, p in real.named_parameters()]
    assert [b.paths for b in meta.blocks] == [b.paths for b in real.blocks]
    assert real.training and not any(p.is_meta for p in real.parameters())


@pytest.mark.parametrize("name", [*TINY, "levit_128s"])
@pytest.mark.parametrize("classes", [7, 0])
def test_weights__all_but_the_head_are_loaded(name, classes, task, tmp_path):
    """A network trained for other classes, or saved without a classifier, in either format."""
    plain = timm.create_model(name, num_classes=classes)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    state = {key: tensor.clone() for key, tensor in plain.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    save_file(state, tmp_path / "w.safetensors")
    for file in (tmp_path / "w.pth", tmp_path / "w.safetensors"):
        before = torch.get_rng_state()
        backbone = Timm(name, str(file))
        model = backbone.build(task)
        torch.set_rng_state(before)
        again = Timm(name, str(file)).build(task)
        for key, tensor in model.state_dict().items():
            if not model.head.holds(key):
                assert torch.equal(tensor, state[key.removeprefix("network.")]), key
            assert torch.equal(tensor, again.state_dict()[key]), key
        assert backbone.fingerprint == hashlib.sha256(file.read_bytes()).hexdigest()


def test_weights__position_embeddings_fit_another_image_size(task, tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "w.pth")
    backbone = Timm("test_vit", str(tmp_path / "w.pth"), image_size=96)
    model = backbone.build(task)
    assert backbone.preprocessing.size == (96, 96) and backbone.preprocessing.fixed_size
    assert model(batch_for(backbone)).shape == (2, 3)


@pytest.mark.parametrize(("change", "match"), [
    (lambda s, f: f.write_bytes(f.read_bytes()[:-1000]), "cannot be read"),
    (lambda s, f: f.unlink(), "no such file"),
    (lambda s, f: torch.save([1, 2], f), "no plain state dict"),
    (lambda s, f: torch.save(s | {"extra": torch.zeros(1)}, f), "does not fit: .*extra"),
    (lambda s, f: torch.save({k: v for k, v in s.items() if "layer2" not in k}, f),
     "does not fit: .*layer2"),
    (lambda s, f: torch.save(s | {"conv1.0.weight": torch.zeros(1)}, f), "does not fit"),
])
def test_weights__damage_is_told_with_place_and_mend(change, match, task, tmp_path):
    file = tmp_path / "w.pth"
    state = timm.create_model("test_resnet").state_dict()
    torch.save(state, file)
    change(state, file)
    with pytest.raises(InputError, match=match) as error:
        Timm("test_resnet", str(file)).build(task)
    assert str(file) in error.value.what
    assert error.value.mend and "\n" not in error.value.what


def test_weights__are_held_to_their_sha256(task, tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match="sha256 is"):
        Timm("test_resnet", str(tmp_path / "w.pth"), sha256="ff").build(task)


def test_weights__published_without_network(task):
    """Planning needs none."""
    with pytest.raises(InputError, match="not available from the hub") as error:
        Timm("resnet18.a1_in1k").build(task)
    assert "HF_HUB_OFFLINE" in error.value.mend
    assert Timm("resnet18.a1_in1k").build(task, meta=True).head


@pytest.mark.parametrize(("settings", "match", "mend"), [
    ({"name": "resnt18"}, "no network 'resnt18'", "did you mean resnet18"),
    ({"name": "resnet18.v9"}, "no weights 'v9' of resnet18", "resnet18.a1_in1k"),
    ({"name": "resnet18", "weights": "a1_in1k"}, "a1_in1k is no file", "resnet18.a1_in1k"),
    ({"name": "test_vit", "weights": None, "image_size": 8}, "image_size 8", "multiple"),
    ({"name": "vit_base_patch16_18x2_224"}, "the hub has no weights", "weights: null"),
])
def test_settings__mistakes_are_told(settings, match, mend, task):
    with pytest.raises(InputError, match=match) as error:
        Timm(**settings).build(task)
    assert mend in error.value.mend


@pytest.mark.parametrize(("settings", "match"), [
    ({"dropout": 1.5}, "dropout must be .* got 1.5"),
    ({"image_size": 0}, "image_size must be at least 1, got 0"),
])
def test_settings__out_of_range_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        Timm("resnet18", **settings)


def test_form__other_than_a_vector_is_refused(task):
    with pytest.raises(Incompatible, match="no boxes"):
        Timm("resnet18", None).build(task, output_type="boxes")


def test_library__missing_names_the_extra(task, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="needs the package timm") as error:
        Timm("resnet18", None).build(task)
    assert "ftlab[timm]" in error.value.mend


@pytest.mark.parametrize("name", TINY)
def test_preprocessing__is_timms_own(name):
    ours, own = Timm(name, None).preprocessing, timm.data.resolve_model_data_config(
        timm.create_model(name))
    assert (ours.size, ours.mean, ours.std, ours.interpolation) == \
        (own["input_size"][1:], own["mean"], own["std"], own["interpolation"])


def test_preprocessing__follows_the_tag():
    assert Timm("vit_tiny_patch16_224", None).preprocessing.mean == (0.5, 0.5, 0.5)
    assert Timm("deit_tiny_patch16_224", None).preprocessing.mean != (0.5, 0.5, 0.5)


@pytest.mark.parametrize("name", TINY)
def test_dropout__of_the_head_is_in_the_head(name, task):
    """In eval mode the blocks drop nothing out; the head does, even where timm's own forward did."""
    backbone = Timm(name, None, dropout=0.5)
    model = awake(backbone.build(task)).eval()
    batch = batch_for(backbone)
    torch.testing.assert_close(model(batch), model(batch), rtol=0, atol=0)
    model.head.train()
    assert not torch.equal(model(batch), model(batch))
    assert {m.p for m in model.modules() if type(m) is nn.Dropout} == {0.5}


REACHING = ["LoRA", "IA3", "BottleneckAdapter", "BitFit", "NormTuning", "PartialFineTuning"]


@pytest.mark.parametrize("technique", REACHING)
@pytest.mark.parametrize("name", TINY)
def test_techniques__every_trained_tensor_gets_gradient(name, technique):
    task = Classification()
    task.fit(["a", "b", "c"])
    backbone = Timm(name, None)
    model, adapted = awake(backbone.build(task)).eval(), members(Technique)[technique]()
    batch = batch_for(backbone)
    if (name, technique) == ("test_nfnet", "NormTuning"):
        with pytest.raises(Incompatible, match="has none"):
            adapted.bind(model, task)
        return
    with torch.no_grad():
        before = model(batch)
        adapted.bind(model, task).eval()
        torch.testing.assert_close(model(batch), before)
    adapted.train()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        model(batch).square().sum().backward()
        optimizer.step()
    assert [n for n, p in trained.items() if p.grad is None or not p.grad.any()] == []
    adapted.eval()
    with torch.no_grad():
        unmerged = model(batch)
        adapted.merge(model)
        torch.testing.assert_close(model(batch), unmerged, rtol=1e-3, atol=1e-3)


def test_adaptable_layers__only_those_that_are_called(task):
    """BEiT and Swin v2 read the weight of `qkv`; NFNets standardise their convolutions' weights."""
    for name in ("beit_base_patch16_224", "swinv2_tiny_window8_256"):
        layers = adaptable_layers(Timm(name, None).build(task, meta=True))
        assert {path.rpartition(".")[2] for path in layers} >= {"proj", "fc1", "fc2"}
        assert not any(path.endswith("qkv") for path in layers)
    layers = adaptable_layers(Timm("test_nfnet", None).build(task, meta=True))
    assert layers and {type(layer) for layer in layers.values()} == {nn.Conv2d}


def test_is_norm__with_an_activation_inside_too(task):
    model = Timm("efficientnet_b0", None).build(task, meta=True)
    norms = {type(module).__name__ for module in model.modules() if is_norm(module)}
    assert norms == {"BatchNormAct2d"}
    model = Timm("test_efficientnet", None).build(task, meta=True)
    assert not any(is_norm(m) for m in model.modules() if type(m).__name__ == "ConvBnAct")
