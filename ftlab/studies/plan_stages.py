"""The stages of a cell, checked before anything runs."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ftlab.backbones.base import Backbone
from ftlab.backbones.quantization import quantized_layers
from ftlab.backbones.task_model import TaskModel
from ftlab.data.base import DataModule
from ftlab.errors import Incompatible, InputError
from ftlab.studies.components import Component, build
from ftlab.studies.study import Cell
from ftlab.training import batches, by_steps
from ftlab.training.carried import HEAD, check_new_tokens, is_output, places
from ftlab.training.trainer_settings import TrainerSettings, processes_of
from ftlab.wording import listed


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
    if processes_of(cell.trainer) > 1:
        raise InputError("a run with stages is trained on one device", "set trainer: {devices: 1}")
    head = dict[str, tuple[int, ...]]()  # that is carried to the next fit
    for number, stage in enumerate(cell.before):
        where = f"before/{number}"
        corpus = data if stage["data"] is None else stage_data.of(stage["data"])
        try:
            there = _check(stage, backbone, corpus, model, head)
            carried = {**head, **there} if stage["carry"] == "all" else {}
            head = {place: shape for place, shape in carried.items() if place.startswith(HEAD)}
            if number == len(cell.before) - 1:
                _check_fits(head, _shapes(model), model, "all")
        except InputError as error:
            raise type(error)(f"{where}: {error.what}", error.mend) from error
        finally:
            data.connect(backbone, seed=0)
    return check_corpora(cell, data, stage_data)


def check_corpora(cell: Cell, data: DataModule, stage_data: StageData) -> str:
    """Hold the stages' own data to what the run is tested on.

    Args:
        cell: checked.
        data: of the cell, loaded.
        stage_data: reads the stages' own data.

    Returns:
        sha256 of the stages' own data; empty where they have none.

    Raises:
        InputError: a stage has test examples.
    """
    prints = []
    for number, stage in enumerate(cell.before):
        if stage["data"] is None:
            continue
        corpus = stage_data.of(stage["data"])
        try:
            _check_unseen(corpus, data, f"stage {number + 1}")
        except InputError as error:
            raise type(error)(f"before/{number}: {error.what}", error.mend) from error
        prints.append(corpus.fingerprint)
    return hashlib.sha256("".join(prints).encode()).hexdigest() if prints else ""


def _check(stage: dict[str, Any], backbone: Backbone, corpus: DataModule, model: TaskModel,
           head: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Hold a stage to its data, to the head that is carried to it, and to the blocks of the run.

    Returns:
        Shapes in its network, by place.
    """
    technique = build(stage["technique"])
    if not technique.trains:
        raise Incompatible(f"{type(technique).__name__} trains nothing, so it leaves nothing for "
                           "the next fit", "take a technique that trains")
    if processes_of(stage["trainer"]) > 1:
        raise InputError("stages are trained on one device", "set trainer: {devices: 1}")
    corpus.connect(backbone, seed=0)
    settings = TrainerSettings(**stage["trainer"])
    corpus = batches.with_streams(corpus, technique, settings)
    settings = by_steps.settled(settings, corpus)
    batches.check_update(technique, corpus, settings)
    corpus.check_plan()
    technique.prepare(corpus)
    begun = backbone.build(corpus.task, technique.output_type, meta=True)
    check_new_tokens(begun)
    there = _shapes(begun)
    _check_fits(head, there, begun, "all")
    begun.head_trained |= bool(head)
    own = {id(parameter) for parameter in begun.parameters()}
    technique.bind(begun, corpus.task)
    if quantized_layers(begun) and any(
            p.requires_grad and id(p) not in own for p in begun.parameters()):
        raise Incompatible(f"{type(technique).__name__} adds to the network what is merged for the next "
                           "fit, and quantised weights do not hold it",
                           "leave quantize out, or take a technique that adds nothing (BitFit, LinearProbe)")
    if stage["select_by"] is not None:
        corpus.task.higher_is_better(stage["select_by"].removeprefix("val/"))
    _check_fits({place: shape for place, shape in there.items() if not place.startswith(HEAD)},
                _shapes(model), model, "backbone")
    return there


def _check_fits(kept: dict[str, tuple[int, ...]], follows: dict[str, tuple[int, ...]],
                model: TaskModel, carry: str) -> None:
    """Refuse what is carried to a network that has no such tensors.

    Raises:
        Incompatible: with the first of them.
    """
    other = [place for place, shape in kept.items() if follows.get(place) != shape
             and not (place not in follows and is_output(place, model))]
    if other:
        raise Incompatible(
            f"its network and that of what follows differ at {other[0]}",
            "let it carry: backbone" if carry == "all" else
            "take data whose task builds the same blocks of this backbone")


def _check_unseen(corpus: DataModule, data: DataModule, where: str) -> None:
    """Refuse a stage that trains on, or chooses its epoch by, what the run is tested on.

    An example is known by its source and id, whatever is read of it, and in another source by its
    input. Another example of the same source with the same input is noted, as within a data set.

    Raises:
        InputError: it has test examples.
    """
    trained = {digest for digest, *_ in data.inputs("train", "validation")}
    tested = data.inputs("test")
    places = {(source, place) for _, source, place in tested}
    sources: dict[bytes, set[str]] = {}
    for digest, source, _ in tested:
        sources.setdefault(digest, set()).add(source)
    leaked, twice = [], set()
    for digest, source, place in corpus.inputs("train", "validation"):
        same = digest in sources and digest not in trained
        if (source, place) in places or (same and source not in sources[digest]):
            leaked.append(place)
        elif same:
            twice.add(digest)
    if leaked:
        raise InputError(
            f"its data have test examples of what follows, {len(leaked)} where that has {len(tested)}: "
            f"{listed(sorted(leaked)[:3])}{', ...' if len(leaked) > 3 else ''}",
            "leave them out; with the source, split and label column of what follows (label: null where "
            "it has no classes) a corpus has none of them")
    if twice:
        data.note(f"{len(twice)} of {len(sources)} test inputs are also in the data of {where} "
                  "(exact duplicates)")


def _shapes(model: TaskModel) -> dict[str, tuple[int, ...]]:
    state = model.state_dict()
    return {place: tuple(state[name].shape) for place, name in places(model).items()}
