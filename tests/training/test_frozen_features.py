"""The features of a frozen backbone: those that the run's own model gives, and nothing trains."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.task_model import TaskModel
from ftlab.backbones.torchvision import Torchvision
from ftlab.data.image import ImageClassification
from ftlab.data.image_augment import ImageAugment
from ftlab.data.poisson import Poisson
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.training.execute import execute
from ftlab.training.frozen_features import frozen_features, unlabelled_features
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

SPLITS = ("validation", "test", "beside.target")


@pytest.fixture
def make(tiny_bert: Path, reviews: Path, tmp_path: Path) -> Callable[..., Run]:
    def run(technique: object, pooling: str = "mean", **more: object) -> Run:
        (folder := tmp_path / str(len(list(tmp_path.iterdir())))).mkdir()
        return Run(HuggingFace(str(tiny_bert), pooling=pooling),
                   TextClassification(str(reviews), max_length=16, batch_size=8), technique,
                   TrainerSettings(max_epochs=2), 3, "val/loss", folder, **more)

    return run


@pytest.fixture
def with_stream(make: Callable[..., Run], reviews: Path, tmp_path: Path) -> Callable[..., Run]:
    """A run whose data bring a stream along that has no labels."""
    texts = [line.rpartition(",")[0] for line in reviews.read_text().splitlines()]
    (bare := tmp_path / "bare.csv").write_text("\n".join(texts[:31]) + "\n")

    def run(**more: object) -> Run:
        made = make(FullFineTuning(), **more)
        made.data = TextClassification(str(reviews), max_length=16, batch_size=8,
                                       beside={"target": str(bare)})
        return made

    return run


def test_features__are_the_models_own(make: Callable[..., Run]) -> None:
    run = make(FullFineTuning())
    found = frozen_features(run, lambda event: None)
    data = run.data
    model = run.backbone.build(data.task).eval()
    assert found.rows.features.dtype == torch.float64
    assert len(found.rows.features) == len(data.splits["train"])
    with torch.no_grad():
        for batch in data.eval_loader("train"):
            torch.testing.assert_close(found.rows.features[batch["index"]].float(),
                                       model.features(batch), rtol=1e-5, atol=1e-6)
            assert torch.equal(found.rows.batch["target"][batch["index"]], batch["target"])
    assert list(run.directory.iterdir()) == []


def test_features__technique_and_seed_of_the_head_play_no_part(make: Callable[..., Run]) -> None:
    one, other = make(FullFineTuning()), make(LinearProbe())
    other.seed, other.settings = 9, TrainerSettings(devices=2)  # one process reads all
    found = [frozen_features(run, lambda event: None).rows.features for run in (one, other)]
    assert torch.equal(*found)
    assert type(one.technique) is FullFineTuning  # the caller's run is left as it was


def test_features__without_augmentation(shapes: Path, tmp_path: Path) -> None:
    found = []
    for augment in (None, ImageAugment()):
        run = Run(Torchvision("shufflenet_v2_x0_5", None),
                  ImageClassification(str(shapes), image_size=32, batch_size=16, augment=augment),
                  FullFineTuning(), TrainerSettings(max_epochs=1), 0, "val/loss", tmp_path)
        found.append(frozen_features(run, lambda event: None).rows.features)
    assert torch.equal(*found)
    assert found[0].std() > 0


def test_features__read_from_a_runs_cache(make: Callable[..., Run], monkeypatch) -> None:
    """What a run has cached of the frozen blocks is read, and gives the same."""
    monkeypatch.setattr("ftlab.training.shortcuts.prefix_cache.cache_estimate.Forecast.pays", True)
    record = {"backbone": "bert", "data": {"init_args": {}}}
    plain = frozen_features(make(LinearProbe(), plain=True), lambda event: None)
    execute(make(LinearProbe(solver=None), record=record), lambda event: None)
    events: list[dict[str, object]] = []
    found = frozen_features(make(FullFineTuning(), record=record), events.append)
    assert any("was read" in str(event.get("text")) for event in events)
    torch.testing.assert_close(found.rows.features, plain.rows.features, rtol=1e-5, atol=1e-6)


def test_features__of_a_head_with_more_layers(
    tmp_path: Path, tiny_bert: Path, reviews: Path
) -> None:
    import transformers as hf

    config = hf.DistilBertConfig(vocab_size=40, dim=32, n_heads=2, n_layers=1, hidden_dim=48)
    hf.DistilBertModel(config).save_pretrained(tmp_path / "distil")
    for path in tiny_bert.glob("*token*"):
        (tmp_path / "distil" / path.name).write_bytes(path.read_bytes())
    run = Run(HuggingFace(str(tmp_path / "distil"), pooling="own"),
              TextClassification(str(reviews), max_length=16), FullFineTuning(),
              TrainerSettings(), 0, "val/loss", tmp_path)
    with pytest.raises(Incompatible, match="not one linear layer") as caught:
        frozen_features(run, lambda event: None)
    assert "pooling" in caught.value.mend
    found = unlabelled_features(run, ["test"], lambda event: None)["test"]
    assert found.shape == (len(run.data.splits["test"]), 32)
    assert found.min() == 0 < found.std(dim=0).max()  # behind the layer before the last, a ReLU


def test_features__of_pooled_heads_have_no_source_layer(make: Callable[..., Run]) -> None:
    found = frozen_features(make(FullFineTuning()), lambda event: None)
    with pytest.raises(Incompatible, match="pooled features"):
        found.source_layer()


def test_unlabelled_features__are_the_models_own_without_labels(
    with_stream: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[set[str]] = []

    def watched(model: TaskModel, batch: dict, blocks: tuple[str, ...] = ()) -> object:
        shown.append(set(batch))
        return original(model, batch, blocks)

    original = TaskModel.watched
    monkeypatch.setattr(TaskModel, "watched", watched)
    run = with_stream()
    found = unlabelled_features(run, SPLITS, lambda event: None)
    monkeypatch.undo()
    assert shown and not any("target" in names for names in shown)
    model = run.backbone.build(run.data.task).eval()
    for split in SPLITS:
        assert len(found[split]) == len(run.data.splits[split])
        with torch.no_grad():
            for batch in run.data.eval_loader(split):
                torch.testing.assert_close(found[split][batch["index"]].float(),
                                           model.features(batch), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64),
                                                  ("bf16-true", torch.bfloat16)])
def test_unlabelled_features__in_the_runs_precision(
    with_stream: Callable[..., Run], precision: str, dtype: torch.dtype
) -> None:
    run = with_stream()
    run.settings = TrainerSettings(precision=precision)
    found = unlabelled_features(run, ["beside.target"], lambda event: None)["beside.target"]
    model = run.backbone.build(run.data.task).eval().to(dtype)
    with torch.no_grad():
        for batch in run.data.eval_loader("beside.target"):
            torch.testing.assert_close(found[batch["index"]], model.features(batch).double(),
                                       rtol=1e-12, atol=1e-12)


def test_unlabelled_features__read_from_what_is_cached(
    with_stream: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ftlab.training.shortcuts.prefix_cache.cache_estimate.Forecast.pays", True)
    record = {"backbone": "bert", "data": {"init_args": {}}}
    plain = unlabelled_features(with_stream(plain=True), SPLITS, lambda event: None)
    said: list[str] = []
    for _ in range(2):
        again = unlabelled_features(with_stream(record=record), SPLITS,
                                    lambda event: said.append(str(event.get("text"))))
    caches = [text for text in said if "prefix cache" in text]
    assert "was computed" in caches[0] and "was read" in caches[1]
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == len(SPLITS)  # and no other
    for split in SPLITS:
        torch.testing.assert_close(again[split], plain[split], rtol=1e-5, atol=1e-6)


def test_unlabelled_features__of_data_drawn_in_any_way(with_stream: Callable[..., Run]) -> None:
    """Batches of training that vary in size are refused to who trains on them, and here none does."""
    run = with_stream()
    run.data = run.data.sampled_by(Poisson())
    found = unlabelled_features(run, ["test"], lambda event: None)
    assert torch.equal(found["test"], unlabelled_features(with_stream(), ["test"],
                                                          lambda event: None)["test"])
