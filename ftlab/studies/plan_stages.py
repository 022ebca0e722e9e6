"""The stages of a cell, checked before anything runs."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ftlab.backbones.base import Backbone
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible, InputError
from ftlab.studies.components import Component, build
from ftlab.studies.study import Cell
from ftlab.training import batches
from ftlab.training.carried import HEAD, check_new_tokens, is_output, places
from ftlab.training.trainer_settings import TrainerSettings


class StageData:
    """The data sets of stages, each read once."""

    def __init__(self) -> None:
        self._read: dict[str, DataModule] = {}

    def of(self, component: Component) -> DataModule:
        """The loaded data module that a checked component describes."""
        name = json.dumps(component, sort_keys=True)
        if name not in self._read:
            data: DataModule = build(component)
            data.load()
            self._read[name] = data
        return self._read[name]


def check_stages(cell: Cell, backbone: Backbone, data: DataModule, model: TaskModel,
                 stage_data: StageData) -> str:
    """Hold each stage of a cell to its data, to the network and to what comes after it.

    Args:
        cell: checked.
        backbone: of the cell.
        data: of the cell, loaded and connected.
        model: of the cell's task, before it is adapted.
        stage_data: reads the stages' own data.

    Returns:
        sha256 of the stages' own data; empty where they have none.

    Raises:
        InputError: a stage cannot run.
    """
    if cell.trainer["devices"] > 1:
        raise InputError("a run with stages is trained on one device", "set trainer: {devices: 1}")
    prints = []
    for number, stage in enumerate(cell.before):
        where = f"before/{number}"
        corpus = data if stage["data"] is None else stage_data.of(stage["data"])
        if stage["data"] is not None:
            prints.append(corpus.fingerprint)
        try:
            if stage["data"] is not None:
                _check_unseen(corpus, data)
            _check(stage, backbone, corpus, model, same=stage["data"] is None,
                   head_trained=any(s["carry"] == "all" for s in cell.before[:number]))
        except InputError as error:
            raise type(error)(f"{where}: {error.what}", error.mend) from error
        finally:
            data.connect(backbone, seed=0)
    return hashlib.sha256("".join(prints).encode()).hexdigest() if prints else ""


def _check(stage: dict[str, Any], backbone: Backbone, corpus: DataModule, model: TaskModel,
           same: bool, head_trained: bool) -> None:
    technique = build(stage["technique"])
    if not technique.trains:
        raise Incompatible(f"{type(technique).__name__} trains nothing, so it leaves nothing for "
                           "the next fit", "take a technique that trains")
    if stage["trainer"]["devices"] > 1:
        raise InputError("stages are trained on one device", "set trainer: {devices: 1}")
    corpus.connect(backbone, seed=0)
    settings = TrainerSettings(**stage["trainer"])
    corpus = batches.with_streams(corpus, technique, settings)
    settings = batches.enough_epochs(settings, corpus)
    batches.check_update(technique, corpus, settings)
    corpus.check_plan()
    technique.prepare(corpus)
    begun = backbone.build(corpus.task, technique.output_type, meta=True)
    check_new_tokens(begun)
    begun.head_trained |= head_trained
    there = _shapes(begun)
    technique.bind(begun, corpus.task)
    if stage["select_by"] is not None:
        corpus.task.higher_is_better(stage["select_by"].removeprefix("val/"))
    follows = _shapes(model)
    kept = {place: shape for place, shape in there.items()
            if stage["carry"] == "all" or not place.startswith(HEAD)}
    other = [place for place, shape in kept.items() if follows.get(place) != shape
             and not (place not in follows and is_output(place, model))]
    if other:
        raise Incompatible(
            f"its network and that of what follows differ at {other[0]}",
            "let it carry: backbone" if not same and stage["carry"] == "all" else
            "take data whose task builds the same blocks of this backbone")


def _check_unseen(corpus: DataModule, data: DataModule) -> None:
    """Refuse a stage that trains on, or chooses its epoch by, what the run is tested on.

    Raises:
        InputError: it has test inputs of the data set that are not among its training inputs too.
    """
    tested = data.digests("test") - data.digests("train", "validation")
    if seen := corpus.digests("train", "validation") & tested:
        raise InputError(
            f"its data have {len(seen)} of the {len(tested)} test inputs of what follows, so that the "
            "test would not be of unseen examples",
            "leave them out: a corpus with the source, split and subset of what follows has the same "
            "training examples and no others")


def _shapes(model: TaskModel) -> dict[str, tuple[int, ...]]:
    state = model.state_dict()
    return {place: tuple(state[name].shape) for place, name in places(model).items()}
