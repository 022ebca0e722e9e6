from collections.abc import Callable
from pathlib import Path

import pytest
from bad_studies import BAD

from ftlab.errors import InputError
from ftlab.studies.study import load_study
from ftlab.studies.yaml_file import parse_value, read
from ftlab.studies.yaml_schema import plain

Write = Callable[..., Path]


def test_load__cells_are_the_product_in_order(write: Write) -> None:
    study = load_study(write())
    names = [(c.key.backbone, c.key.dataset, c.key.technique) for c in study.cells]
    assert names == [("bert", "reviews", "probe"), ("bert", "reviews", "lora")]
    assert study.seeds == (0, 1)
    assert study.report == "test/accuracy"


def test_hash__follows_every_value_and_nothing_else(write: Write) -> None:
    def hashes(*overrides: str, **changes: object) -> list[str]:
        return [cell.key.config for cell in load_study(write(**changes), overrides).cells]

    same = hashes()
    assert hashes() == same
    assert hashes(question="Another?", seeds=[5]) == same
    assert hashes("techniques.lora.init_args.rank=8") == same, "a default said aloud"
    changed = hashes("techniques.lora.init_args.rank=4")
    assert changed[0] == same[0]
    assert changed[1] != same[1]
    assert not set(hashes("trainer.max_epochs=3")) & set(same)
    assert not set(hashes(select_by="val/loss")) & set(same)


def test_set__reaches_into_short_forms(write: Write) -> None:
    study = load_study(write(), ["techniques.probe.init_args.lr=1e-2", "seeds=[7]"])
    assert study.cells[0].technique["init_args"]["lr"] == 0.01
    assert study.seeds == (7,)


def test_trainer__a_technique_may_have_its_own(write: Write) -> None:
    techniques = {"probe": {"class_path": "LinearProbe", "trainer": {"max_epochs": 9}}, "l": "LoRA"}
    cells = load_study(write(techniques=techniques)).cells
    assert [cell.trainer["max_epochs"] for cell in cells] == [9, 2]




@pytest.mark.parametrize("case", BAD)
def test_bad_input__one_clear_line(case: str, write: Write) -> None:
    changes, what, mend = BAD[case]
    with pytest.raises(InputError) as caught:
        load_study(write(**changes))
    assert what in caught.value.what
    assert mend in caught.value.mend
    assert "\n" not in caught.value.what
    assert "small.yaml" in caught.value.what


def test_place__has_the_line(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: s\ntechniques:\n  a:\n    class_path: LoRA\n    init_args:\n      rnak: 4\n"
                    "backbones: {b: {class_path: HuggingFace, init_args: {source: x}}}\n"
                    "datasets: {d: {class_path: TextClassification, init_args: {train: x}}}\n")
    with pytest.raises(InputError, match=r"s\.yaml:6: techniques\.a\.init_args\.rnak"):
        load_study(path)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: [1", r"s\.yaml:\d: not YAML"),
        ("a: 1\nb: 2\na: 3\n", r"s\.yaml:3: a stands twice \(first in line 1\)"),
        ("- a\n", "a study file is a mapping"),
        ("", "a study file is a mapping"),
        ("a: !!python/object/apply:os.system [ls]\n", "not YAML"),
    ],
)
def test_yaml__refused(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=what):
        read(path)


def test_yaml__missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "none.yaml")
    (tmp_path / "s.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError):
        read(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("2.5E3", 2500.0), ("7", 7), ("1.5", 1.5), ("a1e4", "a1e4")]
)
def test_yaml__reads_numbers_as_yaml_1_2(text: str, value: object) -> None:
    number = plain(parse_value(text))
    assert number == value
    assert type(number) is type(value)


def test_set__reaches_into_lists_and_leaves_what_is_shared(write: Write) -> None:
    path = write(techniques="TECHNIQUES")
    path.write_text(path.read_text().replace("TECHNIQUES", """
  a: {class_path: BitFit, before: &stages [{technique: LinearProbe}]}
  b: {class_path: NormTuning, before: *stages}"""))

    def epochs(*overrides: str) -> list[int]:
        return [cell.before[0]["trainer"]["max_epochs"] for cell in load_study(path, overrides).cells]

    assert epochs() == [2, 2]
    assert epochs("techniques.a.before.0.trainer.max_epochs=5") == [5, 2]
    short = load_study(path, ["techniques.a.before.0.technique.init_args.lr=0.5"]).cells[0].before[0]
    assert short["technique"]["init_args"]["lr"] == 0.5
    for wrong in ("1", "x", "-1", "²"):
        with pytest.raises(InputError, match=f"{wrong} is not a place in a list of 1"):
            load_study(path, [f"techniques.a.before.{wrong}.trainer.max_epochs=5"])


@pytest.mark.parametrize("override", ["trainer.max_epochs", "=1", "trainer.max_epochs=[1", "name.x=1"])
def test_set__refused(override: str, write: Write) -> None:
    with pytest.raises(InputError, match="--set"):
        load_study(write(), [override])


def test_only__unknown_technique(write: Write) -> None:
    study = load_study(write())
    assert [c.key.technique for c in study.only(["lora"]).cells] == ["lora"]
    with pytest.raises(InputError, match="no technique 'lorra'"):
        study.only(["lorra"])
