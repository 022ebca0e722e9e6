"""The features of a frozen backbone: those that the run's own model gives, and nothing trains."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ftlab.backbones.huggingface import HuggingFace
from ftlab.backbones.torchvision import Torchvision
from ftlab.data.image import ImageClassification
from ftlab.data.image_augment import ImageAugment
from ftlab.data.text import TextClassification
from ftlab.errors import Incompatible
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.techniques.linear_probe import LinearProbe
from ftlab.training.execute import execute
from ftlab.training.frozen_features import frozen_features
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings


@pytest.fixture
def make(tiny_bert: Path, reviews: Path, tmp_path: Path) -> Callable[..., Run]:
    def run(technique: object, pooling: str = "mean", **more: object) -> Run:
        (folder := tmp_path / str(len(list(tmp_path.iterdir())))).mkdir()
        return Run(HuggingFace(str(tiny_bert), pooling=pooling),
                   TextClassification(str(reviews), max_length=16, batch_size=8), technique,
                   TrainerSettings(max_epochs=2), 3, "val/loss", folder, **more)

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


def test_features__of_pooled_heads_have_no_source_layer(make: Callable[..., Run]) -> None:
    found = frozen_features(make(FullFineTuning()), lambda event: None)
    with pytest.raises(Incompatible, match="pooled features"):
        found.source_layer()
