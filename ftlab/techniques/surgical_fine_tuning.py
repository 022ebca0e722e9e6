from __future__ import annotations

from itertools import islice

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.techniques.base import LogUniform, Optimization, Technique, freeze_all_but_head


class SurgicalFineTuning(Technique):
    """Train one block, chosen or found by its gradients, and the head; all others stay frozen.

    Take it where the new data differ from the pre-training's in one way: early blocks for other
    sensors, noise or blur, middle ones for other kinds of the same things, late ones for other
    classes. Without a choice the block is the one whose gradient is the largest in relation to
    its weights before the first step. (The paper's Auto-RGN scales the rates of all tensors by
    that ratio, each epoch anew; here one block trains, as in its comparison by hand.)

    Lee, Chen, Tajwar, Kumar, Yao, Liang, Finn (2023), https://arxiv.org/abs/2210.11466

    Args:
        block: position of the block, 0 for the embeddings or stem, -1 for the last; None to find
            it.
        batches: of training examples, over which gradients are averaged to find it.
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    search_space = {"lr": LogUniform(1e-5, 5e-3)}

    def __init__(
        self,
        block: int | None = None,
        batches: int = 5,
        lr: float = 1e-4,
        optim: Optimization = Optimization(),
    ) -> None:
        super().__init__(lr, optim)
        if batches < 1:
            raise ValueError(f"batches must be at least 1, got {batches}")
        self.block, self.batches = block, batches
        self.changes_freezing = block is None  # type: ignore[misc]  # it depends on the choice

    def adapt(self, model: TaskModel) -> None:
        if self.block is None:
            model.requires_grad_(True)
            return
        blocks = model.blocks
        if not -len(blocks) <= self.block < len(blocks):
            names = ", ".join(f"{i} {block.name}" for i, block in enumerate(blocks))
            raise Incompatible(f"SurgicalFineTuning(block={self.block}): the model has "
                               f"{len(blocks)} blocks", f"choose one of: {names}")
        freeze_all_but_head(model)
        blocks[self.block].requires_grad_(True)

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        if self.block is not None:
            return
        if any(hasattr(parameter, "full_tensor") for parameter in model.parameters()):
            raise Incompatible("SurgicalFineTuning compares the gradients of whole blocks, and "
                               "fsdp shards them", "name a block")
        ratios = relative_gradient_norms(model, data, self.batches)
        chosen = int(ratios.argmax())
        freeze_all_but_head(model)
        model.blocks[chosen].requires_grad_(True)
        self.notes.append(
            f"SurgicalFineTuning trains block {chosen}, {model.blocks[chosen].name}: gradient norm "
            f"over weight norm {float(ratios[chosen]):.2g}, median of all {float(ratios.median()):.2g}")


def relative_gradient_norms(model: TaskModel, data: DataModule, batches: int) -> Tensor:
    """Norm of each block's gradient divided by that of its weights (blocks,), in eval mode.

    Args:
        model: all of its blocks require gradients.
        data: the first training batches of the run are read.
        batches: over how many the gradient is averaged.
    """
    parts = [[p for p in block.parameters() if p.requires_grad] for block in model.blocks]
    weights = [p for part in parts for p in part]
    device, totals = weights[0].device, [torch.zeros_like(p) for p in weights]
    training = [module for module in model.modules() if module.training]
    model.eval()
    for batch in islice(data.with_streams(()).train_dataloader(), batches):
        batch = move_data_to_device(batch, device)
        loss = data.task.loss(model(batch), batch)
        # not `backward`, which would start the reduction of a distributed run
        for total, gradient in zip(totals, torch.autograd.grad(loss, weights, allow_unused=True),
                                   strict=True):
            if gradient is not None:
                total += gradient
    for module in training:
        module.training = True
    if torch.distributed.is_initialized():  # or ranks could choose different blocks
        for total in totals:
            torch.distributed.all_reduce(total)
    moves, found = iter(totals), []
    for part in parts:
        gradient = torch.cat([next(moves).flatten() for _ in part]) if part else torch.zeros(1)
        weight = torch.cat([p.detach().flatten() for p in part]) if part else torch.ones(1)
        found.append(float(gradient.norm() / weight.norm().clamp(min=1e-12)))
    return torch.tensor(found) / batches
