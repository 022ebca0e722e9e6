import pytest
import torch
from torch import nn

from ftlab.backbones.task_model import TaskModel
from ftlab.errors import GuardFailed
from ftlab.techniques.base import Optimization
from ftlab.techniques.lora import LoRA
from ftlab.techniques.prompt_tuning import PromptTuning
from ftlab.training.guards import PATIENCE, TensorGuard, check_identity, check_merge
from ftlab.training.unused_parameters import retire_unused


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.pooler = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.first(x))


@pytest.fixture
def model() -> TaskModel:
    return TaskModel(Network(), [("first", ["first", "pooler"])], head=["head"])


BATCH = {"inputs": {"x": torch.ones(2, 4)}}


def step(model: TaskModel, guard: TensorGuard) -> None:
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    model(BATCH).square().sum().backward()
    guard.note_gradients(model)
    optimizer.step()


def test_retire_unused__makes_buffers_of_what_outputs_ignore(model: TaskModel) -> None:
    outputs = model(BATCH)
    assert retire_unused(model, BATCH) == ["network.pooler.bias", "network.pooler.weight"]
    assert {n for n, _ in model.named_parameters()} == {
        f"network.{layer}.{kind}" for layer in ("first", "head") for kind in ("weight", "bias")
    }
    assert "network.pooler.weight" in model.state_dict()
    assert torch.equal(outputs, model(BATCH))


def test_guard__passes_what_was_declared(model: TaskModel) -> None:
    retire_unused(model, BATCH)
    guard = TensorGuard(model)
    step(model, guard)
    guard.check(model, {name for name, _ in model.named_parameters()})


def test_guard__trained_without_gradient(model: TaskModel) -> None:
    guard = TensorGuard(model)
    step(model, guard)
    with pytest.raises(GuardFailed, match=r"got no gradient: network\.pooler"):
        guard.check(model, {name for name, _ in model.named_parameters()})


def test_guard__trained_never_moved(model: TaskModel) -> None:
    retire_unused(model, BATCH)
    guard = TensorGuard(model)
    model(BATCH).sum().backward()
    guard.note_gradients(model)
    with pytest.raises(GuardFailed, match=r"never moved: .* and 1 more"):
        guard.check(model, {name for name, _ in model.named_parameters()})


def test_guard__frozen_changed(model: TaskModel) -> None:
    guard = TensorGuard(model)
    step(model, guard)
    with pytest.raises(GuardFailed, match=r"changed though frozen: network\.first"):
        guard.check(model, {"network.head.weight", "network.head.bias"})


def test_check_identity__only_where_claimed(model: TaskModel) -> None:
    a, b = [torch.zeros(3)], [torch.ones(3)]
    check_identity(a, a, LoRA(), model)
    check_identity(a, b, PromptTuning(), model)
    with pytest.raises(GuardFailed, match="LoRA claims to start as the identity"):
        check_identity(a, b, LoRA(), model)


def test_check_merge__allows_rounding_alone(model: TaskModel) -> None:
    check_merge([torch.ones(3)], [torch.ones(3) * 1.0001], model)
    with pytest.raises(GuardFailed, match=r"differ by 0\.1"):
        check_merge([torch.ones(3)], [torch.ones(3) * 1.1], model)
    half = model.to(torch.bfloat16)
    large = torch.tensor([20.0, 0.0])
    check_merge([large], [large + 0.4], half)  # 2% of the largest number, in one block
    with pytest.raises(GuardFailed, match="differ by 3"):
        check_merge([large], [large + 3], half)


def updates(model: TaskModel, guard: TensorGuard, trained: set[str], count: int, lr: float = 0.1,
            kind: type = torch.optim.AdamW) -> None:
    groups = [p for n, p in model.named_parameters() if n in trained]
    optimizer = kind(groups, lr=lr, **({} if kind is torch.optim.AdamW else {"momentum": 0.9}))
    for _ in range(count):
        optimizer.zero_grad()
        (model({"inputs": {"x": torch.ones(2, 4).to(groups[0].dtype)}}) - 1).square().sum().backward()
        guard.before_update(model, trained, optimizer)
        optimizer.step()


def test_guard__a_tensor_without_gradient_is_told_after_ten_updates(model: TaskModel) -> None:
    guard, trained = TensorGuard(model), {name for name, _ in model.named_parameters()}
    updates(model, guard, trained, PATIENCE - 1)
    with pytest.raises(GuardFailed, match=r"got no gradient: network\.pooler"):
        updates(model, guard, trained, 1)


def test_guard__a_frozen_tensor_that_changes_is_told_after_ten_updates(model: TaskModel) -> None:
    retire_unused(model, BATCH)
    guard = TensorGuard(model)
    with torch.no_grad():
        model.network.first.weight += 1
    with pytest.raises(GuardFailed, match=r"changed though frozen: network\.first\.weight"):
        updates(model, guard, {"network.head.weight"}, PATIENCE)


def test_guard__what_is_unfrozen_later_has_as_long(model: TaskModel) -> None:
    guard, head = TensorGuard(model), {"network.head.weight"}
    updates(model, guard, head, PATIENCE)
    updates(model, guard, head | {"network.pooler.weight"}, PATIENCE - 1)
    with pytest.raises(GuardFailed, match="got no gradient"):
        updates(model, guard, head | {"network.pooler.weight"}, 1)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_guard__a_tensor_that_rounding_holds_is_said_to_be_that(
        model: TaskModel, kind: type) -> None:
    """1 - 1e-5 is 1 in bfloat16, whose step below 1 is 1/256; 1e-30 moves."""
    retire_unused(model, BATCH)
    model.to(torch.bfloat16)
    with torch.no_grad():
        model.network.first.bias.fill_(1.0)
        for tensor in (model.network.first.weight, model.network.head.weight):
            tensor.mul_(1e-30).add_(1e-30)
        model.network.head.bias.zero_()
    guard, trained = TensorGuard(model), {name for name, _ in model.named_parameters()}
    rate = 1e-5 if kind is torch.optim.AdamW else 1e-3
    updates(model, guard, trained, 20, rate, kind)
    assert (model.network.first.bias == 1).all()
    (note,) = guard.check(model, trained)
    assert note == ("tensors got gradients and stayed where they were, since every update was below "
                    "half a step of their precision: network.first.bias")


def test_guard__a_tensor_put_back_after_updates_that_would_have_moved_it_fails(
        model: TaskModel) -> None:
    retire_unused(model, BATCH)
    guard, trained = TensorGuard(model), {name for name, _ in model.named_parameters()}
    before = model.network.first.weight.detach().clone()
    updates(model, guard, trained, 20, 1e-2)
    model.network.first.weight.data.copy_(before)
    with pytest.raises(GuardFailed, match=r"never moved: network\.first\.weight"):
        guard.check(model, trained)


def test_guard__a_run_in_which_nothing_moves_fails(model: TaskModel) -> None:
    retire_unused(model, BATCH)
    guard, trained = TensorGuard(model), {name for name, _ in model.named_parameters()}
    updates(model, guard, trained, 20, 1e-14)
    with pytest.raises(GuardFailed, match="no tensor moved: every update was below half a step"):
        guard.check(model, trained)


@pytest.mark.parametrize("count", [2, 20])
def test_guard__gradients_of_zero_are_noted_in_a_few_updates_and_fail_in_many(
        model: TaskModel, count: int) -> None:
    retire_unused(model, BATCH)
    model.to(torch.bfloat16)
    with torch.no_grad():
        model.network.head.weight.zero_()
        model.network.head.weight.requires_grad_(False)
        model.network.first.weight.fill_(1.0)  # decay does not move it
    guard = TensorGuard(model)
    trained = {name for name, _ in model.named_parameters()} - {"network.head.weight"}
    updates(model, guard, trained, count, 1e-3)
    if count < PATIENCE:
        assert any("gradients of zero in all 2 updates" in note
                   for note in guard.check(model, trained))
    else:
        with pytest.raises(GuardFailed, match=r"never moved: network\.first"):
            guard.check(model, trained)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "one-cycle"])
def test_schedule__the_only_update_of_a_run_has_a_rate(schedule: str) -> None:
    optim = Optimization(schedule=schedule)
    assert optim.factor(0, 1) == 1.0
    expected = 0.04 if schedule == "one-cycle" else 0.0
    assert optim.factor(0, 20) == pytest.approx(expected), "other runs are as they were"
