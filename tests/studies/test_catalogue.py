"""`ftlab list`: every class with its arguments, by room and by name."""

import dataclasses

import pytest

from ftlab.errors import InputError
from ftlab.studies.catalogue import _detailed, catalogue, every_class
from ftlab.studies.discover import FAMILIES, family, members
from ftlab.tasks.base import Task
from ftlab.training.trainer_settings import TrainerSettings


def test_trainer__every_setting_with_type_default_and_text():
    lines = catalogue("trainer")
    for setting in dataclasses.fields(TrainerSettings):
        line, = (line for line in lines if line.startswith(f"      {setting.name} ("))
        assert f"= {setting.default!r}: " in line and not line.endswith(": ")


def test_a_class__its_whole_docstring_and_what_its_arguments_take():
    lines = catalogue("TextClassification")
    assert any(line.startswith("      train (") and "required: " in line for line in lines)
    assert "  Subset: " in "\n".join(lines)  # a group of plain values
    assert any(line.startswith("      shots (int or null) = None: ") for line in lines)


@pytest.mark.parametrize("name", sorted(members(family("tasks"))))
def test_a_task__its_metrics_with_their_direction(name: str):
    cls = members(family("tasks"))[name]
    assert issubclass(cls, Task)
    lines = catalogue(name)
    metrics = lines[lines.index("metrics (val/NAME in select_by, test/NAME in report):") + 1:]
    assert len(metrics) == len(cls().metrics()) + 1  # and the loss
    for metric, line in zip(cls().metrics(), metrics[1:], strict=True):
        better = "higher" if metric.higher_is_better else "lower"
        assert line == f"      {metric.name}: {better} is better ({metric.unit})"


def test_every_argument_ofevery_class_is_documented():
    bare = [(name, line) for name, cls in every_class(()).items()
            for line in _detailed([cls], ()) if line.startswith("      ") and line.endswith(": ")]
    assert not bare


def test_what_there_is_not():
    with pytest.raises(InputError, match="neither a room nor a class 'LoRa'") as raised:
        catalogue("LoRa")
    assert "did you mean 'LoRA'" in raised.value.mend


def test_rooms_name_their_classes():
    lines = catalogue(None)
    for room in FAMILIES:
        assert f"{room}:" in lines
