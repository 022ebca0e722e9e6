import pytest
import torch
from torch import nn

from ftlab.backbones.model import TaskModel
from ftlab.errors import GuardFailed
from ftlab.techniques.lora import LoRA
from ftlab.techniques.prompt_tuning import PromptTuning
from ftlab.training.guards import TensorGuard, check_identity, check_merge, digest
from ftlab.training.unused import retire_unused


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


@pytest.mark.parametrize("size", [0, 3, 8, 8 * 1024, 8 * 5000 + 5])
def test_digest__is_the_sum_of_words_and_of_words_times_odd_numbers(size: int) -> None:
    data = torch.randint(0, 256, (size,), dtype=torch.uint8)
    words = [int.from_bytes(bytes(data[i : i + 8].tolist()), "little") for i in range(0, size, 8)]
    whole = size // 8
    expected = sum(words), sum(word * (2 * i + 1) for i, word in enumerate(words[:whole]))
    assert [value % 2**64 for value in digest(data)] == [value % 2**64 for value in expected]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_digest__sees_any_element_and_their_order(dtype: torch.dtype, size: int) -> None:
    tensor = torch.arange(1, size + 1).to(dtype)
    same = digest(tensor)
    assert digest(tensor.clone()) == same
    for position in {0, size // 2, size - 1}:
        changed = tensor.clone()
        changed[position] = -changed[position]
        assert digest(changed) != same
    if size > 16:
        swapped = tensor.clone()
        swapped[[0, 16]] = swapped[[16, 0]]
        assert digest(swapped) != same


def test_check_identity__only_where_claimed() -> None:
    a, b = [torch.zeros(3)], [torch.ones(3)]
    check_identity(a, a, LoRA())
    check_identity(a, b, PromptTuning())
    with pytest.raises(GuardFailed, match="LoRA claims to start as the identity"):
        check_identity(a, b, LoRA())


def test_check_merge__allows_rounding_alone() -> None:
    check_merge([torch.ones(3)], [torch.ones(3) * 1.0001])
    with pytest.raises(GuardFailed, match=r"differ by 0\.1"):
        check_merge([torch.ones(3)], [torch.ones(3) * 1.1])
