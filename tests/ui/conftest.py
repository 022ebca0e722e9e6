"""MLflow's UI on a small tracked study, and a browser that opens pages of it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import Pages, Served, free_port
from tracked_study import STUDY, make_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_store(tmp_path_factory.mktemp("ui"))


@pytest.fixture(scope="session")
def ui(store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`ftlab ui`, ended by Ctrl-C."""
    port, addresses = free_port(), {}
    process = subprocess.Popen(
        [sys.executable, "-m", "ftlab.cli", "ui", STUDY, "--tracking-uri", store, "--port",
         str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=tmp_path_factory.mktemp("cwd"), env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Ctrl-C"):
                break
            what, _, address = line.strip().partition(": ")
            addresses[what] = address
        assert process.poll() is None, process.communicate()
        yield Served(process, port, addresses)
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors


@pytest.fixture
def pages(chromium: Any, ui: Served, tmp_path: Path) -> Pages:
    return Pages(chromium, ui.root, tmp_path)
