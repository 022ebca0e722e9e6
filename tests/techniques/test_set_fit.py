"""SetFit's pairs and loss against the authors' library, its head against scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matrix import make_world
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression as Reference
from steps import Bench, assert_equal, state
from torch import Tensor

from ftlab.data.image import ImageClassification
from ftlab.data.image_augment import ImageAugment
from ftlab.errors import Incompatible, InputError
from ftlab.techniques.features import Features
from ftlab.techniques.set_fit import SetFit, alike, pair_loss
from ftlab.training.execute import execute
from ftlab.training.run import Run
from ftlab.training.trainer_settings import TrainerSettings

FEATURES = torch.sin(torch.arange(40, dtype=torch.float64) ** 1.5).view(8, 5)
# setfit 1.2.0, with sentence-transformers 6.2.0: classes of eight texts; the pairs of one and of
# two classes of ContrastiveDataset(texts, classes, False, sampling_strategy="oversampling"); and
# CosineSimilarityLoss over all that it yields, of FEATURES
LIBRARY = [([0, 0, 0, 0, 0, 1, 2, 3], 18, 18, 0.392227901270),
           ([0, 0, 1, 1, 2, 2, 3, 3], 12, 24, 0.132481494192)]
EQUAL = 8  # of its pairs of one class have a text twice, whose loss is 0: here are none of those


def parts(classes: list[int]) -> tuple[Tensor, Tensor]:
    """Mean loss of the pairs of one class, and of two."""
    pairs = [(i, j) for i in range(8) for j in range(i)]
    cosines = [torch.cosine_similarity(FEATURES[i], FEATURES[j], dim=0) for i, j in pairs]
    kinds = [[(cosine - int(same)) ** 2 for cosine, (i, j) in zip(cosines, pairs, strict=True)
              if (classes[i] == classes[j]) == same]
             for same in (True, False)]
    one, two = (torch.stack(kind).mean() if kind else torch.tensor(torch.nan) for kind in kinds)
    return one, two


@pytest.mark.parametrize(("classes", "positive", "negative", "loss"), LIBRARY)
def test_pairs__are_the_library_s(classes: list[int], positive: int, negative: int,
                                  loss: float) -> None:
    same = alike(torch.tensor(classes))
    first, second = torch.triu_indices(8, 8, 1)
    assert int(same[first, second].sum()) == positive - EQUAL
    assert int((~same[first, second]).sum()) == negative
    one, two = parts(classes)
    assert float((one * (positive - EQUAL) / positive + two) / 2) == pytest.approx(loss, abs=1e-11)
    assert float(pair_loss(FEATURES, same)) == pytest.approx(float(one + two) / 2, abs=1e-14)


def test_pairs__of_one_kind_alone() -> None:
    one = pair_loss(FEATURES, alike(torch.zeros(8)))
    assert float(one) == pytest.approx(float(parts([0] * 8)[0]), abs=1e-14)
    two = pair_loss(FEATURES, alike(torch.arange(8)))
    assert float(two) == pytest.approx(float(parts([*range(8)])[1]), abs=1e-14)
    single = FEATURES[:1].clone().requires_grad_()
    loss = pair_loss(single, alike(torch.zeros(1)))
    loss.backward()
    assert loss.item() == 0
    assert single.grad is not None and not single.grad.any()


def test_pairs__of_several_labels_share_one() -> None:
    # setfit's ContrastiveDataset with multilabel=True finds 20 - 8 and 16
    labels = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 1],
                           [0, 1, 0], [0, 0, 1]])
    same = alike(labels)[tuple(torch.triu_indices(8, 8, 1))]
    assert (int(same.sum()), int((~same).sum())) == (12, 16)


@pytest.fixture(scope="module")
def texts(request: pytest.FixtureRequest) -> Bench:
    return Bench(make_world("text_classification", request.getfixturevalue))


def test_objective__moves_the_backbone_by_the_pairs_alone(texts: Bench) -> None:
    one = texts.bound(SetFit()).eval()
    model, batch = one.model, texts.batches[0]
    loss = one.objective(model, texts.data.task, batch)
    pairs = pair_loss(model.features(batch), alike(batch["target"]))
    assert float(loss.detach()) == float(pairs.detach())
    trunk = dict(model.trunk.named_parameters())
    ours = torch.autograd.grad(loss, list(trunk.values()), allow_unused=True, retain_graph=True)
    plain = torch.autograd.grad(pairs, list(trunk.values()), allow_unused=True)
    for name, some, other in zip(trunk, ours, plain, strict=True):
        assert (some is None) == (other is None)
        if some is not None:
            torch.testing.assert_close(some, other, msg=name)
    head = torch.autograd.grad(loss, list(model.head.parameters()))
    assert all(0 < float(gradient.norm()) < 1e-2 for gradient in head)


def test_evaluated__has_scikit_learn_s_head(texts: Bench) -> None:
    one = texts.bound(SetFit(C=1.0, lr=1e-2))
    model = texts.fit(one)
    before = state(model)
    rows = Features(model, texts.data).train
    reference = Reference(C=1.0, tol=1e-10, max_iter=10_000).fit(
        rows.features, rows.batch["target"])
    batch = next(iter(texts.data.test_dataloader()))
    with torch.inference_mode(), one.evaluated(model):
        found = model(batch).softmax(dim=1)
    expected = reference.predict_proba(model.features(batch).detach().double())
    np.testing.assert_allclose(found.clone(), expected, atol=1e-4)
    assert_equal(state(model), before)


def test_run__keeps_the_network_of_an_epoch_with_its_own_head(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    backbone, data = make_world("text_classification", request.getfixturevalue)()
    run = Run(backbone, data, SetFit(C=1.0, lr=1e-3), TrainerSettings(max_epochs=2), 3, "val/loss",
              tmp_path)
    metrics = execute(run, lambda event: None)
    model = run.technique.model
    kept = load_file(tmp_path / "checkpoint" / "delta.safetensors")
    head = {name for name, _ in model.head.named_parameters()}
    assert head <= kept.keys() and kept.keys() - head
    rows = Features(model, run.data).train
    reference = Reference(C=1.0, tol=1e-10, max_iter=10_000).fit(
        rows.features, rows.batch["target"])
    logits = reference.decision_function(rows.features)
    batch = next(iter(run.data.eval_loader("train")))
    with torch.no_grad():
        outputs = model(batch)
    ours = outputs[:, 1] - outputs[:, 0] if logits.ndim == 1 else outputs - outputs.mean(1, True)
    theirs = logits[batch["index"]]
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    assert np.isfinite(metrics["test/loss"])


def test_set_fit__refuses_what_has_no_pairs(shapes: Path, tmp_path: Path, request: Any) -> None:
    with pytest.raises(ValueError, match="C must be above 0, got 0"):
        SetFit(C=0.0)
    mixed = ImageClassification(str(shapes), augment=ImageAugment(policy="none", mix="mixup"))
    with pytest.raises(Incompatible, match="mixtures have several"):
        SetFit().prepare(mixed)
    backbone, data = make_world("text_classification", request.getfixturevalue)()
    run = Run(backbone, data, SetFit(), TrainerSettings(accumulate=2), 3, "val/loss", tmp_path)
    with pytest.raises(InputError, match="SetFit takes all examples of an update in one batch"):
        execute(run, lambda event: None)
