from collections.abc import Callable
from pathlib import Path

import pytest
import yaml


@pytest.fixture
def write(tmp_path: Path, tiny_bert: Path, reviews: Path) -> Callable[..., Path]:
    """Writes a small study file; keyword arguments replace its top-level keys, None drops one."""

    def make(**changes: object) -> Path:
        study = {
            "name": "small",
            "question": "Does it work?",
            "backbones": {
                "bert": {
                    "class_path": "HuggingFace",
                    "init_args": {"source": str(tiny_bert), "pooling": "mean"},
                }
            },
            "datasets": {
                "reviews": {
                    "class_path": "TextClassification",
                    "init_args": {"train": str(reviews), "max_length": 32, "batch_size": 8},
                }
            },
            "techniques": {"probe": {"class_path": "LinearProbe", "init_args": {"solver": None}},
                           "lora": {"class_path": "LoRA"}},
            "seeds": [0, 1],
            "trainer": {"max_epochs": 2},
        } | changes
        path = tmp_path / "small.yaml"
        kept = {key: value for key, value in study.items() if value is not None}
        path.write_text(yaml.safe_dump(kept, sort_keys=False))
        return path

    return make
