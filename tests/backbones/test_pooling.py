from types import SimpleNamespace

import pytest
import torch

from ftlab.backbones.passes import last_token
from ftlab.backbones.pooling import PooledHead
from ftlab.errors import Incompatible

B, T, D = 3, 5, 4
LENGTHS = (5, 2, 1)


def pooled(head: PooledHead, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return head.features(SimpleNamespace(last_hidden_state=hidden), {"attention_mask": mask})


@pytest.mark.parametrize("virtual", [0, 3])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("pooling", "formula"), [
    ("mean", lambda tokens: tokens.mean(0)), ("max", lambda tokens: tokens.amax(0)),
    ("first", lambda tokens: tokens[0]), ("last", lambda tokens: tokens[-1])])
def test_text__real_tokens_alone_count(pooling, formula, side, virtual):
    """Whichever side is padded, and with prompt tuning's virtual tokens in front."""
    hidden = torch.randn(B, virtual + T, D) - 3  # negative: padding must not win the maximum
    mask = torch.zeros(B, T, dtype=torch.long)
    expected = []
    for row, length in enumerate(LENGTHS):
        place = slice(T - length, T) if side == "left" else slice(length)
        mask[row, place] = 1
        expected.append(formula(hidden[row, virtual:][place]))
    torch.testing.assert_close(
        pooled(PooledHead(D, 2, pooling), hidden, mask), torch.stack(expected))
    if pooling == "last":
        torch.testing.assert_close(last_token(hidden, mask), torch.stack(expected))


def test_normalize__gives_unit_length():
    hidden, mask = torch.randn(B, T, D), torch.ones(B, T)
    plain, unit = (pooled(PooledHead(D, 2, normalize=on), hidden, mask) for on in (False, True))
    torch.testing.assert_close(unit, plain / plain.norm(dim=1, keepdim=True))


def test_image__follows_the_rule():
    hidden, pooler = torch.randn(B, D, 3, 3), torch.randn(B, D, 1, 1)
    mapped = SimpleNamespace(last_hidden_state=hidden, pooler_output=None)
    given = SimpleNamespace(last_hidden_state=hidden, pooler_output=pooler)
    tokens = SimpleNamespace(last_hidden_state=hidden.flatten(2).transpose(1, 2))
    torch.testing.assert_close(PooledHead(D, 2).features(mapped, {}), hidden.mean((2, 3)))
    torch.testing.assert_close(PooledHead(D, 2).features(given, {}), pooler[:, :, 0, 0])
    torch.testing.assert_close(PooledHead(D, 2).features(tokens, {}), hidden.mean((2, 3)))
    torch.testing.assert_close(PooledHead(D, 2, "max").features(mapped, {}), hidden.amax((2, 3)))
    torch.testing.assert_close(PooledHead(D, 2, "first").features(tokens, {}), hidden[:, :, 0, 0])
    with pytest.raises(Incompatible, match="needs tokens"):
        PooledHead(D, 2, "first").features(mapped, {})


def test_forward__is_linear_in_features():
    head = PooledHead(D, 2, dropout=0.5).eval()
    hidden, mask = torch.randn(B, T, D), torch.ones(B, T)
    output, inputs = SimpleNamespace(last_hidden_state=hidden), {"attention_mask": mask}
    torch.testing.assert_close(head(output, inputs), head.linear(head.features(output, inputs)))
    head.train()
    assert not torch.equal(head(output, inputs), head(output, inputs))


def test_pooling__unknown_is_refused():
    with pytest.raises(ValueError, match="got 'sum'"):
        PooledHead(D, 2, "sum")
