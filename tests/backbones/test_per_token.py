"""One vector a token: the architecture's own head, or a linear one."""

from collections.abc import Callable

import pytest
import torch
import transformers as hf
from families import TEXT

from ftlab.backbones.huggingface import HuggingFace
from ftlab.errors import Incompatible

FAMILIES = sorted(TEXT.keys() - {"bart"})


class Tokens:
    output_type = "tokens"
    auto_classes = ("AutoModelForTokenClassification",)
    outputs = 5


class LinearTokens(Tokens):
    auto_classes = ()


@pytest.mark.parametrize("task", [Tokens, LinearTokens])
@pytest.mark.parametrize("family", FAMILIES)
def test_outputs__one_row_a_token_from_a_head_that_alone_is_new(
        family: str, task: type[Tokens], backbone: Callable[..., HuggingFace],
        batch_of: Callable[..., dict]) -> None:
    if task is LinearTokens and family == "t5":
        pytest.skip("transformers has T5's own")
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(backbone(family, dropout=0.0).build(task()).eval())
    batch = batch_of(family)
    outputs = models[0](batch)
    assert outputs.shape == (*batch["inputs"]["input_ids"].shape, 5)
    head = {name for name, _ in models[0].head.named_parameters()}
    differs = {name for (name, a), b in zip(models[0].named_parameters(), models[1].parameters(),
                                            strict=True) if not torch.equal(a, b)}
    assert differs and differs <= head
    held = [name for block in models[0].blocks for name, _ in block.named_parameters()]
    assert sorted(held + sorted(head)) == sorted(name for name, _ in models[0].named_parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_own_head__has_the_dropout_before_it(
        family: str, backbone: Callable[..., HuggingFace], batch_of: Callable[..., dict]) -> None:
    """With everything else in eval mode, only the head's dropout makes outputs random."""
    model = backbone(family, dropout=0.5).build(Tokens()).eval()
    model.head.train()
    batch = batch_of(family)
    head = [m for _, m in model.head.named_modules() if isinstance(m, torch.nn.Dropout)]
    assert bool(head) != torch.equal(model(batch), model(batch))


def test_own_head__is_transformers(backbone: Callable[..., HuggingFace],
                                   batch_of: Callable[..., dict]) -> None:
    model, batch = backbone("bert").build(Tokens()).eval(), batch_of("bert")
    assert isinstance(model.network, hf.BertForTokenClassification)
    torch.testing.assert_close(model(batch), model.network(**batch["inputs"]).logits)


def test_encoder_decoder_without_such_a_network__is_refused(
        backbone: Callable[..., HuggingFace]) -> None:
    with pytest.raises(Incompatible, match="no network of bart that tags tokens"):
        backbone("bart").build(Tokens())
