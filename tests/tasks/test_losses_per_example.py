"""A task's loss is the mean of its examples' losses, in every world."""

from __future__ import annotations

import pytest
import torch
from matrix import WORLDS, make_world

from ftlab.data.batches import pick


@pytest.mark.parametrize("name", WORLDS)
def test_losses__have_the_batch_s_as_their_mean(name: str, request: pytest.FixtureRequest) -> None:
    backbone, data = make_world(name, request.getfixturevalue)()
    data.load()
    data.connect(backbone, seed=0)
    model, task = backbone.build(data.task).eval(), data.task
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        outputs = model(batch)
        losses = task.losses(outputs, batch)
        if losses is None:
            assert "losses" in outputs, "only a network that computes its own loss gives none"
            return
        assert losses.shape == (len(batch["index"]),)
        weights = [task.weight(pick(batch, [i])) for i in range(len(losses))]
        mean = sum(w * float(value) for w, value in zip(weights, losses, strict=True)) / sum(weights)
        assert mean == pytest.approx(float(task.loss(outputs, batch)), rel=1e-5)
        assert sum(weights) == pytest.approx(task.weight(batch))
        one = pick(batch, [1])
        torch.testing.assert_close(task.losses(model(one), one), losses[1:2], rtol=1e-3, atol=1e-4)
