"""Cells that must hold a text: missing ones are called missing, and numbers are to be written."""

import numpy as np
import pytest

from ftlab.errors import InputError
from ftlab.tasks.class_names import is_missing
from ftlab.tasks.language_modelling import LanguageModelling
from ftlab.tasks.sequence_to_sequence import SequenceToSequence
from ftlab.tasks.texts import text_of
from ftlab.tasks.transcription import Transcription


@pytest.mark.parametrize(("value", "what", "mend"), [
    (None, "row 1: the prompt is missing", "fill it in or remove the example"),
    (float("nan"), "row 1: the prompt is missing", "fill it in"),
    (" \n", "row 1: the prompt is empty", "fill it in"),
    (3, "row 1: 3 instead of a prompt", 'in quotes, "3", so that it is a text or name the column'),
    (0.5, "row 1: 0.5 instead of a prompt", 'in quotes, "0.5"'),
    (True, "row 1: True instead of a prompt", "in quotes"), (np.int64(3), "instead of a prompt", "quotes"),
    (["a"], "row 1: list instead of a prompt", "name the column of the prompt with prompt:")])
def test_text_of__says_what_is_wrong_and_how_to_write_it(value, what, mend) -> None:
    with pytest.raises(InputError) as error:
        text_of(value, "row 1", "prompt", "prompt")
    assert what in error.value.what and mend in error.value.mend
    assert "NoneType" not in error.value.what and "remove" not in mend.replace("remove the example", "")


@pytest.mark.parametrize("task", [SequenceToSequence(), Transcription(), LanguageModelling()])
@pytest.mark.parametrize(("value", "says"), [(3, "row 1: 3 instead of"), (" ", "is empty")])
def test_tasks__that_write_texts_say_the_same(task, value, says) -> None:
    with pytest.raises(InputError, match=says):
        task.encode(value, "row 1")


def test_is_missing__of_a_number_beyond_floats() -> None:
    assert not is_missing(10**400) and is_missing(float("nan")) and is_missing(np.float32("nan"))
