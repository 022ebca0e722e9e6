"""`ftlab mcp`, driven by the SDK's own client over stdio as an agent does."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from simulated_studies import Scenario

from ftlab.commands.json_lines import plain
from ftlab.errors import FtlabError
from ftlab.reports import question_ledger
from ftlab.reports.comparison import compare
from ftlab.reports.csv_files import PAIR, pair_lines
from ftlab.statistics.successive_questions import level
from ftlab.tracking.cell_metric import CellMetric
from ftlab.tracking.records import CellKey

UNRENDERED = True
Ask = Callable[..., Any]


@contextlib.asynccontextmanager
async def agent(folder: Path, *options: str) -> Any:
    """A client of a server that works in the folder: `await ask(tool, **arguments)`."""
    mcp = pytest.importorskip("mcp", reason="mcp is not installed")
    stdio = pytest.importorskip("mcp.client.stdio")
    server = stdio.StdioServerParameters(
        command=sys.executable, args=["-m", "ftlab.cli", "mcp", "--folder", str(folder), *options],
        env={**os.environ}, cwd=folder.parent)
    async with mcp.Client(server) as client:
        async def ask(tool: str, **arguments: Any) -> Any:
            answer = await client.call_tool(tool, arguments)
            assert not answer.is_error, answer.content
            return answer.structured_content

        ask.client = client  # type: ignore[attr-defined]
        yield ask


def test_agent__runs_a_study_and_reads_its_verdict(tmp_path: Path, tiny_bert: Path, reviews: Path) -> None:
    study = {"name": "tiny", "backbones": {"bert": {"class_path": "HuggingFace", "init_args": {
                 "source": str(tiny_bert), "pooling": "mean"}}},
             "datasets": {"reviews": {"class_path": "TextClassification", "init_args": {
                 "train": str(reviews), "max_length": 32, "batch_size": 8}}},
             "techniques": {"probe": "LinearProbe", "untuned": {"class_path": "NormTuning", "init_args": {"lr": 0.01}}},
             "seeds": [0, 1, 2], "trainer": {"max_epochs": 1}}
    folder = tmp_path / "work"
    folder.mkdir()
    (tmp_path / "outside.yaml").write_text("name: outside\n")

    async def drive() -> None:
        async with agent(folder) as ask:
            tools = (await ask.client.list_tools()).tools
            assert {tool.name for tool in tools} == {
                "list", "check", "run", "status", "stop", "verdicts", "table", "costs"}
            assert all(tool.description and len(tool.description) < 400 for tool in tools)
            (lora,) = (await ask("list", name="LoRA"))["classes"]
            assert lora["room"] == "techniques"
            wrong = await ask("check", study=yaml.safe_dump({**study, "sedes": [0]}, sort_keys=False))
            assert wrong["error"]["what"] == "unknown key" and "'seeds'" in wrong["error"]["how"]
            assert wrong["error"]["place"].startswith("studies/tiny.yaml:")
            for path in ("../outside.yaml", str(tmp_path / "outside.yaml")):
                assert "outside the working folder" in (await ask("run", study=path))["error"]["what"]

            begun = await ask("run", study=yaml.safe_dump(study, sort_keys=False))
            assert begun["state"] in ("running", "finished") and begun["file"] == "studies/tiny.yaml"
            early = await ask("verdicts", study="studies/tiny.yaml")
            assert "test split is shut" in early["error"]["what"]
            while (state := await ask("status", study="studies/tiny.yaml"))["state"] == "running":
                assert "test/" not in json.dumps(state)
                await asyncio.sleep(0.2)
            assert state["state"] == "finished" and state["finished"] == 6 and state["error"] is None
            assert "test/" not in json.dumps(state), "validation alone, unless a question is asked"
            assert all("val/accuracy" in run["measured"] for run in state["runs"].values())
            assert not (folder / "results" / question_ledger.FILE).exists()

            first = await ask("verdicts", study="studies/tiny.yaml")
            assert (first["question"], first["level"]) == (1, level(1)) and "at most 5%" in first["said"]
            (verdict,) = first["verdicts"]
            assert verdict["verdict"] in ("better", "worse", "undecided") and verdict["seeds"] == 3
            table = await ask("table", study="studies/tiny.yaml")
            assert table["question"] == 1, "the same numbers are the same question"
            assert len(table["cells"]) == 2 and table["cells"][0]["mean"] > 0
            costs = await ask("costs", study="studies/tiny.yaml")
            assert costs["cells"][0]["trainable_parameters"] > 0 and "mean" not in costs["cells"][0]
        assert {path.name for path in tmp_path.iterdir()} == {"work", "outside.yaml"}

    asyncio.run(drive())


def test_server__is_not_started_with_results_elsewhere(tmp_path: Path, here: Ask) -> None:
    code, _, errors = here("mcp", "--results", "/somewhere")
    assert code == 2 and "outside the working folder" in errors


def test_ledger__counts_each_question_once_and_answers_nothing_when_damaged(tmp_path: Path) -> None:
    table = {"study": "a", "metric": "test/accuracy", "cells": [{"mean": 0.5}], "pairs": []}
    numbers = [question_ledger.ask(tmp_path, {**table, "cells": [{"mean": mean}]}).number
               for mean in (0.5, 0.6, 0.5, 0.7)]
    assert numbers == [1, 2, 1, 3]
    with (tmp_path / question_ledger.FILE).open("a") as file:
        file.write("{\n")
    with pytest.raises(FtlabError, match="cannot be counted"):
        question_ledger.ask(tmp_path, table)


def test_levels__sum_up_to_the_familys() -> None:
    spent = sum(level(number) for number in range(1, 100_001))
    assert 0.0499 < spent < 0.05
    with pytest.raises(ValueError, match="from 1"):
        level(0)


BASE, LIFT, SEEDS, EXAMPLES, SPREAD = 0.85, 0.05, 10, 1_821, 0.007
"""A planted idea is five points better; seeds of a technique deviate by 0.7."""


def asked(generator: np.random.Generator, lift: float) -> dict[str, Any]:
    """What `ftlab table --json` says of a study of an idea against the baseline, without training."""
    hits = Scenario((BASE, BASE + lift), (SPREAD, SPREAD), EXAMPLES).draw(generator, SEEDS)
    cells = [CellMetric(CellKey("s", "b", "d", name, name), dict(enumerate(rows.mean(axis=1).tolist())),
                        {seed: pd.Series(row) for seed, row in enumerate(rows)})
             for name, rows in zip(("base", "idea"), hits, strict=True)]
    found = compare(("b", "d"), cells, True, "base", "test/accuracy")
    pairs = [{key: None if line.get(key, "") == "" else line[key] for key in PAIR} for line in pair_lines([found])]
    group = {"backbone": "b", "dataset": "d", "baseline": "base", "higher_is_better": True}
    table: dict[str, Any] = plain({"pairs": pairs, "best": [group]})
    return table


def accepted(repetition: int, at: Callable[[int], float]) -> tuple[int, int]:
    """False and planted ideas that verdicts accept, of 100 and 10 in a random order."""
    generator = np.random.default_rng(repetition)
    lifts = generator.permutation([0.0] * 100 + [LIFT] * 10)
    good = [lift > 0 for number, lift in enumerate(lifts, 1)
            for verdict in question_ledger.verdicts(asked(generator, float(lift)), at(number))
            if verdict["verdict"] == "worse"]  # base, which is a, than the idea
    return good.count(False), good.count(True)


@pytest.fixture
def unresampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the resampling of examples for a p-value on these models alone, which no verdict reads."""
    monkeypatch.setattr("ftlab.reports.comparison.over_examples",
                        lambda *_: SimpleNamespace(within=lambda _: None))


def held(repetitions: int) -> None:
    found = np.array([accepted(repetition, level) for repetition in range(repetitions)])
    false, planted = found.sum(axis=0)
    print(f"{repetitions} clients: {false} false of {false + planted} accepted, {(found[:, 0] > 0).mean():.3f} with any, "
          f"{planted / repetitions:.2f} of 10 planted")
    assert false / (false + planted) <= 0.10
    assert planted / repetitions >= 8
    assert (found[:, 0] > 0).mean() <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / repetitions), "the chance of any false claim"


def test_client_with_100_empty_ideas_and_10_planted__is_told_the_truth(unresampled: None) -> None:
    held(5)


@pytest.mark.slow
def test_clients_in_large_number__keep_the_rates(unresampled: None) -> None:
    held(200)


def test_client__without_the_correction_is_fooled(unresampled: None) -> None:
    """What the correction is for: each question at 5% lets several empty ideas through."""
    found = np.array([accepted(repetition, lambda _: 0.05) for repetition in range(2)])
    assert found[:, 0].sum() / found.sum() > 0.10
