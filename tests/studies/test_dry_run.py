"""The dry run: what it says, that shared caches count once, and that it leaves nothing behind."""

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import ftlab.studies.dry_run
from ftlab.backbones import cache_folder
from ftlab.studies.components import build
from ftlab.studies.dry_run import Estimate, estimate
from ftlab.studies.memory_estimate import size
from ftlab.studies.plan import Plan, PlannedCell, plan
from ftlab.studies.runtime_estimate import START, RuntimeEstimate
from ftlab.studies.study import Cell, Study, load_study
from ftlab.training import hardware, quantized
from ftlab.training.adapt import adapt
from ftlab.training.run import Run
from ftlab.training.shortcuts.linear_heads import time_estimate
from ftlab.training.shortcuts.linear_heads.time_estimate import HeadForecast
from ftlab.training.shortcuts.prefix_cache.cache_estimate import Forecast
from ftlab.training.trainer_settings import TrainerSettings

Write = Callable[..., Path]
CACHE = Forecast(runs=2, plain=60.0, build=4.0, read=6.0, bytes=12_000_000)


class _Study:
    name, seeds = "study", [0, 1, 2]


class _Key:
    dataset, backbone = "news", "bert"

    def __init__(self, technique: str) -> None:
        self.technique = self.config = technique


def planned(technique: str, frozen: int) -> PlannedCell:
    cell = Cell.__new__(Cell)
    object.__setattr__(cell, "key", _Key(technique))
    return PlannedCell(cell, 10, 100, "", "", {}, frozen)


def test_total__has_each_shared_cache_once() -> None:
    cells = [planned("probe", 7), planned("last1", 6), planned("tuned", 7), planned("full", 0)]
    cache = Forecast(runs=6, plain=60.0, build=4.0, read=6.0, bytes=10)  # 9 s less a run
    made = Estimate(Plan(_Study(), cells), {  # type: ignore[arg-type]  # all that it reads of a study
        "probe": RuntimeEstimate(20.0, cache), "last1": RuntimeEstimate(20.0, cache),
        "tuned": RuntimeEstimate(20.0, cache), "full": RuntimeEstimate(20.0, why_not="the first block trains")})
    assert made.plain_seconds == 4 * 3 * 20.0
    assert made.total_seconds == pytest.approx(3 * (3 * 11.0 + 20.0) + 2 * 4.0)
    assert [cells[0].shares_prefix(each) for each in cells] == [True, False, True, False]
    assert not cells[3].shares_prefix(cells[3])


def test_estimate__counts_the_seeds_of_all_cells_that_share(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, int] = {}

    def foresee(study: Study, planned: PlannedCell, *_: Any, runs: int) -> RuntimeEstimate:
        asked[planned.cell.key.technique] = runs
        return RuntimeEstimate(1.0)

    monkeypatch.setattr(ftlab.studies.dry_run, "foresee", foresee)
    probes = {f"lr{lr}": {"class_path": "LinearProbe", "init_args": {"lr": lr, "solver": None}} for lr in (0.01, 0.1)}
    estimate(load_study(write(techniques={**probes, "full": "FullFineTuning"}, seeds=[1, 2, 3])))
    assert asked == {"lr0.01": 6, "lr0.1": 6, "full": 3}


def test_plain_seconds__are_never_less_than_the_prefix_took() -> None:
    here = RuntimeEstimate(5.0, Forecast(1, 60.0, 1.0, 1.0, 10))
    assert here.plain_seconds == START + 60.0
    assert here.cached_seconds == START + 1.0


def test_cached_seconds__of_a_stack_are_its_share_of_the_loop() -> None:
    here = RuntimeEstimate(60.0, CACHE, heads=HeadForecast(4, alone=3.0, together=4.0))
    assert here.cached_seconds == START + 1.0
    assert here.heads is not None and here.heads.saved == 8.0
    slow = RuntimeEstimate(60.0, CACHE, heads=HeadForecast(2, alone=900.0, together=900.0))
    assert slow.cached_seconds == 60.0 - 27.0, "never more than without the loop"


def test_total__is_never_above_plain_where_caches_pay() -> None:
    draw = random.Random(0)
    cells = [planned("probe", 7), planned("last1", 6), planned("tuned", 7)]
    for _ in range(300):
        plain = draw.uniform(0.1, 1000)
        cost = draw.uniform(0, 0.84) * plain
        build = draw.uniform(0, cost)
        foreseen = {}
        for cell, runs in zip(cells, (6, 3, 6), strict=True):
            loop = draw.uniform(0, 500)
            heads = HeadForecast(3, loop, draw.uniform(0, 3 * loop)) if draw.random() < 0.5 else None
            cache = Forecast(runs, plain, build, cost - build, 10)
            assert cache.pays
            foreseen[cell.cell.key.config] = RuntimeEstimate(draw.uniform(0, 300), cache, heads=heads)
        made = Estimate(Plan(_Study(), cells), foreseen)  # type: ignore[arg-type]  # as above
        assert made.total_seconds <= made.plain_seconds


def text(made: Estimate) -> str:
    """As a terminal of 80 columns shows it, in one line."""
    out = io.StringIO()
    Console(width=80, file=out).print(made.rich())
    assert max(map(len, out.getvalue().splitlines())) <= 80
    return " ".join(out.getvalue().split())


def scripted(write: Write, plain: bool = False, **foreseen: RuntimeEstimate) -> str:
    """The text of a study whose cells are foreseen to take that."""
    known = {"full": "FullFineTuning", "probe": {"class_path": "LinearProbe", "init_args": {"solver": None}}, "lora": "LoRA", "last1": {
        "class_path": "PartialFineTuning", "init_args": {"last": 1}}}
    study = load_study(write(techniques={name: known[name] for name in foreseen}))
    made = plan(study.with_shortcuts(not plain))
    return text(Estimate(made, {planned.cell.key.config: foreseen[planned.cell.key.technique]
                                for planned in made.cells}))


def test_text__of_caches_and_their_absence(write: Write) -> None:
    said = scripted(write, full=RuntimeEstimate(20.0, why_not="the first block trains"),
                    last1=RuntimeEstimate(40.0, CACHE))
    assert "full on reviews from bert: nothing: the first block trains" in said
    assert ("last1 on reviews from bert: the outputs of 3 frozen blocks, 12 MB, save 50 s in 2 runs"
            in said)
    assert "about 1 min 10 s (without shortcuts 2 min 0 s)" in said  # 2 x (20 + 13) + 4
    assert "stack" not in said and "sweep" not in said and "Hardware" not in said


def test_text__of_a_stack(write: Write) -> None:
    said = scripted(write, probe=RuntimeEstimate(40.0, CACHE, heads=HeadForecast(2, 1.5, 2.0)))
    assert ("2 seeds train as one stack of heads, in 2.0 s; one by one they would take 3.0 s"
            in said)
    assert "about 12 s (without shortcuts 1 min 20 s)" in said  # 2 x (3 + 1) + 4
    said = scripted(write, probe=RuntimeEstimate(40.0, CACHE, trainer="precision bf16-true"))
    assert "each head is trained by the Trainer: precision bf16-true" in said
    assert "stack" not in said


def test_estimate__says_why_a_private_head_is_not_solved_for(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Forecast, "pays", True)
    private = {"class_path": "DifferentiallyPrivate",
               "init_args": {"noise": 1.0, "technique": "LinearProbe"}}
    said = text(estimate(load_study(write(techniques={"probe": "LinearProbe", "private": private}))))
    assert ("each head is trained by the Trainer: DifferentiallyPrivate stands around LinearProbe"
            in said)
    assert said.count("each head is trained by the Trainer") == 1


def test_text__of_hardware_names_techniques_where_they_differ(write: Write) -> None:
    said = scripted(write, full=RuntimeEstimate(1.0, hardware=("same", "full's")),
                    probe=RuntimeEstimate(1.0, hardware=("same",)))
    assert "Hardware: bert: same bert: full's (full) Computed once:" in said


def test_estimate__times_the_cells_as_they_will_run(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "bfloat16_instructions", lambda: "AVX512-BF16")
    monkeypatch.setattr(Forecast, "pays", True)  # whatever a clock says of so small a network
    trainer = {"max_epochs": 2, "precision": "auto", "compile": "auto", "accelerator": "cpu"}
    made = estimate(load_study(write(trainer=trainer)))
    said = text(made)
    assert ("bert: precision auto is bf16-mixed: the processor has AVX512-BF16 bert: compile: no, "
            "only on a GPU is it repaid") in said
    assert "probe on reviews from bert: the outputs of 4 frozen blocks" in said
    assert "2 seeds train as one stack of heads, in " in said
    assert "lora on reviews from bert: nothing: only embeddings are frozen" in said
    (probe,) = (made.foreseen[planned.cell.key.config] for planned in made.plan.cells
                if planned.cell.key.technique == "probe")
    assert probe.heads is not None and probe.heads.runs == 2
    plain = estimate(load_study(write(trainer=trainer)).with_shortcuts(False))
    assert plain.total_seconds == plain.plain_seconds
    assert "nothing: --plain" in text(plain) and "stack" not in text(plain)
    assert "compile: no, --plain" in text(plain)


def test_estimate__leaves_no_cache(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftlab.data.token_cache.FEW", 1)
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    study = load_study(write())
    before = set(tmp_path.rglob("*"))
    estimate(study)
    assert set(tmp_path.rglob("*")) == before
    assert cache_folder.may_add()
    plan(study)
    assert list((tmp_path / "cache" / "tokens").glob("*.safetensors")), "a run would have kept it"


def test_heads__are_extrapolated_from_some_steps(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load_study(write(trainer={"max_epochs": 4}))
    cell = next(each for each in study.cells if each.key.technique == "probe")
    data, backbone = build(cell.data), build(cell.backbone)
    data.load()
    data.connect(backbone, 0)
    run = Run(backbone, data, build(cell.technique), TrainerSettings(**cell.trainer), 0,
              study.select_by, Path(), {"backbone": {}})
    model, guard = adapt(run, lambda event: None)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    real = time_estimate.foresee_heads(run, guard, 3)
    assert 0 < real.alone < 60 and 0 < real.together < 60
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    monkeypatch.setattr(time_estimate, "STEPS", 2)
    monkeypatch.setattr(time_estimate, "_epoch", lambda run, head, guard, runs, order: (
        100.0 * runs + 10.0 * len(order)))
    batches = len(data.train_dataloader())
    assert batches > 3, "more than are timed"
    found = time_estimate.foresee_heads(run, guard, 3)
    assert found.alone == pytest.approx(4 * (100 + 10 * batches), abs=1.0)
    assert found.together == pytest.approx(4 * (300 + 10 * batches), abs=1.0)


def test_memory__is_measured_where_there_is_room(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load_study(write(techniques={"full": "FullFineTuning"}, trainer={"max_epochs": 1, "accelerator": "cpu"}))
    (here,) = estimate(study).memory.values()
    known = here.foretold
    assert known is not None and known.measured and here.fits
    assert here.needed == known.peak + known.process > known.process > 10 * known.weights
    assert f"fits: {size(here.needed)}, measured, of " in here.text() and "libraries and data " in here.text()
    monkeypatch.setattr(hardware, "room_of", lambda device: known.process + known.weights)
    (short,) = estimate(study).memory.values()
    assert short.foretold is not None and not short.foretold.measured and not short.fits
    assert short.text().startswith(f"does not fit: {size(short.needed)} of ")


def test_seconds__have_the_passes_of_quantised_models(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchao", reason="integers are torchao's")
    held: list[str] = []
    inside = quantized.held_as

    def noted(chosen: Any, name: str) -> Any:
        assert chosen
        held.append(name)
        return inside(chosen, name)

    monkeypatch.setattr(quantized, "held_as", noted)
    monkeypatch.setattr("ftlab.studies.runtime_estimate.fastest", lambda act: act() is None or 1.0)  # seconds a batch
    seconds = {}
    for names in ([], ["int8", "int4"]):
        study = load_study(write(techniques={"lora": "LoRA"}, trainer={"max_epochs": 1}, quantized=names))
        (here,) = estimate(study).foreseen.values()
        seconds[len(names)] = here.seconds
    data = build(study.cells[0].data)
    data.load()
    data.connect(build(study.cells[0].backbone), 0)
    assert held == ["int8", "int4"] and seconds[2] - seconds[0] == 2 * len(data.test_dataloader())
