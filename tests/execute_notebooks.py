"""`python tests/execute_notebooks.py [NAME...]`: run the notebooks in a kernel and keep the outputs.

Needs `pip install nbclient ipykernel`. What differs between machines (times of execution, the
kernel's version) is left out, so that a diff shows what changed.
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=600, record_timing=False,
                            resources={"metadata": {"path": str(FOLDER)}})
    client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [tidy(output) for output in cell.outputs
                            if output.get("name") != "stderr"]
    nbformat.write(notebook, path)


def tidy(output):
    """One form of what has several: what a page shows, or the text of a line that was printed."""
    data = output.get("data", {})
    if output["output_type"] == "display_data" and "image/png" not in data:
        data.pop("text/html", None)
    elif data.keys() & {"image/png", "text/html", "text/markdown"}:
        data.pop("text/plain", None)
    return output


if __name__ == "__main__":
    wanted = sys.argv[1:] or sorted(path.name for path in FOLDER.glob("*.ipynb"))
    for name in wanted:
        execute(FOLDER / name)
        print(name)
