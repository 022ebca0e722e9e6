from __future__ import annotations

import torch
from torch import Tensor

from ftlab.backbones.task_model import Batch, TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible
from ftlab.tasks.base import Task
from ftlab.tasks.losses.base import at_least_float32
from ftlab.techniques.base import LogUniform, Technique
from ftlab.techniques.trained_tensors import (
    computed_at,
    copies,
    in_eval_mode,
    parameters,
    require_trained_backbone,
    statistics,
)
from ftlab.techniques.wrapper import MOVES, Wrapper


class DELTA(Wrapper):
    """Keep what the blocks compute near what they computed before the fit (a wrapper).

    It adds strength / 2 times the squared distance of each watched block's output from the
    pre-trained one's, summed over channels, mean over positions and examples. The pre-trained
    network computes every training batch once more, without gradients. Take it for convolutional
    networks on few images; weights may move where features stay. All channels weigh the same;
    the paper also weighs them by what the loss would be without each.

    Li, Xiong, Wang, Rao, Liu, Chen, Huan (2019), https://arxiv.org/abs/1901.09229

    Args:
        technique: what adapts the model.
        strength: of what is added, 0 or more; 0 is plain training. The usual 0.01 is of a sum
            over a batch of 48, which is 0.48 here.
        blocks: names of the blocks to watch; None for four, spread over those that may change.
    """

    search_space = {"strength": LogUniform(1e-3, 10.0)}
    of_training = True
    never_around = frozenset({MOVES})
    whole_passes = True

    def __init__(self, technique: Technique, strength: float = 0.1,
                 blocks: list[str] | None = None) -> None:
        super().__init__(technique)
        if strength < 0:
            raise ValueError(f"strength must be 0 or more, got {strength}")
        self.strength, self.blocks = strength, blocks
        self.start: dict[str, Tensor] = {}

    def adapt(self, model: TaskModel) -> None:
        self.technique.adapt(model)
        require_trained_backbone(model, "DELTA")
        names = [block.name for block in model.blocks]
        if unknown := sorted(set(self.blocks or ()) - set(names)):
            raise Incompatible(f"DELTA: there is no block {', '.join(unknown)}",
                               f"this backbone's are {', '.join(names)}")
        trains = [any(p.requires_grad for p in block.parameters()) for block in model.blocks]
        changing = names[trains.index(True) if True in trains else 0:]  # or prompts, before all
        ends = sorted({-(-len(changing) * part // 4) - 1 for part in range(1, 5)})
        self.watched = self.blocks or [changing[end] for end in ends]

    def begin_fit(self, model: TaskModel, data: DataModule, steps: int) -> None:
        self.technique.begin_fit(model, data, steps)
        self.start = copies(parameters(model) | statistics(model)) if self.strength else {}

    def objective(self, model: TaskModel, task: Task, batch: Batch) -> Tensor:
        if not self.strength:
            return self.technique.objective(model, task, batch)
        with model.watching(self.watched) as passes:
            loss = self.technique.objective(model, task, batch)
        now = passes[0].blocks
        with torch.no_grad(), in_eval_mode(model):
            then = computed_at(model, self.start,
                               lambda model: model.watched(batch, self.watched).blocks)
        mask = batch["inputs"].get("attention_mask")
        moved = torch.stack([distance(now[name], then[name], mask) for name in self.watched])
        return loss + self.strength / 2 * moved.sum()


def distance(features: Tensor, others: Tensor, mask: Tensor | None = None) -> Tensor:
    """Squared distance of features: summed over channels, mean over positions and examples.

    Args:
        features: of images (B, C, H, W), of tokens (B, T, C), or vectors (B, C).
        others: of the same shape.
        mask: 1 for real tokens, 0 for padding (B, T).
    """
    squares = (at_least_float32(features) - at_least_float32(others)).square()
    if squares.ndim == 4:
        return squares.sum(dim=1).mean()
    squares = squares.sum(dim=-1)
    if mask is None or mask.shape != squares.shape:
        return squares.mean()
    real = mask.to(squares.dtype)
    return ((squares * real).sum(dim=1) / real.sum(dim=1)).mean()
