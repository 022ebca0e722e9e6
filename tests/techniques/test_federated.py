"""Federated training: rounds over clients, held to plain training, to one step on all, to a loop."""

import copy
import csv
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.clients import Clients, Turn
from ftlab.data.splits import Split
from ftlab.data.text import TextClassification
from ftlab.errors import InputError
from ftlab.techniques.base import Optimization, Technique
from ftlab.techniques.ema import EMA
from ftlab.techniques.factor_gap import FactorGap
from ftlab.techniques.federated import Federated
from ftlab.techniques.ffa_lora import FFALoRA
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.jtt import JTT
from ftlab.techniques.linear_probe_then_fine_tune import LinearProbeThenFineTune
from ftlab.techniques.lora import LoRA
from ftlab.tracking.tracker import Tracker
from ftlab.training.checkpoint import WEIGHTS
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True
SGD = Optimization(optimizer="sgd", schedule="constant", warmup=0.0, weight_decay=0.0)


def texts(folder: Path, clients: str = "a", size: int = 8) -> TextClassification:
    rows = [f"{'good' if n % 2 else 'bad'} film {n % 7},{(n + (n % 5 == 4)) % 2},{clients[n % len(clients)]}"
            for n in range(60)]
    (folder / "rows.csv").write_text("text,label,who\n" + "\n".join(rows) + "\n")
    return TextClassification(str(folder / "rows.csv"), max_length=8, batch_size=size, bucketing=False,
                              columns={"client": "who"}, split=Split(validation=0.25, test=0.25))


def trained(technique: Technique, data: TextClassification, tiny_bert: Path, folder: Path, epochs: int = 2,
            **settings: Any) -> tuple[dict[str, float], dict[str, torch.Tensor], Run]:
    folder.mkdir()
    run = Run(HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0), data, technique,
              TrainerSettings(max_epochs=epochs, gradient_clip=None, **settings), 3, "val/loss", folder)
    metrics = execute(run, lambda event: None)
    return metrics, load_file(folder / "checkpoint" / WEIGHTS), run


def test_one_client__is_plain_training(tiny_bert: Path, tmp_path: Path) -> None:
    """Bit for bit: order, dropout, optimizer; of one round, after which a client's optimizer is new."""
    found, weights, _ = trained(Federated(FullFineTuning(lr=1e-3)), texts(tmp_path), tiny_bert,
                                tmp_path / "one", 1)
    plain, wanted, _ = trained(FullFineTuning(lr=1e-3), texts(tmp_path), tiny_bert, tmp_path / "plain", 1)
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)
    assert found["test/loss"] == plain["test/loss"]


def bound(technique: Federated, data: TextClassification, tiny_bert: Path) -> Any:
    """Technique on a model in float64 without dropout, and the data as it draws them."""
    backbone = HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0)
    data.load()
    data.connect(backbone, 3)
    drawn = data.sampled_by(technique.plan)
    technique.prepare(drawn)
    torch.manual_seed(5)
    technique.bind(backbone.build(data.task).double().eval(), data.task)
    return drawn, technique.model


def test_one_step_each__is_a_step_on_all(tiny_bert: Path, tmp_path: Path) -> None:
    """Clients of unlike size (FedSGD): the mean weighs by examples; uniform weights would be off."""
    technique = Federated(FullFineTuning(lr=0.1, optim=SGD))
    data, model = bound(technique, texts(tmp_path, "aab", 64), tiny_bert)
    plain = copy.deepcopy(model)
    optimizer = technique.optimizer([{"params": list(model.parameters()), "lr": 0.1}])
    technique.begin_fit(model, data, 2)
    technique.begin_epoch(model, 0, 1)
    batches = list(data.train_dataloader())
    assert len({len(batch["index"]) for batch in batches}) == 2
    for number, batch in enumerate(batches):
        optimizer.zero_grad()
        technique.objective(model, data.task, batch).backward()
        optimizer.step()
        technique.after_step(model, number + 1)
    (whole,) = data.eval_loader("train")
    data.task.loss(plain(whole), whole).backward()
    torch.optim.SGD(plain.parameters(), lr=0.1).step()
    for ours, wanted in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-11)


FLOWER = {  # python tests/references/flower_aggregate.py, of Flower 1.42.0
    "weight": [0.747875085216946, 0.453853693537402, -0.257438690926886, -0.732043130192345,
               -0.533610491548824, 0.155421172153823],
    "bias": [0.385383800187213, 0.354088102398252, -0.00275456377471433, -0.35706469671653]}


def test_mean__is_flower_s(tiny_bert: Path, tmp_path: Path) -> None:
    technique = Federated(FullFineTuning(lr=0.1, optim=SGD))
    data, model = bound(technique, texts(tmp_path), tiny_bert)
    technique.optimizer([{"params": list(model.parameters()), "lr": 0.1}])
    technique.begin_fit(model, data, 3)
    shapes = {"weight": (2, 3), "bias": (4,)}
    named = dict(list(model.named_parameters())[:2])
    technique.names = list(named)
    for parameter, shape in zip(named.values(), shapes.values(), strict=True):
        parameter.data = torch.zeros(shape, dtype=torch.float64)
    technique.turns = []
    for client, examples in enumerate((3, 5, 11)):
        matrix, vector = named.values()
        matrix.data = torch.sin(client + torch.arange(6, dtype=torch.float64)).reshape(2, 3)
        vector.data = torch.sin(10 * client + torch.arange(4, dtype=torch.float64))
        technique._take(model, Turn(client, 1, examples))
    technique._average(model)
    for parameter, wanted in zip(named.values(), FLOWER.values(), strict=True):
        assert parameter.detach().ravel().tolist() == pytest.approx(wanted, rel=1e-13)


@pytest.mark.parametrize(("mu", "fraction"), [(0.0, 1.0), (0.5, 1.0), (0.0, 0.6)])
def test_rounds__are_those_of_a_plain_loop(tiny_bert: Path, tmp_path: Path, mu: float, fraction: float) -> None:
    """FedAvg and FedProx as written: two rounds, two local epochs, of three clients of unlike size."""
    technique = Federated(FullFineTuning(lr=0.05, optim=SGD), local_epochs=2, proximal=mu, fraction=fraction)
    data, model = bound(technique, texts(tmp_path, "aabbbc"), tiny_bert)
    plain = copy.deepcopy(model)
    rounds = []
    optimizer = technique.optimizer([{"params": list(model.parameters()), "lr": 0.05}])
    technique.begin_fit(model, data, 100)
    loader, step = data.train_dataloader(), 0
    for number in range(2):
        loader.batch_sampler.sampler.set_epoch(number)
        batches = list(loader)
        rounds.append(batches)
        technique.begin_epoch(model, number, 2)
        for batch in batches:
            optimizer.zero_grad()
            technique.objective(model, data.task, batch).backward()
            optimizer.step()
            technique.after_step(model, step := step + 1)

    holders = np.array(technique.holders)
    for number, batches in enumerate(rounds):
        turns = technique.plan.turns(technique.holders, 8, 3, number)
        batches = batches[:sum(turn.batches for turn in turns)]  # what fills the round trains nothing
        common = [p.detach().clone() for p in plain.parameters()]
        by_client: dict[int, list[Any]] = {}
        for batch in batches:
            (client,) = set(holders[batch["index"].numpy()].tolist())
            by_client.setdefault(client, []).append(batch)
        assert len(by_client) == (3 if fraction == 1 else 2)
        sums = [torch.zeros_like(c) for c in common]
        counted = 0
        for client, own in by_client.items():
            seen = [i for batch in own for i in batch["index"].tolist()]
            assert sorted(seen) == sorted(np.flatnonzero(holders == client).tolist() * 2), "two local epochs"
            with torch.no_grad():
                for parameter, value in zip(plain.parameters(), common, strict=True):
                    parameter.copy_(value)
            local = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
            for batch in own:
                local.zero_grad()
                away = sum(((p - c) ** 2).sum() for p, c in zip(plain.parameters(), common, strict=True))
                (data.task.loss(plain(batch), batch) + mu / 2 * away).backward()
                local.step()
            size = int((holders == client).sum())
            sums = [s + size * p.detach() for s, p in zip(sums, plain.parameters(), strict=True)]
            counted += size
        with torch.no_grad():
            for parameter, total in zip(plain.parameters(), sums, strict=True):
                parameter.copy_(total / counted)
    for (name, ours), wanted in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-11, msg=name)
    size = sum(p.numel() * 8 for p in model.parameters())
    clients = 3 if fraction == 1 else 2
    assert technique.costs() == {"bytes_up": 2 * clients * size, "bytes_down": 2 * clients * size, "rounds": 2}


@pytest.mark.parametrize("technique", [LoRA, FFALoRA])
def test_factor_gap__is_the_norm_written_out(tiny_bert: Path, tmp_path: Path, technique: Any) -> None:
    federated = Federated(technique(lr=1e-2))
    metrics, _, _ = trained(federated, texts(tmp_path, "aabbbc"), tiny_bert, tmp_path / "run")
    assert federated.gap is not None
    if technique is FFALoRA:  # one factor is everybody's
        assert "cost/factor_gap" not in metrics and federated.gap.pairs == []
        return
    assert 0 < metrics["cost/factor_gap"] < 2 and len(federated.gap.pairs) == 6
    rng = torch.Generator().manual_seed(0)
    names = ["x.lora_A.default.weight", "x.lora_B.default.weight", "other"]
    gap = FactorGap(names)
    clients = [(n, {names[0]: torch.randn(2, 5, generator=rng, dtype=torch.double),
                    names[1]: torch.randn(4, 2, generator=rng, dtype=torch.double)}) for n in (3, 1, 6)]
    for examples, own in clients:
        gap.add(own, examples)
    means = {name: sum(n * own[name] for n, own in clients) / 10 for name in names[:2]}
    gap.close(means)
    product = sum(n * own[names[1]] @ own[names[0]] for n, own in clients) / 10
    wanted = torch.linalg.norm(means[names[1]] @ means[names[0]] - product) / torch.linalg.norm(product)
    assert gap.last == pytest.approx(float(wanted))


def test_alike_clients__have_no_gap() -> None:
    names = ["x.lora_A.default.weight", "x.lora_B.default.weight"]
    own = {names[0]: torch.ones(2, 5), names[1]: torch.ones(4, 2)}
    gap = FactorGap(names)
    gap.add(own, 3)
    gap.add(own, 5)
    gap.close(own)
    assert gap.last == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("alpha", [0.1, 100.0])
def test_dirichlet__shares_out_every_example_once(alpha: float) -> None:
    classes = [n % 4 for n in range(400)]
    plan = Clients(10, alpha)
    clients = np.array(plan.strata(classes, {}))
    assert clients.tolist() == list(plan.strata(classes, {})), "it belongs to the data set"
    assert set(clients) == set(range(10)) and np.bincount(clients).min() >= 2
    most = np.mean([np.bincount(np.array(classes)[clients == c]).max() / (clients == c).sum() for c in range(10)])
    assert most > 0.55 if alpha < 1 else most < 0.4, "few classes each, or all alike"
    batches = plan.plan(clients.tolist(), 16, 0, 0)
    assert sorted(i for batch in batches for i in batch) == list(range(400))
    assert len(batches) == plan.length(clients.tolist(), 16)
    assert all(len(set(clients[batch])) == 1 for batch in batches)


def test_fraction__takes_others_in_each_round_and_never_more_batches_than_said() -> None:
    clients = [c for c in range(10) for _ in range(5 + c)]
    plan = Clients(None, fraction=0.3)
    chosen = [tuple(turn.client for turn in plan.turns(clients, 4, 0, epoch)) for epoch in range(20)]
    assert len(set(chosen)) > 5 and all(len(set(one)) == 3 for one in chosen)
    assert max(len(plan.plan(clients, 4, 0, epoch)) for epoch in range(20)) <= plan.length(clients, 4)


def test_fraction__every_round_is_validated(tiny_bert: Path, tmp_path: Path) -> None:
    """Rounds of few batches as well, through the Trainer; what fills them trains nothing."""
    (tmp_path / "run").mkdir()
    events: list[Any] = []
    run = Run(HuggingFace(str(tiny_bert), pooling="mean", dropout=0.0), texts(tmp_path, "aaaaaaaab", 4),
              Federated(FullFineTuning(lr=1e-3), fraction=0.4), TrainerSettings(max_epochs=6), 3, "val/loss",
              tmp_path / "run")
    metrics = execute(run, events.append)
    judged = [event for event in events if "val/loss" in event.get("metrics", {}) and "epoch" in event["metrics"]]
    assert len(judged) >= 6
    sizes = np.bincount(run.technique.holders)  # type: ignore[operator, arg-type]  # it is Federated
    assert math.ceil(sizes[0] / 4) > math.ceil(sizes[1] / 4), "rounds of unlike length"
    assert metrics["cost/rounds"] == 6


def test_rates__are_of_the_round_for_every_client(tiny_bert: Path, tmp_path: Path) -> None:
    technique = Federated(FullFineTuning(lr=1.0, optim=Optimization(schedule="linear", warmup=0.0)))
    data, model = bound(technique, texts(tmp_path, "aabbbc", 4), tiny_bert)
    (factor,) = technique.lr_factors([{}], 2 * len(data.train_dataloader()), 2)
    technique.begin_fit(model, data, 10)
    step = 0
    for number, whole in ((0, 1.0), (1, 0.5)):
        for turn in technique.plan.turns(technique.holders, 4, 3, number):
            assert factor(step) == pytest.approx(whole), "each begins where the round does"
            step += turn.batches


def test_what_froze_stays_frozen_for_every_client(tiny_bert: Path, tmp_path: Path) -> None:
    technique = Federated(LinearProbeThenFineTune(lr=1e-3, probe_epochs=0.5))
    data, model = bound(technique, texts(tmp_path, "aabbbc", 8), tiny_bert)
    optimizer = technique.optimizer([{"params": list(model.parameters()), "lr": 1e-3}])
    technique.begin_fit(model, data, 10)
    technique.begin_epoch(model, 0, 2)
    counts = set()
    for number, batch in enumerate(data.train_dataloader()):
        counts.add(sum(p.requires_grad for p in model.parameters()))
        optimizer.zero_grad()
        technique.objective(model, data.task, batch).backward()
        optimizer.step()
        technique.after_step(model, number + 1)
    assert len(counts) == 1 and counts.pop() < len(list(model.parameters()))


def test_last_example_alone__joins_a_batch() -> None:
    plan = Clients()
    clients = [0] * 9 + [1] * 4
    assert [len(batch) for batch in plan.plan(clients, 4, 0, 0)] == [4, 5, 4]
    assert plan.length(clients, 4) == 3 and [turn.batches for turn in plan.turns(clients, 4, 0, 0)] == [2, 1]


def test_run__counts_what_travels_and_says_so(tiny_bert: Path, tmp_path: Path) -> None:
    metrics, weights, run = trained(Federated(LoRA(rank=2), clients=3), texts(tmp_path), tiny_bert,
                                    tmp_path / "run", 3)
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    assert metrics["cost/bytes_up"] == metrics["cost/bytes_down"] == 3 * 3 * size, "the head travels too"
    assert metrics["cost/rounds"] == 3
    assert any("3 clients, 3 rounds" in note for note in run.technique.notes)


@pytest.mark.parametrize(("clients", "arguments", "what"), [
    ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", {}, "has 1 training example"),
    ("a", {"clients": 40}, "too few for 40 clients")])
def test_clients_without_examples__are_refused(tiny_bert: Path, tmp_path: Path, clients: str,
                                               arguments: Any, what: str) -> None:
    with pytest.raises(InputError, match=what):
        for seed in range(40):  # until the lone one is in train
            data = texts(tmp_path, clients)
            data.split = Split(validation=0.25, test=0.25, seed=seed)
            data.load()
            Federated(FullFineTuning(), **arguments).prepare(data)


@pytest.mark.parametrize(("make", "what"), [
    (lambda: Federated(FullFineTuning(), clients=0), "clients must be at least 1"),
    (lambda: Federated(FullFineTuning(), alpha=0), "alpha must be above 0"),
    (lambda: Federated(FullFineTuning(), fraction=0), "fraction must be above 0"),
    (lambda: Federated(FullFineTuning(), local_epochs=0), "local_epochs must be at least 1"),
    (lambda: Federated(FullFineTuning(), proximal=-1), "proximal must be 0 or more"),
    (lambda: Federated(EMA(FullFineTuning())), "makes no sense around"),
    (lambda: JTT(Federated(FullFineTuning())), "makes no sense around")])
def test_wrong__is_refused(make: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        make()


def test_several_devices__are_refused_before_anything_runs(
    tmp_path: Path, tiny_bert: Path, here: Callable[..., tuple[int, str, str]]
) -> None:
    texts(tmp_path, "ab")
    (tmp_path / "study.yaml").write_text(f"""\
name: far
backbones: {{bert: {{class_path: HuggingFace, init_args: {{source: '{tiny_bert}'}}}}}}
datasets: {{films: {{class_path: TextClassification, init_args: {{train: rows.csv, max_length: 8, columns: {{client: who}}}}}}}}
techniques: {{fed: {{class_path: Federated, init_args: {{technique: BitFit}}}}}}
seeds: [0]
trainer: {{max_epochs: 2}}
""")
    code, _, errors = here("check", "study.yaml", "--set", "trainer.devices=2")
    assert code == 2 and len(errors.strip().splitlines()) == 2, errors
    code, _, errors = here("check", "study.yaml", "--set", "datasets.films.init_args.columns=null")
    assert code == 2 and "column 'client'" in errors
    assert here("run", "study.yaml")[0] == 0
    (run,) = csv.DictReader(Path("results/far/runs.csv").read_text().splitlines())
    assert float(run["cost/rounds"]) == 2
    tracker = Tracker("sqlite:///mlflow.db")
    (record,) = tracker.cells("far")
    curve = tracker.history(record.finished[0].run_id, "val/accuracy")
    tracker.close()
    best = max(value for _, value in curve)
    first = next(number for number, (_, value) in enumerate(curve, 1) if value >= 0.95 * best)
    assert here("report", "study.yaml")[0] == 0
    page = Path("results/far/report.html").read_text()
    (row,) = re.findall(r"<tr>(.*?)</tr>", page[page.index('id="federation"'):].split("</tbody>")[0])[1:]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
    assert cells[1] == "2" and cells[2] == f"{float(run['cost/bytes_up']) / 1e6:,.1f}"
    assert cells[-1] == f"{first:.1f}"
