import pytest
import torch
from torch.nn.functional import cross_entropy

from ftlab.tasks.label_tokens import label_count, stack_labels, token_loss
from ftlab.tasks.sequence_to_sequence import SequenceToSequence
from ftlab.tasks.transcription import Transcription

LABELS = torch.tensor([[3, 1, -100], [0, -100, -100], [2, 2, 4]])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss__is_the_mean_over_the_labels_that_count(smoothing: float) -> None:
    logits = torch.randn(3, 3, 5)
    expected = cross_entropy(logits.flatten(0, 1), LABELS.flatten(), label_smoothing=smoothing)
    torch.testing.assert_close(token_loss(logits, LABELS, smoothing), expected)
    assert label_count(LABELS) == 6


def test_loss__without_labels_is_zero_and_has_a_gradient() -> None:
    logits = torch.randn(1, 3, 5, requires_grad=True)
    loss = token_loss(logits, torch.full((1, 3), -100))
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("task", [SequenceToSequence(label_smoothing=0.1), Transcription()])
def test_loss__of_half_precision_is_computed_in_float32(task) -> None:
    """Its own log-softmax over a vocabulary rounds a loss of 10.4 to 10.4375."""
    half, batch = torch.randn(3, 3, 32_000).bfloat16(), {"target": {"labels": LABELS}}
    assert torch.equal(task.loss(half, batch), task.loss(half.float(), batch))
    assert task.loss(half.double(), batch).dtype == torch.float64


def test_ctc_loss__of_half_precision_is_computed_in_float32() -> None:
    half, lengths = torch.randn(3, 8, 6).bfloat16(), torch.tensor([8, 6, 8])
    batch = {"target": {"labels": LABELS + (LABELS >= 0)}}  # 0 is the blank
    outputs = {"lengths": lengths, "blank": 0}
    losses = [Transcription().loss({**outputs, "logits": logits}, batch)
              for logits in (half, half.float(), half.double())]
    assert torch.equal(losses[0], losses[1])
    assert losses[2].dtype == torch.float64


def test_stack__pads_behind() -> None:
    stacked = stack_labels([{"labels": [], "text": ""}, {"labels": [4, 5], "text": "a b"}])
    assert stacked["labels"].tolist() == [[-100, -100], [4, 5]]
    assert stacked["text"] == ["", "a b"]
