"""No floor admits a published hole, and the doctor names what is installed below a floor."""

import shutil
import sqlite3
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

UNRENDERED = True
Here = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[2]
# The last release in the range that the advisory itself gives.
HOLES = [
    ("datasets", "5.1.0", "CVE-2026-57845"),
    ("lightning", "2.6.5", "CVE-2026-58659"),
    ("mlflow", "3.14.0", "CVE-2026-71211"),
    ("mlflow", "3.16.0", "CVE-2026-115886"),
    ("nltk", "3.9.3", "CVE-2026-33231"),
    ("nltk", "3.10.3", "CVE-2026-129229"),
    ("onnx", "1.20.1", "CVE-2026-34446"),
    ("pillow", "12.2.0", "CVE-2026-59200"),
    ("pillow", "12.3.0", "CVE-2026-112403"),
    ("pyarrow", "23.0.0", "CVE-2026-25087"),
    ("ray", "2.54.0", "CVE-2026-41486"),
    ("ray", "2.55.1", "CVE-2026-57516"),
    ("sentence-transformers", "5.5.1", "CVE-2026-68770"),
    ("torch", "2.10.0", "CVE-2026-4538"),
    ("transformers", "5.2.0", "CVE-2026-4372"),
    ("transformers", "5.4.0", "CVE-2026-5241"),
]


@pytest.fixture(scope="module")
def admitted() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    return {Requirement(line).name: Requirement(line) for line in lines}


@pytest.mark.parametrize(("name", "version", "hole"), HOLES)
def test_floors__no_release_with_a_published_hole(name, version, hole, admitted):
    assert not admitted[name].specifier.contains(version), hole


@pytest.mark.parametrize(("name", "version"), [("torch", "2.11.0"), ("torchvision", "0.26.0")])
def test_floors__what_gpu_machines_have_stays_admitted(name, version, admitted):
    assert admitted[name].specifier.contains(version)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make a distribution that comes before the real one of its name."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def make(name: str, version: str, *lines: str) -> None:
        folder = site / f"{name}-{version}.dist-info"
        folder.mkdir()
        head = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
        (folder / "METADATA").write_text("\n".join([*head, *lines]) + "\n")

    return make


def test_doctor__names_what_is_below_a_floor(here: Here, install) -> None:
    install("ftlab", "0.1.0", "Requires-Dist: lowbase>=2.3", "Requires-Dist: highbase<5,>=2.3",
            "Requires-Dist: elsewhere>=9; sys_platform == 'none'", "Requires-Dist: packaging")
    install("lowbase", "2.2.9")
    install("highbase", "2.10.0+cu130")
    code, output, _ = here("doctor")
    assert code == 1
    assert [line for line in output.splitlines() if "BAD" in line] == [
        "BAD  lowbase 2.2.9, but ftlab needs >=2.3; pip install 'lowbase>=2.3'"]
    assert "ok   highbase 2.10.0+cu130\n" in output
    assert "elsewhere" not in output


def test_doctor__an_extra_counts_where_all_of_it_is_installed(here: Here, install) -> None:
    def needs(extra: str, *lines: str) -> list[str]:
        return [f"Provides-Extra: {extra}",
                *(f"Requires-Dist: {line}; extra == '{extra}'" for line in lines)]

    install("ftlab", "0.1.0", *needs("whole", "lowone>=3", "lowtwo>=1"),
            *needs("partly", "lowthree>=3", "nowhere>=1"), *needs("all", "ftlab[partly,whole]"))
    for name in ("lowone", "lowtwo", "lowthree"):
        install(name, "1.5")
    code, output, _ = here("doctor")
    assert code == 1
    assert "BAD  lowone 1.5, but ftlab needs >=3; pip install 'lowone>=3'\n" in output
    assert "ok   lowtwo 1.5\n" in output
    assert output.count("lowone 1.5") == 1
    assert "lowthree" not in output
    assert "ok   extra partly: without nowhere; pip install 'ftlab[partly]'\n" in output
    assert "ok   extras installed: whole" in output


def test_doctor__a_store_of_another_mlflow(here: Here, tmp_path: Path, empty_store: Path) -> None:
    old = tmp_path / "old.db"
    shutil.copy(empty_store, old)
    with sqlite3.connect(old) as database:
        database.execute("UPDATE alembic_version SET version_num = 'cc1f77228345'")
    code, output, _ = here("doctor", "--tracking-uri", f"sqlite:///{old}")
    assert code == 1
    [line] = [line for line in output.splitlines() if line.startswith("BAD")]
    assert f"tracking store sqlite:///{old}: its tables are those of an older MLflow" in line
    assert line.endswith("stop all that writes to it and back it up, then: "
                         f"mlflow db upgrade sqlite:///{old}")


def test_doctor__makes_no_store(here: Here, tmp_path: Path) -> None:
    code, output, _ = here("doctor", "--tracking-uri", f"sqlite:///{tmp_path}/none.db")
    assert code == 0, output
    assert f"ok   tracking store: sqlite:///{tmp_path}/none.db" in output
    assert not (tmp_path / "none.db").exists()
