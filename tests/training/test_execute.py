import copy
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.text import TextClassification
from ftlab.errors import GuardFailed
from ftlab.techniques.base import Optimization
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.training.adapt import adapt
from ftlab.training.evaluate import evaluate
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

UNRENDERED = True


def make(bert: Path, table: Path, directory: Path, technique: object, batch_size: int = 8,
         **settings: object) -> Run:
    return Run(
        HuggingFace(str(bert), pooling="mean", dropout=0.0, head_dropout=0.0),
        TextClassification(str(table), max_length=32, batch_size=batch_size),
        technique,
        TrainerSettings(**settings),
        3,
        "val/loss",
        directory,
    )


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize(("batch_size", "accumulate"), [(8, 1), (3, 6)])
def test_fit__equals_a_plain_pytorch_loop(
    tiny_bert: Path, reviews: Path, tmp_path: Path, schedule: str, batch_size: int, accumulate: int
) -> None:
    """Over whole batches, whatever they are made of; the last of an epoch is shorter."""
    lr, epochs = 1e-3, 3
    optim = Optimization(schedule=schedule, weight_decay=0.1)
    run = make(tiny_bert, reviews, tmp_path, FullFineTuning(lr, optim), batch_size * accumulate,
               max_epochs=epochs)
    torch.manual_seed(3)
    run.data.load()
    run.data.connect(run.backbone, 3)
    model, _ = adapt(run, lambda event: None)
    start = copy.deepcopy(model.state_dict())
    metrics = execute(make(tiny_bert, reviews, tmp_path, technique := FullFineTuning(lr, optim),
                           batch_size, max_epochs=epochs, accumulate=accumulate), lambda event: None)

    model.load_state_dict(start)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}], lr=lr
    )
    loader = run.data.train_dataloader()
    steps = epochs * len(loader)
    warm = 0.1 * steps
    step = 0
    for epoch in range(int(metrics["best_epoch"])):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            torch.nn.functional.cross_entropy(model(batch), batch["target"]).backward()
            if step < warm:
                factor = step / warm
            elif schedule == "linear":
                factor = (steps - step) / (steps - warm)
            else:
                factor = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * (step - warm) / (steps - warm))))
            for group in optimizer.param_groups:
                group["lr"] = lr * float(factor)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    ours = dict(technique.model.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter, rtol=1e-4, atol=1e-5)


def test_same_seed_same_result_other_seed_other(
    tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    def loss(seed: int, folder: str) -> float:
        run = make(tiny_bert, reviews, tmp_path / folder, LinearProbe(solver=None))
        run.directory.mkdir()
        run.seed = seed
        return execute(run, lambda event: None)["test/loss"]

    first = loss(0, "a")
    assert loss(0, "b") == first
    assert loss(1, "c") != first


def test_probe__reaches_logistic_regression_on_the_same_features(
    tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    technique = LinearProbe(lr=0.1, solver=None)
    run = make(tiny_bert, reviews, tmp_path, technique, max_epochs=40)
    metrics = execute(run, lambda event: None)
    features, targets = {}, {}
    for split in ("train", "test"):
        batches = list(run.data.eval_loader(split))
        with torch.no_grad():
            features[split] = torch.cat([technique.model.features(b) for b in batches]).numpy()
        targets[split] = torch.cat([b["target"] for b in batches]).numpy()
    reference = LogisticRegression(C=100, max_iter=2000).fit(features["train"], targets["train"])
    score = reference.score(features["test"], targets["test"])
    assert metrics["test/accuracy"] == pytest.approx(score, abs=2 / len(targets["test"]))


def test_writes__predictions_figure_checkpoint(
    tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    run = make(tiny_bert, reviews, tmp_path, LinearProbe(solver=None), max_epochs=2)
    events: list[dict] = []
    metrics = execute(run, events.append)
    records = pq.read_table(tmp_path / "predictions" / "test.parquet").to_pylist()
    assert [record["id"] for record in records] == run.data.splits["test"].ids
    right = [record["target"] == record["prediction"] for record in records]
    assert metrics["test/accuracy"] == pytest.approx(sum(right) / len(right))
    assert all(sum(record["scores"]) == pytest.approx(1) for record in records)
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["confusion_matrix.png"]
    size = sum(path.stat().st_size for path in (tmp_path / "checkpoint").iterdir())
    assert metrics["cost/checkpoint_bytes"] == size
    assert {"progress", "metrics"} <= {event["event"] for event in events}
    for name in ("train_seconds", "total_seconds", "step_seconds", "latency_seconds", "train_flops",
                 "inference_flops", "peak_memory_bytes"):
        assert metrics[f"cost/{name}"] > 0


def test_early_stopping(tiny_bert: Path, reviews: Path, tmp_path: Path) -> None:
    technique = LinearProbe(lr=1e-9, solver=None)  # nothing improves beyond rounding
    run = make(tiny_bert, reviews, tmp_path, technique, max_epochs=30, patience=2)
    run.select_by = "val/accuracy"
    execute(run, lambda event: None)
    assert run.technique.current_epoch <= 4


def test_evaluate__every_example_exactly_once(
    tiny_bert: Path, reviews: Path, tmp_path: Path
) -> None:
    run = make(tiny_bert, reviews, tmp_path, LinearProbe())
    run.data.load()
    run.data.connect(run.backbone, 0)
    model = run.backbone.build(run.data.task)
    batches = list(run.data.test_dataloader())
    ids = run.data.splits["test"].ids
    evaluate(model, batches, run.data.task, ids, lambda batch: batch)
    for wrong in (batches[1:], [*batches, batches[0]]):
        with pytest.raises(GuardFailed, match="evaluation saw"):
            evaluate(model, wrong, run.data.task, ids, lambda batch: batch)
