"""Every wrapper around every technique, in every world, and around every other wrapper.

A file dropped into `ftlab/techniques` is held to this without an edit here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from matrix import FEW, TECHNIQUES, WORLDS, in_turn, make_technique, make_world
from steps import STEPS, Bench, assert_equal, state

from ftlab.errors import Incompatible
from ftlab.techniques.base import Technique
from ftlab.techniques.wrapper import Wrapper

WRAPPERS = [name for name, cls in TECHNIQUES.items() if issubclass(cls, Wrapper)]
PLAIN = [name for name in TECHNIQUES if name not in WRAPPERS]
INNER = next(name for name in PLAIN if TECHNIQUES[name].changes_freezing)  # the head first


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest) -> Callable[[str], Bench]:
    made: dict[str, Bench] = {}

    def make(world: str) -> Bench:
        if world not in made:
            made[world] = Bench(make_world(world, request.getfixturevalue))
        return made[world]

    return make


def attached(bench: Bench, technique: Technique) -> Technique | None:
    """Bound to a fresh model; None where it is refused, in one line what and one line how."""
    try:
        return bench.bound(technique)
    except Incompatible as error:
        assert error.what and "\n" not in error.what + error.mend
        return None


def hold(bench: Bench, technique: Technique) -> None:
    """A wrapped technique trains what it trains, and leaves what it leaves."""
    model = technique.model
    if not technique.trains:
        with torch.no_grad():
            technique.eval().begin_fit(model, bench.data, 0)
            technique.settle(model, bench.data, lambda: 0.0)
        assert not any(module.training for module in model.modules())
        assert all(value.isfinite().all() for value in state(model).values())
        return
    before = untied(model)
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    losses: list[Any] = []
    try:
        bench.fit(technique, watch=losses.append)
    except Incompatible as error:  # a block that this network does not compute
        assert error.mend
        return
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses)
    assert len(losses) == STEPS
    now = dict(model.named_parameters())
    moved = {name for name in now if not torch.equal(now[name], before[name])}
    assert moved and moved <= trains
    assert now.keys() == {name for name, _ in model.named_parameters()}
    assert all(isinstance(p, torch.nn.Parameter) for p in now.values())

    trained = state(model)
    technique.eval()
    with torch.inference_mode():
        context = technique.evaluated(model)
        context.__enter__()
        held = state(model)
        context.__exit__(None, None, None)
    assert_equal(state(model), trained)
    assert {n for n in before if not torch.equal(held[n], before[n])} <= moved | _buffers(model)
    with torch.no_grad():
        technique.settle(model, bench.data, lambda: 0.0)
    assert not any(module.training for module in model.modules())
    after = state(model)
    assert {n for n in before if not torch.equal(after[n], before[n])} <= trains | _buffers(model)
    assert all(value.isfinite().all() for value in after.values())


def untied(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """State by name, of what has several names under the first."""
    names = {name for name, _ in model.named_parameters()} | _buffers(model)
    return {name: tensor for name, tensor in state(model).items() if name in names}


def _buffers(model: torch.nn.Module) -> set[str]:
    return {name for name, _ in model.named_buffers()}


@pytest.mark.parametrize(("inner", "world"), in_turn(PLAIN, FEW))
@pytest.mark.parametrize("name", WRAPPERS)
def test_around_every_technique(name: str, inner: str, world: str, bench: Any) -> None:
    try:
        technique = TECHNIQUES[name](technique=make_technique(inner))
    except ValueError as error:
        assert "\n" not in str(error)
        assert not TECHNIQUES[inner].trains or TECHNIQUES[name].never_around
        return
    here = bench(world)
    wrapped = attached(here, technique)
    if wrapped is not None:
        hold(here, wrapped)


@pytest.mark.parametrize(("name", "world"), in_turn(
    WRAPPERS, [world for world in WORLDS if world not in FEW], one_of=4))
def test_in_every_world(name: str, world: str, bench: Any) -> None:
    here = bench(world)
    wrapped = attached(here, make_technique(name))
    if wrapped is not None:
        hold(here, wrapped)


def around(names: Sequence[str], technique: Technique) -> Technique:
    """Wrappers around a technique, the outermost first."""
    for name in reversed(names):
        technique = TECHNIQUES[name](technique=technique)
    return technique


@pytest.mark.parametrize(("outer", "inner"), in_turn(WRAPPERS, WRAPPERS, one_of=4))
def test_two_deep(outer: str, inner: str, bench: Any) -> None:
    technique = make_technique(INNER)
    try:
        around([outer, inner], technique)
    except ValueError as error:
        assert "\n" not in str(error)
        turned = f"put {inner} around {outer}" in str(error)
        with nullcontext() if turned else pytest.raises(ValueError):
            around([inner, outer], technique)
        return
    assert outer != inner
    for world in reversed(FEW):  # some wrappers go with texts alone, some with images
        each = [attached(bench(world), around([name], make_technique(INNER)))
                for name in (outer, inner)]
        if None not in each:
            hold(bench(world), bench(world).bound(around([outer, inner], make_technique(INNER))))
            return


def test_every_wrapper_goes_around_something(bench: Any) -> None:
    for name in WRAPPERS:
        assert any(attached(bench(world), around([name], make_technique(INNER))) is not None
                   for world in reversed(FEW)), name
