"""Study and sweep files and `--set` values that would never end, or end in a traceback."""

import time
from pathlib import Path

import pytest
import yaml

from ftlab.errors import InputError
from ftlab.studies.study import load_study
from ftlab.studies.study_snapshot import _HEADER
from ftlab.studies.yaml_file import parse_value, read
from ftlab.studies.yaml_schema import LARGEST
from ftlab.sweeps.sweep import load_sweep

SECONDS = 5.0  # a second, where the machine has nothing else to do


def doubled(line: str) -> str:
    """26 lines, each of which holds the one before twice."""
    return "a0: &a0 {x: 1}\n" + "".join(line.format(i, i - 1) for i in range(1, 26))


MANY, DEEP, ITSELF = "more than 10,000 values", "more than 50 levels", "holds itself"
REFUSED = {
    "mappings by alias": (doubled("a{0}: &a{0} {{x: *a{1}, y: *a{1}}}\n"), MANY),
    "lists by alias": (doubled("a{0}: &a{0} [*a{1}, *a{1}]\n"), MANY),
    "merged by alias": (doubled("a{0}: &a{0} {{<<: [*a{1}, *a{1}]}}\n"), MANY),
    "a key by alias": (doubled("a{0}: &a{0} [*a{1}, *a{1}]\n") + "? *a11\n: 1\n", MANY),
    "levels by alias": (doubled("a{0}: &a{0} {{x: {{y: *a{1}}}}}\n"), DEEP),
    "a long list": ("a: [" + "1," * 12_000 + "]", MANY),
    "3,000 brackets": ("a: " + "[" * 3000 + "]" * 3000, DEEP),
    "3,000 braces": ("a: " + "{a: " * 3000 + "1" + "}" * 3000, DEEP),
    "open brackets": ("a: " + "[" * 3000, DEEP),
    "3,000 dashes": ("- " * 3000 + "a", DEEP),
    "600 indents": ("".join(" " * i + "a:\n" for i in range(600)), DEEP),
    "a mapping in itself": ("a: &a {b: *a}", ITSELF),
    "a list in itself": ("a: &a [*a]", ITSELF),
    "merged into itself": ("a: &a {<<: *a}", ITSELF),
    "a file in itself": ("&a {b: *a}", ITSELF),
    "a list as key": ("[a]: 1", "a key is a text"),
    "a mapping as key": ("{a: b}: 1", "a key is a text"),
    "text as !!int": ("question: !!int abc", "is not of int"),
    "text as !!map": ("name: !!map abc", "it is not a mapping"),
    "a list as !!str": ("name: !!str [a]", "expected a scalar"),
    "!!binary": ("question: !!binary ====", "could not determine"),
    "!!timestamp": ("question: !!timestamp 2020-13-45", "could not determine"),
    "an object": ("a: !!python/object/apply:os.system [ls]", "could not determine"),
    "5,000 digits": ("a: " + "9" * 5000, "a number of 5000 digits"),
    "5,000 digits to base 16": ("a: 0x" + "f" * 5000, "a number of 5002 digits"),
    "a version of 5,000 digits": ("%YAML " + "9" * 5000 + ".1\n---\na: 1", "does not exist"),
    "a character beyond all": ('a: "\\UFFFFFFFF"', "does not exist"),
    "half a character": ('a: "\\ud800"', "half a character"),
    "a zero byte": ("a: \0", "unacceptable character"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_read__refuses_in_a_second_and_in_two_lines(case: str, tmp_path: Path) -> None:
    text, problem = REFUSED[case]
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    began = time.perf_counter()
    for reading in (read, load_study, load_sweep):
        with pytest.raises(InputError, match=r"study\.yaml(:\d+)?: ") as caught:
            reading(path)
        assert problem in caught.value.what
        assert caught.value.mend
        assert len(str(caught.value).splitlines()) == 2
    assert time.perf_counter() - began < 3 * SECONDS


@pytest.mark.parametrize("text", [
    "[" * 3000, "[" * 3000 + "]" * 3000, "&a [*a]", "0x" + "f" * 5000, '"\\UFFFFFFFF"',
    "{x: &a [" + "1," * 3000 + "], y: *a, z: [*a, *a]}", "{[a]: 1}"], ids=lambda text: text[:10])
def test_set__refuses_too(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_value(text)
    path = tmp_path / "study.yaml"
    path.write_text("name: a")
    with pytest.raises(InputError, match="--set question="):
        load_study(path, [f"question={text}"])


def test_set__not_deeper_than_a_file(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: a")
    with pytest.raises(InputError, match="more than 50 levels"):
        load_study(path, ["trainer" + ".a" * 3000 + "=1"])


@pytest.mark.parametrize("beginning", ["a: 1 # ", "a: ", "", "[", "{a: 1}\n"])
def test_read__a_file_of_50_mb_is_not_read(beginning: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(beginning + "x" * 50_000_000)
    began = time.perf_counter()
    with pytest.raises(InputError, match="larger than 256 KiB"):
        load_study(path)
    assert time.perf_counter() - began < SECONDS


def recorded(values: int) -> str:
    classes = {f"class {i} of a long recorded study": i for i in range(values // 2)}
    return _HEADER + yaml.safe_dump({"groups": classes}, sort_keys=False)


def test_read__what_ftlab_recorded_may_be_ten_times_larger(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(recorded(20_000))
    assert path.stat().st_size > LARGEST
    assert len(read(path)[0]["groups"]) == 10_000
    path.write_text(path.read_text().removeprefix("# Written"))
    with pytest.raises(InputError, match="larger than 256 KiB"):
        read(path)
    path.write_text(f"{_HEADER}a: &a [{'x, ' * 999}]\nb: [{'*a, ' * 101}]")
    with pytest.raises(InputError, match="more than 100,000 values"):
        read(path)
    path.write_text(_HEADER + "x" * 10 * LARGEST)
    with pytest.raises(InputError, match="larger than 2560 KiB"):
        read(path)


def test_read__a_file_without_end_is_not_read_to_it() -> None:
    with pytest.raises(InputError, match="larger than 256 KiB"):
        read(Path("/dev/zero"))


def test_read__what_files_of_people_have_is_read() -> None:
    classes = ", ".join(f"class {i}: {i}" for i in range(1000))
    nested = "{technique: {init_args: " * 20 + "1" + "}}" * 20
    read_ = parse_value(f"{{shared: &s {{{classes}}}, a: *s, more: {{<<: *s}}, deep: {nested}}}")
    assert read_["a"] == read_["more"] == {f"class {i}": i for i in range(1000)}


NUMBERS = {
    "lr": ("techniques", "FullFineTuning", "lr", [".nan", ".inf", "-.inf", "nan", "Infinity",
                                                  "'nan'", "9" * 400]),
    "rank": ("techniques", "LoRA", "rank", ["9" * 20, "-" + "9" * 20, ".inf", "1e30", ".nan"]),
    "warmup": ("techniques", "LoRA", "optim.warmup", [".nan", ".inf", "NaN"]),
    "inner rate": ("techniques", "DiscriminativeLR", "technique",
                   ["{class_path: FullFineTuning, init_args: {lr: .nan}}"]),
    "limit": ("data", "TextClassification", "subset.limit", ["9" * 20, ".nan", ".inf"]),
    "max_length": ("data", "TextClassification", "max_length", ["9" * 20, ".inf"]),
    "column": ("data", "TextClassification", "text", ["9" * 20]),
    "share": ("data", "TextClassification", "split.validation", [".nan", "-.inf"]),
    "dropout": ("backbones", "HuggingFace", "head_dropout", [".nan", "nan"]),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_check__numbers_that_are_none_are_refused_with_their_key(case: str) -> None:
    from ftlab.studies.components import check
    from ftlab.studies.discover import family
    from ftlab.studies.yaml_file import Place

    room, name, argument, values = NUMBERS[case]
    needed = {"TextClassification": "train: x", "HuggingFace": "source: x"}.get(name, "")
    for value in values:
        key, _, inner = argument.partition(".")
        text = f"{{{needed}, {key}: {f'{{{inner}: {value}}}' if inner else value}}}".replace("{, ", "{")
        given = {"class_path": name, "init_args": parse_value(text)}
        with pytest.raises(InputError, match=f"^F: init_args.{argument}") as caught:
            check(family(room), given, Place("F"))
        assert len(str(caught.value).splitlines()) == 2


def test_check__numbers_where_texts_are_wanted_stay_texts() -> None:
    from ftlab.studies.components import check
    from ftlab.studies.discover import family
    from ftlab.studies.yaml_file import Place

    text = "{train: x, classes: {neg: .nan, pos: 99999999999999999999}}"
    made = check(family("data"), {"class_path": "TextClassification", "init_args": parse_value(text)},
                 Place("F"))
    assert made["init_args"]["classes"] == {"neg": ".nan", "pos": "99999999999999999999"}


@pytest.mark.parametrize("key", ["trials", "max_seconds", "seeds", "sampler", "pruner"])
def test_sweep__numbers_that_are_none_are_refused(key: str, tmp_path: Path) -> None:
    values = {"trials": "9" * 20, "max_seconds": ".nan", "seeds": "[" + "9" * 400 + "]",
              "sampler": "{class_path: TPE, init_args: {n_startup_trials: " + "9" * 20 + "}}",
              "pruner": "{class_path: Threshold, init_args: {lower: .inf}}"}
    path = tmp_path / "sweep.yaml"
    path.write_text(f"study: x\n{key}: {values[key]}\n")
    with pytest.raises(InputError, match=rf"sweep\.yaml:2: {key}.*(64 bits|finite number)"):
        load_sweep(path)


def test_published_numbers__none_that_overflows() -> None:
    from ftlab.studies.paper_numbers import _number
    from ftlab.studies.yaml_file import Place

    for value in (10**400, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"^F: "):
            _number(value, Place("F"))
