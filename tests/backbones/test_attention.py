"""Attention by name: the same numbers, and clear words where it is not to be had."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ftlab.backbones.huggingface import HuggingFace
from ftlab.errors import Incompatible, InputError

Save = Callable[[str], Path]


def test_attention__is_computed_by_what_is_named(save: Save, task: object, batch_of: Callable) -> None:
    outputs = []
    for name in ("eager", "sdpa"):
        torch.manual_seed(0)
        model = HuggingFace(str(save("bert")), attention=name).build(task).eval()
        assert model.network.config._attn_implementation == name
        torch.manual_seed(1)
        outputs.append(model(batch_of("bert")))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)


def test_attention__null_is_the_library_s_choice(save: Save, task: object) -> None:
    assert HuggingFace(str(save("bert"))).build(task).network.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("meta", [True, False])
def test_attention__an_architecture_has_it_or_not(save: Save, task: object, meta: bool) -> None:
    with pytest.raises(Incompatible, match=r"no attention sdpa for deberta-v2\n.*eager"):
        HuggingFace(str(save("deberta")), attention="sdpa").build(task, meta=meta)
    HuggingFace(str(save("deberta")), attention="eager").build(task, meta=meta)


def test_attention__that_is_not_installed(save: Save, task: object, monkeypatch: pytest.MonkeyPatch) -> None:
    flash = HuggingFace(str(save("bert")), attention="flash_attention_2")
    monkeypatch.setattr("ftlab.backbones.attention.is_flash_attn_2_available", lambda: False)
    with pytest.raises(InputError, match=r"needs (a GPU|the package flash-attn), which is not here\n.*sdpa"):
        flash.build(task, meta=True)
    monkeypatch.setattr("ftlab.backbones.attention.is_flash_attn_2_available", lambda: True)
    with pytest.raises(InputError, match="weights are float32"):
        flash.build(task, meta=True)
    with pytest.raises(ValueError, match="attention must be one of"):
        HuggingFace("x", attention="fast")
