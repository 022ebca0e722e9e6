"""Spaces: every value that can be drawn is one that the technique takes."""

import inspect
import math
import random
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from ftlab.errors import InputError
from ftlab.studies.components import Component, build, check
from ftlab.studies.yaml_file import Place, parse_value
from ftlab.sweeps.distributions import Space, points
from ftlab.sweeps.search_space import make_space, own_values, put
from ftlab.techniques.base import Technique

PLACE = Place("sweep.yaml") / "spaces" / "it"


def technique(name: str, **arguments: Any) -> Component:
    return check(Technique, {"class_path": name, "init_args": arguments}, Place("study.yaml"))


LORA, PROBE = technique("LoRA"), technique("LinearProbe")
WRAPPED = technique("DiscriminativeLR", technique={"class_path": "LoRA", "init_args": {"lr": 2e-3}})


def space(component: Component, said: Mapping[Any, Any], **more: Any) -> Space:
    return make_space(component, said, PLACE, **more)[0]


def drawn(space: Space, seed: int) -> dict[str, Any]:
    """One draw; a warning of Optuna's would be one that a user sees."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = optuna.samplers.RandomSampler(seed=seed)
        return optuna.create_study(sampler=sampler).ask(space).params


def test_choices__of_a_text_are_what_the_file_shows() -> None:
    component = technique("InContext")
    said = parse_value("{separator: {choices: [010, 1e3, on, '~', '5']}}")
    made = space(component, said)["separator"]
    assert isinstance(made, CategoricalDistribution)
    assert made.choices == ("010", "1e3", "on", "~", "5", "\n\n")
    for choice in made.choices:
        assert build(put(component, {"separator": choice})).separator == choice


# What is drawn

def floats(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_subnormal=False)


@st.composite
def ranges(draw: st.DrawFn, low: float, high: float) -> dict[str, Any]:
    ends = sorted(draw(st.tuples(floats(low, high), floats(low, high)).filter(lambda e: e[0] < e[1])))
    return {"low": ends[0], "high": ends[1], "log": draw(st.booleans())}


@st.composite
def whole_ranges(draw: st.DrawFn) -> dict[str, Any]:
    low, step = draw(st.integers(1, 64)), draw(st.integers(1, 5))
    high = low + step * draw(st.integers(1, 20))
    if draw(st.booleans()):
        return {"low": low, "high": high, "step": step}
    return {"low": low, "high": high, "log": draw(st.booleans())}


def choices(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.lists(values, min_size=1, max_size=6, unique=True).map(lambda c: {"choices": c})


SAID = st.fixed_dictionaries({}, optional={
    "lr": ranges(1e-8, 1.0) | choices(floats(1e-6, 1.0)) | st.none(),
    "rank": whole_ranges() | choices(st.integers(1, 99)) | st.none(),
    "dropout": st.just({"low": 0, "high": 0.5, "step": 0.1}) | choices(floats(0, 0.9)),
    "alpha": choices(st.none() | floats(0.1, 64.0)),
    "optim.weight_decay": choices(floats(0.0, 1.0)),
    "optim.warmup": st.just({"low": 0.0, "high": 0.5}),
    "optim.schedule": choices(st.sampled_from(["constant", "linear", "cosine", "one-cycle"])),
})
OWN = st.fixed_dictionaries({"rank": st.integers(1, 80), "lr": floats(1e-7, 0.9)})


@settings(max_examples=25, deadline=None)
@given(SAID, OWN, st.integers(0, 2**31))
def test_space__whatever_is_drawn_the_constructor_takes(
    said: dict[str, Any], own: dict[str, Any], seed: int
) -> None:
    component = technique("LoRA", **own)
    try:
        made = space(component, said)
    except InputError as error:
        assert "own value" in error.what, "the only thing that can be wrong here"
        return
    assert made.keys() == {"lr", "rank", *said} - {key for key, value in said.items() if value is None}
    values = drawn(made, seed)
    check(Technique, put(component, values), PLACE)
    assert all(distribution._contains(distribution.to_internal_repr(value))
               for (key, distribution), value in zip(made.items(), own_values(component, made).values(),
                                                     strict=True))
    if "rank" in values:
        assert type(values["rank"]) is int
    # the first trial is the study's own setting, and Optuna has nothing to say against it
    search = optuna.create_study()
    search.enqueue_trial(own_values(component, made))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = search.ask(made).params
    assert put(component, first) == component


def test_space__nothing_said_is_what_the_technique_brings() -> None:
    made = space(LORA, {})
    assert made == {"lr": FloatDistribution(1e-4, 5e-3, log=True),
                    "rank": CategoricalDistribution((4, 8, 16, 32))}
    assert space(technique("ZeroShot"), {}) == {}


def test_space__a_wrapper_is_searched_with_what_it_wraps() -> None:
    assert space(WRAPPED, {}).keys() == {"decay", "technique.lr", "technique.rank"}
    made = space(WRAPPED, {"technique.rank": {"low": 1, "high": 9},
                           "technique.optim.weight_decay": {"choices": [0.0, 0.1]}})
    assert made["technique.rank"] == IntDistribution(1, 9)
    built = build(put(WRAPPED, drawn(made, 0) | {"technique.rank": 3,
                                                 "technique.optim.weight_decay": 0.1}))
    assert built.technique.rank == 3
    assert built.technique.optim.weight_decay == 0.1
    assert own_values(WRAPPED, made)["technique.lr"] == 2e-3


def test_space__null_takes_a_key_out() -> None:
    assert space(LORA, {"lr": None}).keys() == {"rank"}
    assert space(WRAPPED, {"technique.lr": None, "technique.rank": None}).keys() == {"decay"}


def test_space__holds_the_own_value_of_every_pair() -> None:
    made, notes = make_space(technique("LoRA", rank=8), {"rank": {"low": 4, "high": 16}}, PLACE,
                             elsewhere=[technique("LoRA", rank=64), technique("LoRA", rank=2)])
    assert made["rank"] == IntDistribution(2, 64)
    assert [note.partition("own ")[2] for note in notes] == ["64", "2"]


def test_space__steps_may_be_decimal() -> None:
    """0.3 is no multiple of 0.1 in binary."""
    made = space(LORA, {"dropout": {"low": 0.0, "high": 0.3, "step": 0.1}})
    assert points({"dropout": made["dropout"]}) == 4


def test_points__of_a_space() -> None:
    assert points({}) == 1
    made = space(LORA, {"lr": {"choices": [1e-3, 1e-2]}, "rank": {"low": 2, "high": 8, "step": 2}})
    assert points(made) == 2 * 4
    assert points(space(LORA, {})) == math.inf


# What is refused

REFUSED: dict[str, tuple[Component, dict[Any, Any], str]] = {
    "no such argument": (LORA, {"rang": {"choices": [1]}}, "LoRA has no argument 'rang'"),
    "nor a part's": (LORA, {"optim.decay": {"low": 0, "high": 1}}, "no argument 'optim.decay'"),
    "nor a number's": (LORA, {"rank.x": {"low": 0, "high": 1}}, "no argument 'rank.x'"),
    "nor under null": (LORA, {"rang": None}, "LoRA has no argument 'rang'"),
    "nor a number": (LORA, {3: {"choices": [1]}}, "LoRA has no argument '3'"),
    "of the wrapped": (WRAPPED, {"lr": {"low": 1e-3, "high": 1e-2}}, "no argument 'lr'"),
    "empty": (LORA, {"lr": {"low": 1e-3, "high": 1e-3}}, "from 0.001 to 0.001 is empty"),
    "reversed": (LORA, {"lr": {"low": 1e-2, "high": 1e-3}}, "from 0.01 to 0.001 is reversed"),
    "log from zero": (LORA, {"dropout": {"low": 0, "high": 0.5, "log": True}}, "begin at 0"),
    "log with step": (LORA, {"rank": {"low": 1, "high": 9, "log": True, "step": 2}}, "exclude"),
    "log is a word": (LORA, {"lr": {"low": 1e-3, "high": 1, "log": "yes"}}, "expected true or false"),
    "step of zero": (LORA, {"rank": {"low": 1, "high": 9, "step": 0}}, "step must be above 0"),
    "steps that do not fit": (LORA, {"rank": {"low": 1, "high": 10, "step": 4}}, "no whole number"),
    "half a rank": (LORA, {"rank": {"low": 1.5, "high": 3}}, "low must be a whole number, got 1.5"),
    "infinite": (LORA, {"lr": {"low": 1e-3, "high": math.inf}}, "high: expected a finite number, got inf"),
    "a truth": (LORA, {"lr": {"low": True, "high": 3}}, "low must be a number, got True"),
    "one end": (LORA, {"lr": {"low": 1e-3}}, "high must be a number, got None"),
    "unknown key": (LORA, {"lr": {"low": 1e-3, "hihg": 1}}, "unknown key"),
    "a bare list": (LORA, {"rank": [4, 8]}, "expected a range, choices or null, got [4, 8]"),
    "a bare number": (LORA, {"rank": 4}, "expected a range, choices or null, got 4"),
    "no choice": (LORA, {"rank": {"choices": []}}, "a list of at least one"),
    "choices and ends": (LORA, {"rank": {"choices": [4], "low": 3}}, "unknown key"),
    "a choice twice": (LORA, {"rank": {"choices": [4, 8, 4]}}, "the choice 4 stands twice"),
    "nan": (LORA, {"lr": {"choices": [math.nan]}}, "expected a finite number, got nan"),
    "a list as choice": (LORA, {"targets": {"choices": [["query"]]}}, "cannot be a choice"),
    "wrong type": (LORA, {"rank": {"choices": [4, "many"]}}, "'many' is refused"),
    "half a choice": (LORA, {"rank": {"choices": [4, 8.5]}}, "8.5 is refused"),
    "unknown word": (LORA, {"optim.schedule": {"choices": ["linear", "lineal"]}}, "'lineal' is refused"),
    "out of range": (LORA, {"rank": {"low": 0, "high": 8}}, "rank must be at least 1, got 0"),
    "the other end": (LORA, {"dropout": {"low": 0, "high": 1}}, "1.0 is refused"),
    "a word's range": (LORA, {"optim.schedule": {"low": 0, "high": 1}}, "'s own value linear is no point"),
    "nothing's range": (LORA, {"alpha": {"low": 1, "high": 8}}, "own value None is no point"),
    "a part": (LORA, {"optim": {"choices": ["adam"]}}, "is neither a number nor a text"),
    "a technique": (WRAPPED, {"technique": {"choices": ["LoRA"]}}, "is neither a number nor a text"),
    "own value between steps": (
        LORA, {"rank": {"low": 1, "high": 10, "step": 3}}, "own value 8 is no step of the range"),
    "own value beyond steps": (
        LORA, {"dropout": {"low": 0.5, "high": 0.9, "step": 0.1}}, "own value 0.0 is no step"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_space__refuses_in_one_line(case: str) -> None:
    component, said, what = REFUSED[case]
    with pytest.raises(InputError) as caught:
        space(component, said)
    assert what in caught.value.what
    assert caught.value.what.startswith("sweep.yaml")
    assert caught.value.mend
    assert "\n" not in caught.value.what + caught.value.mend


def test_space__names_the_parts_where_a_key_is_wrong() -> None:
    with pytest.raises(InputError) as caught:
        space(WRAPPED, {"rank": {"low": 1, "high": 2}})
    assert "technique.rank" in caught.value.mend
    assert "technique.optim.warmup" in caught.value.mend


def test_space__every_technique_s_own_takes_its_draws() -> None:
    from matrix import TECHNIQUES

    draw = random.Random(0)
    for name in TECHNIQUES:
        arguments = ({"technique": "LinearProbeThenFineTune"} if "technique" in inspect.signature(
            TECHNIQUES[name]).parameters else {})
        component = technique(name, **arguments)
        check(Technique, put(component, drawn(space(component, {}), draw.randrange(2**31))), PLACE)
