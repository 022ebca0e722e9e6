"""The study that results carry: read back, it is the study that gave them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ftlab.studies.study import load_study
from ftlab.studies.study_snapshot import record

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.mark.parametrize("name", ["quickstart", "default_rates.tuned", "sst2", "blood_cells",
                                  "spoken_digits", "in_context_sst2", "papers/vpt_vtab",
                                  "papers/minilm_sst2"])
def test_record__reads_back_to_the_same_cells(name: str, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study(EXPERIMENTS / f"{name}.yaml", ["trainer.gradient_clip=1.0e-5"])
    path = tmp_path / "study.yaml"
    path.write_text(record(study), encoding="utf-8")
    again = load_study(path)
    assert again == study  # the hash of every cell's checked config among it
    assert record(again) == record(study)


def test_record__keeps_what_a_technique_has_on_one_pair(write: Callable[..., Path],
                                                       tmp_path: Path) -> None:
    once = load_study(write())
    cell = once.cells[0]
    other = cell.data | {"init_args": cell.data["init_args"] | {"max_length": 16}}
    study = load_study(write(
        datasets={"reviews": cell.data, "others": other},
        techniques={"lora": {"class_path": "LoRA", "init_args": {"rank": 4},
                             "on": {"others from bert": {"rank": 2}},
                             "trainer": {"max_epochs": 7}}}))
    path = tmp_path / "again.yaml"
    path.write_text(record(study), encoding="utf-8")
    assert load_study(path) == study
    assert [c.technique["init_args"]["rank"] for c in load_study(path).cells] == [4, 2]


def test_record__of_some_techniques_speaks_of_no_others(tmp_path: Path) -> None:
    study = load_study(EXPERIMENTS / "papers/vpt_vtab.yaml", ["baseline=full"])
    kept = list(dict.fromkeys(cell.key.technique for cell in study.cells))
    assert "full" in kept
    path = tmp_path / "study.yaml"
    for technique in kept:
        path.write_text(record(study.only([technique])), encoding="utf-8")
        again = load_study(path)
        assert again.baseline == ("full" if technique == "full" else "")
        assert again.groups == study.groups
        assert {n.technique for n in again.paper.numbers} <= {technique} if again.paper else True


def test_record__has_no_secrets(write: Callable[..., Path]) -> None:
    study = replace(load_study(write()), question="see https://me:pass@example.org/x")
    assert "pass@" not in record(study)
    assert yaml.safe_load(record(study))["question"] == "see https://example.org/x"
