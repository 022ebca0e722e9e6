"""Study files that are wrong in one place: what is changed in a small study, and what the error says."""

from typing import Any

BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "misspelt key": ({"sedes": [0]}, "sedes: unknown key", "did you mean 'seeds'"),
    "misspelt trainer": (
        {"trainer": {"max_epoch": 1}}, "trainer.max_epoch: unknown key", "'max_epochs'",
    ),
    "trainer range": ({"trainer": {"max_epochs": 0}}, "max_epochs must be at least 1, got 0", ""),
    "trainer type": ({"trainer": {"max_epochs": "many"}}, "expected a whole number, got many", ""),
    "trainer choice": (
        {"trainer": {"precision": "32"}}, "trainer.precision: expected one of 'auto', '32-true'", "",
    ),
    "class": ({"techniques": {"a": "Lorra"}}, "techniques.a: there is no Technique", "'LoRA'"),
    "argument": (
        {"techniques": {"a": {"class_path": "LoRA", "init_args": {"rnak": 4}}}},
        "techniques.a.init_args.rnak: LoRA has no argument", "did you mean 'rank'",
    ),
    "range": (
        {"techniques": {"a": {"class_path": "LoRA", "init_args": {"rank": 0}}}},
        "techniques.a: LoRA: rank must be at least 1, got 0", "",
    ),
    "type": (
        {"techniques": {"a": {"class_path": "LoRA", "init_args": {"rank": 1.5}}}},
        "techniques.a.init_args.rank: expected a whole number, got 1.5", "",
    ),
    "nested class": (
        {"techniques": {"a": {"class_path": "DiscriminativeLR", "init_args": {"technique": "X"}}}},
        "init_args.technique: there is no Technique called 'X'", "",
    ),
    "group": ({"techniques": {"a": {"class_path": "LoRA", "init_args": {"optim": 3}}}},
              "techniques.a.init_args.optim: expected a mapping, got 3", "{optimizer: ...}"),
    "null for a class": (
        {"datasets": {"d": {"class_path": "TextClassification",
                            "init_args": {"train": "x", "sampling": None}}}},
        "datasets.d.init_args.sampling: expected a Sampling, got null", "Natural",
    ),
    "missing nested": ({"techniques": {"a": "DiscriminativeLR"}}, "needs 'technique'", "add"),
    "missing argument": ({"datasets": {"d": "TextClassification"}}, "missing: train", "add"),
    "foreign class": ({"techniques": {"a": "os.system"}}, "outside ftlab", "--allow os"),
    "one of many": ({"techniques": {"a": "LoRa2"}}, "there is no Technique called 'LoRa2'",
                    "(ftlab list techniques shows all "),
    "wrong family": ({"techniques": {"a": "HuggingFace"}}, "there is no Technique", ""),
    "duplicate cells": ({"techniques": {"a": "LoRA", "b": "LoRA"}}, "are the same", "remove"),
    "no techniques": ({"techniques": {}}, "techniques: at least one", ""),
    "no name": ({"name": None}, "name: None is not a name", "letters"),
    "path as name": ({"name": "../x"}, "is not a name", "letters"),
    "cell name": ({"techniques": {"a b": "LoRA"}}, "'a b' is not a name", "letters"),
    "seed twice": ({"seeds": [1, 1]}, "a seed stands twice", "once"),
    "seed type": ({"seeds": ["a"]}, "expected a list of whole numbers", ""),
    "mirror": ({"mirror": ["tensorbord"]}, "mirror: there is no 'tensorbord'", "'tensorboard'"),
    "test selection": ({"select_by": "test/accuracy"}, "not a validation metric", "val/"),
}
