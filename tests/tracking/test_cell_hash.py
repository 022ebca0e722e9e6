"""The hash of a cell's config: what it follows, and that later arguments leave it as it is."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from ftlab.tracking.cell_hash import cell_hash, earlier_hash
from ftlab.tracking.mlflow_values import flatten

CONFIG: dict[str, Any] = {
    "backbone": {"class_path": "ftlab.B", "init_args": {"source": "here", "revision": None}},
    "data": {"class_path": "ftlab.D", "init_args": {"train": ["a", "b"], "classes": {}, "columns": []}},
    "technique": {"class_path": "ftlab.T", "init_args": {"lr": 0.1, "optim": {"warmup": 0.0}}},
    "trainer": {"max_epochs": 3, "patience": None},
    "select_by": "val/loss",
}


def changed(path: str, value: Any) -> dict[str, Any]:
    config = json.loads(json.dumps(CONFIG))
    *parents, last = path.split(".")
    node = config
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = value
    return config


@pytest.mark.parametrize("value", [None, [], {}, {"inner": None, "other": []}, ()])
@pytest.mark.parametrize("path", ["backbone.init_args.later", "technique.init_args.optim.later",
                                  "trainer.later", "data.init_args.later.deep"])
def test_hash__is_the_same_with_an_empty_argument_more(path: str, value: Any) -> None:
    assert cell_hash(changed(path, value)) == cell_hash(CONFIG)


@pytest.mark.parametrize(("path", "value"), [
    ("backbone.init_args.revision", "v2"), ("trainer.patience", 0), ("technique.init_args.lr", 0.2),
    ("data.init_args.train", ["b", "a"]),
    ("data.init_args.columns", [None]), ("select_by", ""), ("backbone.init_args.source", ""),
])
def test_hash__follows_every_other_value(path: str, value: Any) -> None:
    assert cell_hash(changed(path, value)) != cell_hash(CONFIG)


def before(config: dict[str, Any]) -> str:
    """The hash as version 0.1.0 made it."""
    parts = [config[name] for name in ("backbone", "data", "technique", "trainer", "select_by")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def test_earlier_hash__is_that_of_the_version_that_stored_it() -> None:
    stored = flatten(CONFIG)
    later = changed("technique.init_args.optim.later", None)
    later = {**later, "trainer": {**later["trainer"], "steps": None, "more": {"deep": None}}}
    assert earlier_hash(later, stored) == before(CONFIG)
    assert earlier_hash(CONFIG, stored) == before(CONFIG) != cell_hash(CONFIG)


def test_earlier_hash__is_another_where_a_later_argument_says_something() -> None:
    later = changed("technique.init_args.optim.later", 1)
    assert earlier_hash(later, flatten(CONFIG)) != before(CONFIG)
