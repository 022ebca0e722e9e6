"""PEFT's one door: what it refuses before anything runs, what it notes, and its seeds and dtypes."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import OSFConfig
from torch import nn

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.torchvision import Torchvision
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible
from ftlab.tasks.classification import Classification
from ftlab.techniques.base import Technique
from ftlab.techniques.lora import LoRA
from ftlab.techniques.peft_generic import Peft
from ftlab.techniques.peft_injection import attach
from ftlab.techniques.peft_methods import METHODS
from ftlab.techniques.peft_settings import settings
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True


@pytest.fixture
def task() -> Classification:
    made = Classification()
    made.fit(["a", "b"])
    return made


@pytest.mark.parametrize(("arguments", "said"), [
    ({"method": "lohra"}, "PEFT has no method 'lohra' (did you mean 'lora'?"),
    ({"method": "osf"}, "PEFT's osf is not a method of layers that ftlab can hold to its paper"),
    ({"method": "ln_tuning"}, "PEFT's ln_tuning is not a method of layers"),
    ({"method": "adalora"}, "PEFT's adalora needs more than its layers, and is a technique of its own"),
    ({"method": "hira", "config": {"dropout": 0.1}}, ("PEFT's hira has no setting 'dropout' (did you mean "
     "'hira_dropout'?")),
    ({"method": "lora", "config": {"target_modules": "all"}}, "no setting 'target_modules'"),
    ({"method": "boft", "config": {"boft_n_butterfly_factor": 2}}, "no setting 'boft_n_butterfly_factor'"),
    ({"method": "loha", "config": {"r": "many"}}, "config: r takes a whole number, got 'many'"),
    ({"method": "loha", "config": {"r": True}}, "config: r takes a whole number, got True"),
    ({"method": "lora", "config": {"init_lora_weights": "eva"}}, "'eva' needs data or is not exact"),
    ({"method": "lora", "config": {"init_lora_weights": "pissa_niter_4"}}, "init_lora_weights"),
    ({"config": {"r": 0}}, "r must be at least 1, got 0"),
    ({"method": "c3a", "config": {"block_size": -2}}, "block_size must be at least 1, got -2"),
    ({"config": {"lora_dropout": 1.0}}, "lora_dropout must be from 0 to below 1, got 1.0"),
    ({"last": 0}, "last must be at least 1, got 0"),
])
def test_bad_arguments(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        Peft(**arguments)
    assert "\n" not in str(caught.value)


def test_settings__are_plain() -> None:
    for method in METHODS:
        assert not settings(method).keys() & {"target_modules", "task_type", "bias", "eva_config"}
    assert {"r", "lora_alpha", "use_dora", "use_rslora"} <= settings("lora").keys()
    assert Peft("lora", {"lora_alpha": 12.5}).settings == {"lora_alpha": 12.5}


@pytest.mark.parametrize(("technique", "network", "what", "mend"), [
    (Peft("miss"), "resnet18", ("Peft(miss) is right on linear layers, and not on 1x1 convolutions and "
     "larger convolutions"), "hra, ia3, loha, lokr, lora"),
    (Peft("oft", targets=["conv1"]), "resnet18", "not on larger convolutions", "hra"),
    (Peft("oft", {"oft_block_size": 24}), "resnet18", ("oft_block_size 24 does not fit layers of 64 to 128, "
     "128 to 256, 256 to 512 features"), "the largest that does is 16"),
    (Peft("oft", last=99), "resnet18", "Peft(oft)(last=99): the model has", "null for all"),
])
def test_layers_that_do_not_go_with_it(
    technique: Technique, network: str, what: str, mend: str, task: Classification
) -> None:
    model = Torchvision(network, weights=None).build(task, meta=True)
    with pytest.raises(Incompatible) as caught:
        technique.bind(model, task)
    assert what in caught.value.what
    assert mend in caught.value.mend
    assert "\n" not in caught.value.what + caught.value.mend


def test_sizes__are_made_to_fit_and_noted(task: Classification) -> None:
    technique = Peft("boft", targets=["all"])
    model = technique.bind(Torchvision("mobilenet_v2", weights=None).build(task, meta=True), task).model
    assert technique.notes == [("Peft(boft) leaves out features.0.0, of 27 to 32 features: no "
                               "boft_block_size fits it")]
    assert not any("features.0.0" in n for n, p in model.named_parameters() if p.requires_grad)
    assert Peft("hra").notes == []


def study(tmp_path: Path, bert: Path, reviews: Path, techniques: dict[str, Any]) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({
        "name": "small", "seeds": [0], "trainer": {"max_epochs": 1}, "techniques": techniques,
        "backbones": {"bert": {"class_path": "HuggingFace",
                               "init_args": {"source": str(bert), "pooling": "mean"}}},
        "datasets": {"reviews": {"class_path": "TextClassification",
                                 "init_args": {"train": str(reviews), "max_length": 20}}}}))
    return path


def peft(**arguments: Any) -> dict[str, Any]:
    return {"class_path": "Peft", "init_args": arguments}


def test_check__notes_sizes_and_refuses(
    here: Callable, tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    code, output, errors = here("check", study(tmp_path, tiny_bert, reviews, {
        "c": {"class_path": "C3A", "init_args": {}}, "h": peft(method="hira", config={"r": 4})}))
    assert code == 0, errors
    said = " ".join((output + errors).split())
    assert "c: C3A: block_size 256 does not fit layers of 32 to 32 features; 32 does, and is taken" in said
    for arguments, said in (
        ({"method": "vera", "config": {"initial": 4}}, "no setting 'initial' (did you mean 'd_initial'?"),
        ({"method": "c3a", "config": {"block_size": 24}}, "block_size 24 does not fit layers of 32 to 32"),
    ):
        code, output, errors = here("check", study(tmp_path, tiny_bert, reviews, {"t": peft(**arguments)}))
        assert code == 2
        assert said in " ".join(errors.split())


def test_run__notes_what_was_chosen(tiny_bert: Path, reviews: Path, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    execute(Run(HuggingFace(str(tiny_bert), pooling="mean"),
                TextClassification(str(reviews), max_length=16, batch_size=8), Peft("road"),
                TrainerSettings(max_epochs=1), 3, "val/loss", tmp_path), events.append)
    notes = [event["text"] for event in events if event["event"] == "note"]
    assert "Peft(road): group_size 64 does not fit layers of 32 to 32 features; 32 does, and is taken" in notes


def bound(technique: Technique, folder: Path, task: Classification, seed: int = 0,
          **backbone: Any) -> nn.Module:
    torch.manual_seed(seed)
    model = HuggingFace(str(folder), pooling="mean", **backbone).build(task).eval()
    return technique.bind(model, task).eval().model


INPUTS = {"inputs": {"input_ids": torch.tensor([[2, 4, 9, 3], [2, 7, 8, 3]]),
                     "attention_mask": torch.ones(2, 4, dtype=torch.long)}}


@pytest.mark.parametrize("method", [m for m, known in METHODS.items() if known.alone])
def test_half_precision__adapters_are_float32(
    method: str, tiny_bert: Path, task: Classification
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        technique = Peft(method)
        if not METHODS[method].half:
            with pytest.raises(Incompatible, match="float32"):
                bound(technique, tiny_bert, task, dtype="bfloat16")
            return
        plain = bound(Peft(), tiny_bert, task, dtype="bfloat16")(INPUTS)
        model = bound(technique, tiny_bert, task, dtype="bfloat16")
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad and "head" not in n}
        assert trained
        assert {p.dtype for p in trained.values()} == {torch.float32}
        assert {p.dtype for n, p in model.named_parameters() if "base_layer" in n} == {torch.bfloat16}
        outputs = model(INPUTS)
        assert outputs.isfinite().all()
        if technique.identity_at_start:
            torch.testing.assert_close(outputs, plain, rtol=0.05, atol=0.05)
        outputs.float().sum().backward()
        assert any(p.grad is not None for p in trained.values())


@pytest.mark.parametrize("method", ["shira", "fourierft", "vera", "randlora", "waveft"])
def test_random_places__follow_the_run_s_seed(
    method: str, tiny_bert: Path, task: Classification
) -> None:
    """Two seeds start the same trainables in other places, and a seed in the same ones again."""
    def outputs(seed: int) -> torch.Tensor:
        config = {"r": 4} if method == "shira" else {}  # more are all that a tiny layer has
        model = bound(Peft(method, config), tiny_bert, task, seed)
        draw = torch.Generator().manual_seed(1)
        torch.nn.init.ones_(next(model.head.parameters()))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=draw)
        with torch.no_grad():
            return model(INPUTS)

    assert torch.equal(outputs(3), outputs(3))
    assert not torch.allclose(outputs(3), outputs(4))


def test_constant_tensors_are_left_out_of_what_changes(tiny_bert: Path, task: Classification) -> None:
    model = bound(Peft("vera"), tiny_bert, task)
    constant = {n for n, _ in model.named_buffers() if "vera_" in n}
    assert constant
    assert not any(n in constant for n, p in model.named_parameters() if p.requires_grad)


def test_lora__is_the_door_s_default(tiny_bert: Path, task: Classification) -> None:
    ours = bound(LoRA(rank=8, alpha=8), tiny_bert, task)
    theirs = bound(Peft(), tiny_bert, task)
    assert {n: p.shape for n, p in ours.named_parameters() if p.requires_grad} == {
        n: p.shape for n, p in theirs.named_parameters() if p.requires_grad}
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_merge__is_refused_where_weights_cannot_hold_it(tiny_bert: Path, task: Classification) -> None:
    technique = Peft("lily")
    assert technique.merge(bound(technique, tiny_bert, task)) is False


@pytest.mark.parametrize(("method", "config", "identity"), [
    ("lora", {}, True), ("lora", {"init_lora_weights": False}, False), ("fourierft", {}, False),
    ("fourierft", {"init_weights": True}, True), ("c3a", {}, False), ("vblora", {}, False),
    ("hra", {}, True), ("hra", {"init_weights": False}, False),
])
def test_identity__is_the_instance_s(method: str, config: dict[str, Any], identity: bool) -> None:
    assert Peft(method, config).identity_at_start == identity


def test_attach__counts_what_peft_has_adapted(task: Classification) -> None:
    """PEFT's OSF takes convolutions, adapts none of them, and says nothing."""
    model = Torchvision("resnet18", weights=None).build(task)
    with pytest.raises(Incompatible, match="PEFT has adapted 0 of 1 layers, and says nothing"):
        attach(model, OSFConfig(target_modules="conv1"), ["conv1"], "Osf")
