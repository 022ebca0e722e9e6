"""Where the numbers come from, and how to get them again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ftlab.redaction import REDACTED, is_secret
from ftlab.reports.page.markup import Markup, folded, join, tag
from ftlab.studies.draws import draws_split
from ftlab.studies.seeds import Seeds
from ftlab.studies.study import Study
from ftlab.tracking.mlflow_values import flatten

SELECTION = ("After each epoch the model is validated; the epoch with the best {select_by} is "
             "restored, and tested once. ")
SPLITS = "Splits belong to the data set: all techniques and seeds see the same examples."
DRAWN = ("A seed draws which examples train and which validate: all techniques see the same with one "
         "seed. The test split is the same in all.")


def origin(study: Study, provenance: Mapping[str, Any]) -> Markup:
    """Versions, commit, device, fingerprints, seeds, selection rule, and the config folded."""
    entries: list[tuple[str, str]] = [
        ("seeds", ", ".join(map(str, study.seeds))),
        ("selection", SELECTION.format(select_by=study.select_by)
         + (DRAWN if draws_split(study.drawn) else SPLITS)),
    ]
    for kind in ("datasets", "backbones"):
        entries += [(f"{kind[:-1]} {name}", f"sha256 {digest}" if digest else "no fingerprint")
                    for name, digest in sorted(provenance.get(kind, {}).items())]
    several = len(provenance["environments"]) > 1
    for number, environment in enumerate(provenance["environments"], 1):
        which = f" {number}" if several else ""
        entries += [
            (f"device{which}", str(environment.get("device", "unknown"))),
            (f"commit{which}", _commit(str(environment.get("commit", "")))),
            (f"versions{which}", ", ".join(
                f"{name} {version}" for name, version in
                [("python", environment.get("python", "?")), *sorted(environment.get("versions", {}).items())])),
        ]
    if several:
        entries.append(("note", "The runs come from several environments."))
    listed = tag("dl", *(join([tag("dt", term), tag("dd", text)]) for term, text in entries))
    return join([listed, folded("The study's checked config", tag("pre", config(study)))])


def _commit(commit: str) -> str:
    if not commit:
        return "not run from a checkout"
    return f"{commit[:-1]}, with changed files" if commit.endswith("+") else commit


def config(study: Study) -> str:
    """Every component's arguments, dotted, defaults filled in, without secrets."""
    settings: dict[str, Any] = {"name": study.name, "question": study.question}
    for cell in study.cells:
        key, technique = cell.key, {**cell.technique, "trainer": cell.trainer}
        if cell.by_seed:
            technique["by_seed"] = {seed: one["init_args"] for seed, one in cell.by_seed.items()}
        settings[f"backbones.{key.backbone}"] = cell.backbone
        settings[f"datasets.{key.dataset}"] = cell.data
        name = f"techniques.{key.technique}"
        if settings.setdefault(name, technique) != technique:  # tuned on this pair
            settings[f"{name}.on.{key.dataset} from {key.backbone}"] = technique
    seeds = Seeds(study.seeds, study.until, study.drawn).written
    settings |= {"seeds": seeds, "select_by": study.select_by, "report": study.report}
    return "\n".join(f"{name}: {value}" for name, value in flatten(settings).items())


def again(study: Study, provenance: Mapping[str, Any], command: Sequence[str]) -> Markup:
    """Commands that run it again.

    Args:
        study: it.
        provenance: of its runs.
        command: what ran it, in words of a command line.
    """
    lines = []
    for environment in provenance["environments"][:1]:
        commit = str(environment.get("commit", "")).rstrip("+")
        if commit:
            lines.append(f"git checkout {shlex.quote(commit)}")
        if str(environment.get("commit", "")).endswith("+"):
            lines.append("# files of ftlab had been changed since; the changes are not recorded")
        pins = [f"{name}=={version}" for name, version in sorted(environment.get("versions", {}).items())
                if name != "ftlab"]
        lines.append(shlex.join(["pip", "install", "-e", ".[demo]", *pins]))
    seeds = ",".join(map(str, study.seeds))
    lines.append(shlex.join([*map(_quiet, command), "--seeds", seeds]))
    return join([
        tag("pre", "\n".join(lines)),
        tag("p", "The same seeds give the same numbers on the same kind of device; another device "
                 "adds in another order. The table alone: ftlab table.", class_="about"),
    ])


def _quiet(word: str) -> str:
    """A word of the command without what `--set` says of a secret."""
    name, equals, _ = word.partition("=")
    return f"{name}={REDACTED}" if equals and is_secret(name) else word
