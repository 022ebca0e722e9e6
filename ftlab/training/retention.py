"""Forgetting: tasks that the pre-trained network could do, measured again on the finished one.

Of a retained data set there are, each before and after: `linear`, the score of a logistic
regression fitted on the network's features, anew after the fit, which tells what information is
still there; `fixed`, the score of the old regression on the new features, which tells whether what
stood on the network still works; and `output`, the loss of the pre-trained output layer where the
task keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor, nn

from ftlab.backbones import cache_folder
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import GuardFailed, Incompatible
from ftlab.statistics.cka import linear_cka
from ftlab.techniques.features import Features, linear_head
from ftlab.techniques.logistic_head import LOGISTIC, logistic_optimum
from ftlab.techniques.single_precision import in_single_precision
from ftlab.training import guards, hardware, kept_tensors, precision
from ftlab.training.carried import HEAD, places, slots
from ftlab.training.evaluate import placing
from ftlab.training.event_log import ALIVE, Report
from ftlab.training.run import Run

RETAIN = "retain."
"""Begins the name of a retained data set's metrics."""
_FORMAT = 1  # of what is kept; raised where it is computed otherwise
DISTANCE = "retain/weight_distance"
"""Norm of what the weights have moved by, as a share of theirs."""


def kinds(model: TaskModel, data: DataModule, retained: DataModule) -> list[str]:
    """The kinds of columns of a retained data set: `linear`, which brings `fixed`, and `output`.

    Args:
        model: of the run's task, before it is adapted.
        data: of the run.
        retained: loaded.

    Raises:
        Incompatible: none makes sense.
    """
    task, kept = retained.task, not any(True for _ in model.head.parameters())
    vectors = task.output_type == data.task.output_type == "vector"
    probed = vectors and task.problem_type in LOGISTIC
    found = ["linear"] if probed and linear_head(model) is not None else []
    found += ["output"] if kept and type(task) is type(data.task) else []
    if found:
        return found
    if kept:
        own, other = type(data.task).__name__, type(task).__name__
        raise Incompatible(f"the network keeps its pre-trained output layer for {own}, which cannot "
                           f"be asked {other}", f"retain data of the task {own}")
    if data.task.output_type == "vector" and linear_head(model) is None:
        raise Incompatible("the head has new layers before its last, so that what it reads is not the "
                           "backbone's", "give the backbone a pooling, whose head is one linear layer")
    raise Incompatible("a probe tells classes by one vector of features an example, and here are "
                       f"{type(task).__name__} and {type(data.task).__name__}", "retain data of "
                       "classes, beside a data set whose task has one vector an example")


def measure(run: Run, trainer: Trainer, report: Report) -> dict[str, float]:
    """Measure what a finished run retains.

    Args:
        run: its model is restored, and merged where it can be.
        trainer: of the run.
        report: takes the events.

    Returns:
        `retain.NAME/...`, and how far the weights have moved.

    Raises:
        GuardFailed: the network is what it was, and gives something else.
    """
    device, model = trainer.strategy.root_device, run.technique.model.eval()
    with torch.random.fork_rng(devices=[]):
        fresh = run.backbone.build(run.data.task).eval()
    precision.convert(fresh, run.settings.precision)
    hardware.lay_out(run, fresh)
    fresh, model = fresh.to(device), model.to(device)
    distance, moved = _distance(run, fresh, model)
    still = not moved and all(model.head.holds(name) for name in run.technique.trained)
    results = {DISTANCE: distance}
    for name, retained in run.retain.items():
        report({"event": "progress", "phase": f"retain {name}", "done": 0, "total": 1})
        retained.load()
        retained.connect(run.backbone, 0)  # with one order, since all seeds share what was before
        asked = kinds(fresh, run.data, retained)
        look = _Look(run, name, retained, trainer, lambda: report(ALIVE))
        before = look.known(fresh, asked)
        if still:
            look.check_still(fresh, model, asked)
        after = replace(before, fixed=before.linear) if still else look.again(model, before)
        found = _columns(before, after, retained.task.default_metric)
        results |= {f"{RETAIN}{name}/{column}": value for column, value in found.items()}
        report({"event": "note", "text": f"retain {name}: {_said(found, retained)}"})
        report({"event": "measured", "metrics": results})
    run.data.connect(run.backbone, run.seed)
    return results


@dataclass(frozen=True)
class _Known:
    """Features and scores of a network on a retained data set; None where nothing asks for them.

    Attributes:
        features: of the test examples (N, D), in the order of the split.
        weight, bias: of the regression on the features of the pre-trained network.
        linear: score of a regression fitted on these features.
        fixed: score of that of the pre-trained network on them; None for that network itself, and
            where they are of another width.
        output: loss of the pre-trained output layer.
    """

    features: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    linear: Tensor | None = None
    fixed: Tensor | None = None
    output: Tensor | None = None


@dataclass(frozen=True)
class _Look:
    """Looks at a retained data set with a network.

    Attributes:
        run: of the network.
        name: of the data set.
        retained: connected.
        trainer: of the run.
        alive: called every now and then.
    """

    run: Run
    name: str
    retained: DataModule
    trainer: Trainer
    alive: Callable[[], None]

    def known(self, fresh: TaskModel, asked: list[str]) -> _Known:
        """Compute what the pre-trained network gives, once a machine."""
        def compute() -> dict[str, Tensor]:
            found = vars(self._probed(fresh, None) if "linear" in asked else _Known())
            output = {"output": self._loss(fresh)} if "output" in asked else {}
            return {name: value for name, value in {**found, **output}.items() if value is not None}

        record = self.run.record
        if self.run.plain or "retain" not in record or not cache_folder.may_add():
            return _Known(**compute())
        device = hardware.device_of(self.run.settings)
        name = kept_tensors.key({
            "backbone": record["backbone"], "data": record["retain"][self.name], "asked": asked,
            "task": type(self.run.data.task).__qualname__, "rows": self.retained.fingerprint,
            "weights": self.run.backbone.fingerprint, "precision": self.run.settings.precision,
            "device": str(device), "tf32": self.run.settings.tf32, "format": _FORMAT,
            "versions": kept_tensors.versions()})
        kept = kept_tensors.obtain("retained", name, compute, self.alive)
        return _Known(**{part: tensor.to(self.trainer.strategy.root_device)
                         for part, tensor in kept.items()})

    def again(self, model: TaskModel, before: _Known) -> _Known:
        """Compute what the finished network gives."""
        found = _Known() if before.linear is None else self._probed(model, before)
        output = None if before.output is None else self._loss(model)
        return _Known(**{**vars(found), "output": output})

    def check_still(self, fresh: TaskModel, model: TaskModel, asked: list[str]) -> None:
        """Hold a network in which nothing has changed to the pre-trained one, on a batch.

        Raises:
            GuardFailed: it gives something else.
        """
        if self.run.technique.output_type not in (None, self.run.data.task.output_type):
            return  # a model of another form, which is not asked
        batch = self._place(next(iter(self.retained.eval_loader("test"))))
        with torch.no_grad(), self._context():
            then, now = ([each.watched(batch).features] if "linear" in asked else
                         each.comparable(each(batch)) for each in (fresh, model))
        # weights may lie elsewhere in memory, where sums run in another order
        if not guards.close(now, then, guards.rounding(model)):
            raise GuardFailed(f"retain {self.name}: no weight of the backbone has changed, and "
                              "what it computes has")

    def _probed(self, model: TaskModel, before: _Known | None) -> _Known:
        """The regression on a network's features, and with `before` the old one on them."""
        data, device = self.retained, next(model.parameters()).device
        features = Features(model, data, self._context, alive=self.alive)
        rows, metric = features.train.features, data.task.default_metric
        layer = nn.Linear(rows.shape[1], data.task.outputs, device=device)
        optimum, _ = logistic_optimum(features, layer, None)
        assert optimum.bias is not None
        test = list(features.seen("test"))
        order = torch.cat([each.batch["index"] for each in test]).argsort()

        def score(weight: Tensor, bias: Tensor) -> Tensor:
            found = features.measure(lambda given: given.double() @ weight.T + bias, test)
            return torch.tensor(found[metric], dtype=torch.float64)

        linear = score(optimum.weight, optimum.bias)
        fixed = None
        if before is not None and before.weight is not None and before.bias is not None \
                and before.weight.shape[1] == rows.shape[1]:  # else the head reads something else
            fixed = score(before.weight, before.bias)
        return _Known(torch.cat([each.features for each in test])[order], optimum.weight,
                      optimum.bias, linear, fixed)

    def _loss(self, model: TaskModel) -> Tensor:
        """Mean loss of the test examples."""
        task, total, weight = self.retained.task, 0.0, 0.0
        with torch.no_grad():
            for raw in self.retained.eval_loader("test"):
                self.alive()
                batch = self._place(raw)
                with self._context():
                    outputs = model(batch)
                part = task.weight(batch)
                total += part * float(task.loss(in_single_precision(outputs), batch))
                weight += part
        return torch.tensor(total / weight, dtype=torch.float64)

    def _place(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        return placing(self.trainer, self.trainer.strategy.root_device)(batch)

    @property
    def _context(self) -> precision.Context:
        return self.trainer.precision_plugin.forward_context


def _columns(before: _Known, after: _Known, metric: str) -> dict[str, float]:
    """Before, after and the difference; metrics that are not there are left out."""
    columns: dict[str, float] = {}
    for kind, then, now in (("linear", before.linear, after.linear),
                            ("fixed", before.linear, after.fixed),
                            ("output", before.output, after.output)):
        if then is not None and now is not None:
            columns |= {f"{kind}_before": float(then), f"{kind}_after": float(now),
                        kind: float(now) - float(then)}
    if before.features is not None and after.features is not None:
        columns["cka"] = 1.0 if after.features is before.features else linear_cka(
            before.features.double().cpu().numpy(), after.features.double().cpu().numpy())
    return columns


def _said(found: Mapping[str, float], retained: DataModule) -> str:
    examples, metric = len(retained.splits["test"]), retained.task.default_metric
    parts = [f"{metric if kind == 'linear' else 'loss'} {found[f'{kind}_before']:.4g} before, "
             f"{found[f'{kind}_after']:.4g} after ({kind})" for kind in ("linear", "output")
             if kind in found]
    return f"{' and '.join(parts)}, of {examples} test examples"


def _distance(run: Run, fresh: TaskModel, model: TaskModel) -> tuple[float, bool]:
    """How far the backbone's weights are from the pre-trained ones, and whether any tensor differs.

    Whatever was added and does not merge has no place among them.
    """
    now = {run.places[slot]: name for name, slot in slots(model).items() if slot in run.places}
    now = now or places(model)  # another run's model, whose heads were trained beside its own
    state, start = model.state_dict(keep_vars=True), fresh.state_dict(keep_vars=True)
    gap = size = 0.0
    moved = False
    for place, name in places(fresh).items():
        if place.startswith(HEAD) or place not in now:
            continue
        then, here = start[name].detach(), state[now[place]].detach()
        moved |= not torch.equal(then, here)
        if isinstance(start[name], nn.Parameter):
            gap += float((here.double() - then.double()).square().sum())
            size += float(then.double().square().sum())
    return math.sqrt(gap / size), moved
