"""Vision transformers that reconstruct masked images, against transformers' own forward."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from masked import VISION, save_vit

from ftlab.backbones.forward_trace import NotReplayable
from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.prefix_replay import leading
from ftlab.backbones.timm import Timm
from ftlab.backbones.torchvision import Torchvision
from ftlab.errors import Incompatible
from ftlab.tasks.classification import Classification
from ftlab.tasks.masked_language import MaskedLanguage
from ftlab.tasks.masked_pixels import MaskedPixels
from ftlab.training.carried import places


def batch_of(patch: int, size: int = 32) -> dict[str, Any]:
    """Two images, of which different numbers of patches are masked."""
    draw = torch.Generator().manual_seed(1)
    masked = torch.rand(2, (size // patch) ** 2, generator=draw) < torch.tensor([[0.3], [0.7]])
    return {"inputs": {"pixel_values": torch.randn(2, 3, size, size, generator=draw),
                       "bool_masked_pos": masked},
            "target": {"masked": ["", ""]}, "index": torch.arange(2)}


@pytest.mark.parametrize("family", VISION)
def test_masked_image__outputs_and_loss_are_transformers_own(family: str, tmp_path: Path) -> None:
    folder, task = save_vit(tmp_path, family, head=True), MaskedPixels()
    model = HuggingFace(str(folder)).build(task).eval()
    assert model.head_trained
    assert not model.has_random_head
    reference = hf.AutoModelForMaskedImageModeling.from_pretrained(folder).eval()
    batch = batch_of(reference.config.patch_size)
    outputs, theirs = model(batch), reference(**batch["inputs"])
    torch.testing.assert_close(outputs, theirs.reconstruction)
    loss = task.loss(outputs, batch)
    torch.testing.assert_close(loss, theirs.loss)
    loss.backward()
    theirs.loss.backward()
    for (name, ours), (_, other) in zip(model.network.named_parameters(),
                                        reference.named_parameters(), strict=True):
        torch.testing.assert_close(ours.grad, other.grad, msg=name)


@pytest.mark.parametrize("family", VISION)
def test_masked_image__a_new_head_is_of_the_runs_seed(family: str, tmp_path: Path) -> None:
    backbone = HuggingFace(str(save_vit(tmp_path, family)))
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(backbone.build(MaskedPixels()))
    first, again, other = (dict(model.head.named_parameters()) for model in made)
    assert [name.rpartition(".")[2] for name in first] == ["mask_token", "weight", "bias"]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[n], other[n]) for n in first if not n.endswith("bias"))
    assert made[0].has_random_head
    assert {n for n, _ in backbone.build(MaskedPixels(), meta=True).head.named_parameters()} == set(first)
    batch = batch_of(made[0].trunk.config.patch_size)
    assert made[0](batch).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("family", VISION)
def test_masked_image__has_the_blocks_of_a_classifier(family: str, tmp_path: Path) -> None:
    backbone, task = HuggingFace(str(save_vit(tmp_path, family))), Classification()
    task.fit(["a", "b"])
    masked, classifier = backbone.build(MaskedPixels()), backbone.build(task)
    mine, theirs = places(masked), places(classifier)
    assert ({place for place in mine if not place.startswith("head/")}
            == {place for place in theirs if not place.startswith("head/")})
    for place in theirs:
        if not place.startswith("head/"):
            assert torch.equal(masked.state_dict()[mine[place]], classifier.state_dict()[theirs[place]])
    held = [name for part in (*masked.blocks, masked.head) for name, _ in part.named_parameters()]
    assert sorted(held) == sorted(name for name, _ in masked.named_parameters())


def test_masked_image__has_no_frozen_prefix(tmp_path: Path) -> None:
    """The mask token trains within the first block, whatever else is frozen."""
    model = HuggingFace(str(save_vit(tmp_path))).build(MaskedPixels()).requires_grad_(False)
    model.head.requires_grad_(True)
    with pytest.raises(NotReplayable, match="the first block trains"):
        leading(model)
    model.get_parameter("network.vit.embeddings.mask_token").requires_grad_(False)
    assert leading(model) == len(model.blocks)


def test_masked_image__of_another_size(tmp_path: Path) -> None:
    """Swin has no learnt positions: its loss is transformers' own with images of another size."""
    folder, task = save_vit(tmp_path, "swin", head=True), MaskedPixels()
    model, batch = HuggingFace(str(folder)).build(task).eval(), batch_of(4, 48)
    config = hf.AutoConfig.from_pretrained(folder, image_size=48)
    reference = hf.AutoModelForMaskedImageModeling.from_pretrained(folder, config=config).eval()
    torch.testing.assert_close(task.loss(model(batch), batch), reference(**batch["inputs"]).loss)
    with pytest.raises(Incompatible, match="whose size is a multiple of 8, not 36"):
        model(batch_of(4, 36))


def test_masked_image__refuses_what_reconstructs_nothing(save: Any) -> None:
    for family in ("resnet", "convnext"):
        with pytest.raises(Incompatible, match=f"no {family} that reconstructs masked images") as found:
            HuggingFace(str(save(family))).build(MaskedPixels())
        assert "choose a ViT, DeiT or Swin" in found.value.mend
    for backbone in (Torchvision("resnet18", weights=None), Timm("resnet18", weights=None)):
        with pytest.raises(Incompatible, match="it gives no masked"):
            backbone.build(MaskedPixels(), meta=True)
    with pytest.raises(Incompatible, match="no encoder of vit"):
        HuggingFace(str(save("vit"))).build(MaskedLanguage())
    with pytest.raises(Incompatible, match="no bert that reconstructs"):
        HuggingFace(str(save("bert"))).build(MaskedPixels())
