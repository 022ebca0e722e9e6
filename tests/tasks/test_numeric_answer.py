"""The number at an answer's end, against what the sources of its three definitions make of it.

`PEFT` and the extractions of `HARNESS` were found by running the sources' own code (PEFT at 5d602fd,
lm-evaluation-harness at 4e7e0d4) on these texts; both also agreed with ours on 200,000 random ones,
the differences that `answer` names aside.
"""

import re

import pytest

from ftlab.errors import InputError
from ftlab.tasks.language_modelling import LanguageModelling
from ftlab.tasks.numeric_answer import answer

PEFT = [  # text, reference, whether PEFT's get_accuracy counts it
    ("so 4^2 = \\boxed{16}$.The answer is: 16", "#### 16", True),
    ("The answer is: 16.00", "#### 16", True),
    ("The answer is 16!", "#### 16", True),
    ("The answer is: $16.", "#### 16", True),
    ("The answer is: 50%", "#### 50", True),
    ("The answer is: 1/2", "The answer is: 0.5", True),
    ("The answer is: 20/35", "The answer is: 0.5714285714285714", True),
    ("The answer is: 3/0", "The answer is: 3/0", True),  # as texts
    ("The answer is: x+1", "The answer is: x+1", True),
    ("The answer is: 2,125", "#### 2,125", True),
    ("The answer is: 2125", "#### 2,125", False),
    ("The answer is: 16 dollars", "#### 16", False),
    ("The answer is: 16\nQuestion: 3 and 4? The answer", "#### 16", True),
    ("The answer is: 16\nThe answer is: 7", "#### 16", False),  # the last
    ("The answer is: 7. #### 16", "#### 16", False),  # MetaMath's phrase goes first
    ("#### 16", "#### 16", True),
    ("#### ", "#### 16", False),
    ("####16", "#### 16", False),
    ("16", "#### 16", False),
    ("The final answer is: 16", "#### 16", True),
    ("The answer is: NaN", "The answer is: NaN", False),
    ("", "#### 16", False),
]

HARNESS = [  # text, what strict-match takes, what flexible-extract takes; None where nothing
    ("2 + 3 = 5 apples\n#### 5", "5", "5"),
    ("#### 1,450,000.", "1450000", "1450000"),
    ("#### 5\n\nQuestion: 7?\n#### 8", "5", "8"),
    ("#### -5 degrees", "-5", "-5"),
    ("#### $5", None, "5"),
    ("####5", None, "5"),
    ("It is $1,234.50.", None, "1234.50"),
    ("3-4", None, "-4"),
    ("5 or .5", None, ".5"),
    ("half of it is 1/2", None, "2"),
    ("five", None, None),
    ("", None, None),
]


@pytest.mark.parametrize(("text", "reference", "right"), PEFT)
def test_peft(text, reference, right):
    find = answer("peft")
    assert (find(text) == find(reference)) == right


@pytest.mark.parametrize(("text", "strict", "flexible"), HARNESS)
def test_marked_and_last__are_lm_evaluation_harness(text, strict, flexible):
    for rule, taken in (("marked", strict), ("last", flexible)):
        found, again = answer(rule)(text), answer(rule)(text)
        if taken is None:
            assert found != again  # equals nothing
        else:
            assert found == answer(rule)(f"#### {taken}")
            assert str(found) == re.sub(r"^\.", "0.", taken)


def test_marked_and_last__where_they_leave_their_sources():
    assert answer("marked")("#### 18.00") == answer("marked")("#### 18")
    assert answer("last")("18 apples...") == 18
    assert answer("marked")("#### 1.2.3") != answer("marked")("#### 1.2.3")


def test_metric__counts_numbers_beside_whole_answers():
    task = LanguageModelling(final_number="last")
    task.fit(["a #### 5"])
    metrics = task.collection()
    # in the first batch both metrics count the same, and must not be taken for one
    metrics.update({"text": ["so 4", "none"]}, {"text": ["a #### 5", "a #### 6"]})
    metrics.update({"text": ["b, hence 5.", "a #### 6"]}, {"text": ["a #### 5", "a #### 6"]})
    found = {name: float(value) for name, value in metrics.compute().items()}
    assert found == {"exact_match": 0.25, "number_accuracy": 0.5}
    records = {"target": ["a #### 5", "a #### 6"], "prediction": ["b, hence 5.", "none"]}
    assert task.contributions("number_accuracy", records).tolist() == [1.0, 0.0]
    assert task.contributions("exact_match", records).tolist() == [0.0, 0.0]
    assert task.higher_is_better("number_accuracy")


def test_metric__only_where_it_is_asked_for():
    task = LanguageModelling()
    task.fit(["5"])
    assert list(task.collection()) == ["exact_match"]
    with pytest.raises(InputError, match=r"is not measured\n.*final_number: last"):
        task.higher_is_better("number_accuracy")
    with pytest.raises(ValueError, match="final_number must be one of"):
        LanguageModelling(final_number="first")
