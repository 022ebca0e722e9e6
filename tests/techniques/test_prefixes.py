"""A technique that trains in the last blocks alone leaves a prefix that is played back exactly.

What it adds lies in the block whose computation it changes, so that the prefix ends before it.
"""

import inspect
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from ftlab.backbones.prefix_replay import FrozenPrefix
from ftlab.errors import Incompatible
from ftlab.studies.discover import members
from ftlab.tasks.classification import Classification
from ftlab.techniques.base import Technique
from ftlab.training.unused_parameters import retire_unused

LAST = {name: cls for name, cls in members(Technique).items()
        if "last" in inspect.signature(cls).parameters and not cls.whole_passes}


@pytest.mark.parametrize("family", ["bert", "vit", "resnet"])
@pytest.mark.parametrize("name", LAST)
def test_last__leaves_a_prefix(
    name: str, family: str, backbone: Callable, batch_of: Callable
) -> None:
    task = Classification()
    task.fit(["a", "b", "c"])
    batch = {"index": torch.arange(4), **batch_of(family)}
    model = backbone(family).build(task).eval()
    retire_unused(model, batch)
    try:
        LAST[name](last=1).bind(model, task).eval()
    except Incompatible:
        return
    with torch.no_grad():
        for parameter in model.parameters():  # what is added starts as nothing
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
        plain = model(batch)
        prefix = FrozenPrefix(model, batch)
        assert prefix.blocks == len(model.blocks) - 1
        rows, _ = prefix.record(batch)
        model.playing = prefix.playing
        played = model({**batch, "prefix": SimpleNamespace(rows=lambda index, masks: rows)})
    torch.testing.assert_close(played, plain)
    # the prefix is what the model was before it was adapted, whatever the technique trains
    untouched = backbone(family).build(task).eval()
    retire_unused(untouched, batch)
    names = [block.name for block in model.blocks[: prefix.blocks]][1:]
    with torch.no_grad():
        for (_, one), (_, other) in zip(model.watched(batch, names).blocks.items(),
                                        untouched.watched(batch, names).blocks.items(), strict=True):
            torch.testing.assert_close(one, other)
