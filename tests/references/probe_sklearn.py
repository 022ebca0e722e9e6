"""scikit-learn's logistic regression on the features that a study's LinearProbe sees.

    FTLAB_SHARED=../shared python tests/references/probe_sklearn.py experiments/sst2.yaml

Features come from the backbone in eval mode through `TaskModel.features`, once a study: neither
they nor the regression depend on the seed. The regression's strength C is chosen on validation.
"""

import sys

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from ftlab.studies.components import build
from ftlab.studies.study import load_study


def main(path: str) -> None:
    cell = next(c for c in load_study(path).cells if c.key.technique == "probe")
    data, backbone = build(cell.data), build(cell.backbone)
    data.load()
    data.connect(backbone, seed=0)
    model = backbone.build(data.task).eval()
    features, targets = {}, {}
    for split in ("train", "validation", "test"):
        rows, labels = [], []
        with torch.inference_mode():
            for batch in data.eval_loader(split):
                rows.append(model.features(batch).numpy())
                labels.append(batch["target"].numpy())
        features[split], targets[split] = np.concatenate(rows), np.concatenate(labels)
    best = (0.0, 0.0, 0.0)
    for strength in (1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100):
        regression = LogisticRegression(C=strength, max_iter=5000)
        regression.fit(features["train"], targets["train"])
        scores = [regression.score(features[s], targets[s]) for s in ("validation", "test")]
        print(f"C={strength:g}: validation {scores[0]:.4f} test {scores[1]:.4f}", flush=True)
        best = max(best, (scores[0], scores[1], strength))
    print(f"{path}: C={best[2]:g}, test accuracy {best[1]:.4f}")


if __name__ == "__main__":
    main(sys.argv[1])
