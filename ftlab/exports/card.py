"""A model card made from a run: what it is, what it scores and cost, how to load it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ftlab.backbones.export_code import Origin
from ftlab.backbones.hub import find_folder
from ftlab.backbones.source import is_hub_id
from ftlab.errors import InputError
from ftlab.exports.loading_code import LoadingCode
from ftlab.exports.restore_run import Restored
from ftlab.exports.transformers_folder import answers_pipelines
from ftlab.reports.formats import escape_markdown
from ftlab.studies import provenance
from ftlab.studies.discover import family, members
from ftlab.tracking.mlflow_values import flatten

_CONFIG = ("backbone", "data", "technique", "trainer", "select_by", "seed")
_COSTS = {
    "cost/trainable_parameters": ("trainable parameters", ",.0f"),
    "cost/total_parameters": ("parameters in all", ",.0f"),
    "cost/train_seconds": ("training, s", ".1f"),
    "cost/peak_memory_bytes": ("peak memory in training, bytes", ",.0f"),
    "cost/inference_memory_bytes": ("peak memory of a test batch, bytes", ",.0f"),
    "cost/latency_seconds": ("latency of one example, s", ".4f"),
    "cost/latency_merged_seconds": ("the same merged, s", ".4f"),
    "cost/checkpoint_bytes": ("what training changed, bytes", ",.0f"),
    "cost/bank_bytes": ("kept of training examples, bytes", ",.0f"),
}


def card(restored: Restored, loading: LoadingCode, form: str, cell: Mapping[str, float],
         notes: list[str], compared: str = "") -> str:
    """The text of README.md.

    Args:
        restored: the run.
        loading: how the folder is loaded.
        form: what the folder is, for people.
        cell: the metrics of the run's cell, over its seeds.
        notes: for users of the folder.
        compared: how its technique compares with the others of its study, in Markdown.
    """
    head = yaml.safe_dump(_header(restored, loading), sort_keys=False, allow_unicode=True)
    spec, metrics = restored.spec, restored.record.metrics
    study = restored.record.tags["ftlab.study"]
    scores = {name: value for name, value in metrics.items() if name.startswith("test/")}
    parts = [
        f"---\n{head}---", f"# {escape_markdown(restored.title)}",
        f"{escape_markdown(form)} Made by ftlab from one run of the study {escape_markdown(study)}.",
        "## Load it", f"Needs {', '.join(sorted(loading.packages))}; not ftlab.",
        _fenced(loading.code, "python"), *[f"- {escape_markdown(note)}" for note in notes],
        "## What was trained", _trained(restored),
        "## Scores", _seeds(restored, cell), _table(["test metric", "value"], [
            [name.removeprefix("test/"), f"{value:.4g}"] for name, value in sorted(scores.items())]),
        "## Costs", _table(["", "measured"], [
            [title, format(metrics[name], how)] for name, (title, how) in _COSTS.items()
            if name in metrics]),
        "## How it compares" if compared else "", compared,
        "## Where it comes from", _table(["", ""], _origin(restored)),
        "The run's configuration:", _fenced("\n".join(
            f"{name}: {_without_place(value)}" for name, value
            in flatten({key: spec[key] for key in _CONFIG}).items()), "text"),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(restored: Restored, loading: LoadingCode) -> dict[str, Any]:
    """The YAML that the Hub reads. A licence is the base model's, where its own card states one."""
    tags = restored.record.tags
    origin, data = restored.run.backbone.origin, restored.run.data
    train = data.sources["train"] or ""
    adapter = "peft" in loading.packages
    library = next((name for name in ("peft", "transformers", "timm", "torchvision")
                    if name in loading.packages), "pytorch")
    header: dict[str, Any] = {"library_name": library}
    if origin is not None and (licence := _licence(origin)):
        header["license"] = licence
    if origin is not None and is_hub_id(origin.source):
        header |= {"base_model": origin.source,
                   "base_model_relation": "adapter" if adapter else "finetune"}
    if train.startswith("hf:"):
        header["datasets"] = [train.removeprefix("hf:").split(":")[0]]
    header["tags"] = ["ftlab", tags["ftlab.technique"]]
    scores = [{"type": name.removeprefix("test/"), "name": name, "value": value}
             for name, value in sorted(restored.record.metrics.items())
             if name.startswith("test/") and name.count("/") == 1]
    costs = [{"type": name, "name": _COSTS[name][0], "value": value}
             for name, value in sorted(restored.record.metrics.items()) if name in _COSTS]
    if data.pipeline:
        if answers_pipelines(restored.model):
            header["pipeline_tag"] = data.pipeline
        header["model-index"] = [{"name": restored.title, "results": [{
            "task": {"type": data.pipeline},
            "dataset": {"name": tags["ftlab.dataset"], "type": tags["ftlab.dataset"]},
            "metrics": [*scores, *costs]}]}]
    return header


def _without_place(value: str) -> str:
    """A setting; of a path in this machine the last name alone."""
    return f".../{Path(value).name}" if os.path.isabs(value) else value


def _licence(origin: Origin) -> str:
    """The licence that the card of a base model states; empty where none does."""
    try:
        text = (find_folder(origin.source, origin.revision, weights=False) / "README.md").read_text(encoding="utf-8")
        stated = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else None
    except (OSError, InputError, UnicodeDecodeError, yaml.YAMLError):
        return ""
    licence = stated.get("license") if isinstance(stated, dict) else None
    return licence if isinstance(licence, str) else ""


def _trained(restored: Restored) -> str:
    technique = restored.run.technique
    first = (type(technique).__doc__ or "").strip().splitlines()[0]
    shipped = members(family("techniques")).get(type(technique).__name__)
    link = re.search(r"https://arxiv\.org/abs/\S+?(?=[,.;)]?(\s|$))", technique.__doc__ or "")
    paper = f" {link[0]}" if shipped is not None and link else ""
    spec = restored.spec
    return (f"{escape_markdown(type(technique).__name__)}: {escape_markdown(first)}{paper}\n\n"
            f"Seed {restored.record.seed}; the epoch (number {spec.get('epoch', 0):g}) with the "
            f"best {escape_markdown(spec['select_by'])} was kept; precision "
            f"{restored.run.settings.precision}.")


def _seeds(restored: Restored, cell: Mapping[str, float]) -> str:
    """State beside a seed's score how little one seed shows."""
    report = "test/" + restored.spec["select_by"].removeprefix("val/")
    count = int(cell.get(f"{report}.n", 1))
    begin = "Tested once, on the test split, with the epoch selected on validation. "
    if count < 2:
        return begin + ("This is one run with one seed: another seed would score otherwise, and "
                        "nothing here says by how much.")
    return begin + (
        f"This is one of {count} seeds, whose {escape_markdown(report)} is "
        f"{cell[f'{report}.mean']:.4g} ± {cell[f'{report}.std']:.2g} (mean and standard "
        "deviation). That mean is what the technique gives; the score of a seed chosen for being "
        "the best is too high.")


def _origin(restored: Restored) -> list[list[str]]:
    tags, spec = restored.record.tags, restored.spec
    environment = json.loads(tags.get(provenance.TAG, "{}"))
    versions = environment.get("versions", {})
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    prints = spec["fingerprints"]
    return [
        ["MLflow run", restored.record.run_id],
        ["sha256 of the backbone's weights", str(prints.get("ftlab.backbone_sha256"))],
        ["sha256 of the data set's rows", str(prints.get("ftlab.dataset_sha256"))],
        ["device", str(environment.get("device", ""))],
        ["versions", shown], ["ftlab's commit", str(environment.get("commit", ""))],
    ]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *[[escape_markdown(cell) for cell in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fenced(text: str, language: str) -> str:
    """A block of code that nothing in it can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
