"""The notebooks run, and what they show in git is what running them gave."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

UNRENDERED = True
ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
NAMES = ("01_first_study", "02_compare_and_plot", "03_your_own_technique",
         "04_reproduce_a_paper_table")
FEW = ["trainer.max_epochs=1", "seeds=[0]", "datasets.bbc.init_args.max_length=16",
       "datasets.bbc.init_args.subset={limit: 40, splits: [train, validation, test]}"]
SMALLER = {  # after the cell that is tagged `parameters`
    "01_first_study": {"overrides": FEW},
    "02_compare_and_plot": {"overrides": FEW},
    "03_your_own_technique": {"overrides": FEW},
    "04_reproduce_a_paper_table": {"seeds": [0], "overrides": FEW},
}
LARGEST = 60_000  # bytes of a notebook, its figure included
PRIVATE = re.compile(r"/(home|root|tmp|work|mnt|opt|usr|var|Users|private)/|[A-Z]:\\\\|file://"
                     r"|site-packages|localhost|0x[0-9a-f]{6}", re.IGNORECASE)


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return found


def play(cells: list[dict[str, Any]], change: dict[str, Any]) -> dict[str, Any]:
    """Run code cells one after another, as a kernel does, with a change of the parameters."""
    space: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        text = "".join(cell["source"])
        head, _, rest = text.partition("\n")
        if cell["cell_type"] != "code":
            continue
        if head.startswith("%%writefile "):
            Path(head.removeprefix("%%writefile ")).write_text(rest, encoding="utf-8")
            continue
        exec(compile(text, cell["id"], "exec"), space)  # noqa: S102  our own files
        if "parameters" in cell["metadata"].get("tags", ()):
            assert change.keys() <= space.keys()
            space |= change
    return space


def test_notebooks__are_these() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir() if path.suffix) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_notebook__runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.syspath_prepend("")  # the current folder, as in a kernel
    monkeypatch.chdir(FOLDER)
    before = set(FOLDER.iterdir())
    space = play(read(name)["cells"], SMALLER.get(name, {}))
    assert set(FOLDER.iterdir()) == before
    if name == "01_first_study":
        assert len(space["report"].rows) == 2
    elif name == "02_compare_and_plot":
        assert len(space["cells"]) == len(space["drift"].movements) == 7
        assert [path.name for path in space["pictures"]] == ["scores.png", "error_overlap.png"]
    elif name == "03_your_own_technique":
        rows = {row.key.technique: row for row in space["report"].rows}
        assert rows["last_biases"].trainable == rows["near"].trainable > rows["probe"].trainable
    else:
        assert space["again"].verdict == "reproduced"
        assert all(said in space["report"]._repr_html_() for said in ("78.15", "verdict"))
    os.chdir(FOLDER)
    if "folder" in space:
        space["folder"].cleanup()


@pytest.mark.parametrize("name", NAMES)
def test_notebook__in_git_was_run_and_names_no_machine(name: str) -> None:
    notebook = read(name)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert sum(bool(cell["outputs"]) for cell in code) >= 2
    kinds = [kind for cell in code for output in cell["outputs"]
             for kind in (output["output_type"], output.get("name"))]
    assert "error" not in kinds and "stderr" not in kinds
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"}}
    assert (FOLDER / f"{name}.ipynb").stat().st_size < LARGEST
    without_pictures = json.dumps([
        {kind: text for kind, text in output.get("data", {"": output.get("text")}).items()
         if kind != "image/png"} for cell in code for output in cell["outputs"]])
    assert not PRIVATE.search(without_pictures), PRIVATE.search(without_pictures)


@pytest.mark.parametrize("name", NAMES)
def test_notebook__defines_nothing_reusable(name: str) -> None:
    for cell in read(name)["cells"]:
        text = "".join(cell["source"])
        assert len(text.splitlines()) <= 25
        if cell["cell_type"] == "code" and not text.startswith("%%writefile"):
            assert not re.search(r"^\s*(def|class) |lambda", text, re.MULTILINE)


@pytest.mark.parametrize("text", ["/home/me/x", "/tmp/a", "C:\\\\x", "<f at 0x7f00aa00>"])
def test_private__finds_what_is_planted(text: str) -> None:
    assert PRIVATE.search(json.dumps(text))
