"""The house of the design, section 2: who may import whom, and how big a file may be.

Each check takes a source tree and returns its violations, so that the same checks run on ftlab
and on planted violations.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOMS = (
    "statistics", "tracking", "backbones", "tasks", "data", "techniques", "training", "studies", "sweeps",
    "reports", "exports", "reproduction", "rate_range",
    "transfer_scores",
    "domain_shift",
)
LEAVES = {"activity", "errors", "files", "redaction", "addresses", "visible", "terminal", "interchange", "wording",
          "renamed"}
APART = {"backbones": {"tracking"}}  # a room above which it does not import
PURE = {"statistics": {"numpy", "scipy"}}  # the libraries that a room imports, and no other
OUTSIDE = {"__init__", "cli", "commands", "completion", "options", "__main__"}
ONLY_IN = {"mlflow": "tracking", "optuna": "sweeps", "jsonargparse": "studies/components.py"}
FORBIDDEN = ("utils", "helpers", "common", "manager")
LONGEST = 300
DOORS = {Path("terminal.py"), Path("commands/show.py"),
         Path("studies/fork_server.py")}  # whose output is a pipe of JSON
PACKAGE = Path(__file__).resolve().parent.parent / "ftlab"


def sources(package: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Path inside the package, and syntax tree, of every module."""
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package), ast.parse(path.read_text(encoding="utf-8"), str(path))


def dotted(path: Path) -> str:
    """`tasks/losses/base.py` -> `tasks.losses.base`."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path, tree: ast.Module) -> Iterator[str]:
    """Full names a module imports, wherever in it: `from a.b import c` gives `a.b.c`."""
    package = ["ftlab", *path.parent.parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{source}.{name.name}" for name in node.names)
        elif (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)
              and "import_module" in ast.unparse(node.func)):
            yield str(node.args[0].value)


def own(path: Path, tree: ast.Module) -> Iterator[str]:
    """What a module imports of ftlab, without the leading `ftlab.`."""
    for name in imported(path, tree):
        if name.split(".")[0] == "ftlab":
            yield name.removeprefix("ftlab").removeprefix(".")


def rooms_in_order(package: Path) -> list[str]:
    found = []
    for path, tree in sources(package):
        room = path.parts[0].removesuffix(".py")
        if room in OUTSIDE:
            continue
        if room not in LEAVES and room not in ROOMS:
            found.append(f"{path}: {room} is not a room")
            continue
        above = set() if room in LEAVES else set(ROOMS[: ROOMS.index(room)])
        above -= APART.get(room, set())
        for name in own(path, tree):
            if name.split(".")[0] not in above | {room} | LEAVES:
                found.append(f"{path}: imports ftlab.{name}")
    return found


def one_importer(package: Path) -> list[str]:
    return [
        f"{path}: imports {name}, which only {ONLY_IN[library]} may"
        for path, tree in sources(package)
        for name in imported(path, tree)
        if (library := name.split(".")[0]) in ONLY_IN
        and not path.is_relative_to(ONLY_IN[library])
    ]


def pure_rooms(package: Path) -> list[str]:
    """Libraries in rooms of pure functions that have no business there."""
    return [
        f"{path}: imports {name}, where {path.parts[0]}/ takes {', '.join(sorted(allowed))} alone"
        for path, tree in sources(package)
        if (allowed := PURE.get(path.parts[0])) is not None
        for name in imported(path, tree)
        if name.split(".")[0] not in allowed | sys.stdlib_module_names | {"ftlab"}
    ]


def cycles(package: Path) -> list[str]:
    """Modules that import one another in a circle, imports for type checkers included.

    One line per strongly connected component (Tarjan 1972) of more than one module.
    """
    trees = {dotted(path): (path, tree) for path, tree in sources(package)}
    edges: dict[str, set[str]] = {}
    for module, (path, tree) in trees.items():
        names = {name if name in trees else name.rpartition(".")[0] for name in own(path, tree)}
        edges[module] = {name for name in names if name in trees and name != module}
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    circles: list[str] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for other in sorted(edges[module]):
            if other not in number:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], number[other])
        if lowest[module] == number[module]:
            members = [stack.pop()]
            while members[-1] != module:
                members.append(stack.pop())
            if len(members) > 1:
                circles.append(f"{trees[module][0]}: a circle of {', '.join(sorted(members))}")

    for module in sorted(edges):
        if module not in number:
            visit(module)
    return circles


def families(package: Path) -> dict[str, set[str]]:
    """Base class -> modules that define a public class below it, `base.py` not among them.

    A class that cannot be made by itself, whose constructor is abstract, is a base class too.
    """
    parents: dict[str, set[str]] = {}
    home: dict[str, list[Path]] = {}
    for path, tree in sources(package):
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases}
                parents.setdefault(node.name, set()).update(bases)
                if not abstract(node):
                    home.setdefault(node.name, []).append(path)

    def ancestors(name: str) -> set[str]:
        above, new = set(), parents.get(name, set())
        while new:
            above |= new
            new = set().union(*(parents.get(parent, set()) for parent in new)) - above
        return above - {name}

    heads = {name for name, paths in home.items() if any(p.name == "base.py" for p in paths)}
    members: dict[str, set[str]] = {}
    for name, paths in home.items():
        if not name.startswith("_"):
            for head in ancestors(name) & heads:
                members.setdefault(head, set()).update(
                    dotted(path) for path in paths if path.name != "base.py"
                )
    return members


def abstract(cls: ast.ClassDef) -> bool:
    """Tell a class with an abstract constructor."""
    return any(isinstance(node, ast.FunctionDef) and node.name == "__init__"
               and "abstractmethod" in map(ast.unparse, node.decorator_list) for node in cls.body)


def members_apart(package: Path) -> list[str]:
    found = []
    modules = families(package)
    for path, tree in sources(package):
        for head, members in modules.items():
            if dotted(path) in members:
                others = members - {dotted(path)}
                found += [
                    f"{path}: a {head} imports another, ftlab.{name}"
                    for name in own(path, tree)
                    if any(f"{name}.".startswith(f"{other}.") for other in others)
                ]
    return found


def file_sizes(package: Path) -> list[str]:
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in package.rglob("*.py")}
    return [
        f"{path.relative_to(package)}: {lines} lines, at most {LONGEST}"
        for path, lines in lengths.items()
        if lines > LONGEST
    ]


def forbidden_names(package: Path) -> list[str]:
    return [
        f"{path.relative_to(package)}: say what it is, not {word}"
        for path in package.rglob("*")
        for word in FORBIDDEN
        if path.name != "__pycache__" and word in path.stem.lower().split("_")
    ]


def one_door(package: Path) -> list[str]:
    """Prints and consoles elsewhere than where what a terminal would obey is made visible."""
    return [
        f"{path}:{node.lineno}: prints past ftlab.terminal and ftlab.commands.show.say"
        for path, tree in sources(package)
        if path not in DOORS
        for node in ast.walk(tree)
        if (isinstance(node, ast.Call) and node.args
        and ast.unparse(node.func) in ("print", "typer.echo", "typer.secho", "Text"))
        or (isinstance(node, ast.ImportFrom) and node.module == "rich.console"
        and any(name.name == "Console" for name in node.names))
    ]


CHECKS = (rooms_in_order, one_importer, pure_rooms, cycles, members_apart, file_sizes,
          forbidden_names, one_door)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_house__keeps_its_rules(check):
    assert PACKAGE.is_dir()
    assert check(PACKAGE) == []


def test_house__families_are_found():
    modules = families(PACKAGE)
    assert {"tasks.losses.focal", "tasks.losses.cross_entropy"} <= modules["Loss"]
    assert "tasks.classification" in modules["Task"]


BASE = "class Task: ...\nclass Root(Task): ...\n"
MEMBER = "from ftlab.tasks.base import Root\nclass One(Root): ...\n"
OTHER = "from ftlab.tasks.base import Task\n"


@pytest.mark.parametrize(
    ("check", "files"),
    [
        (rooms_in_order, {"tasks/a.py": "import ftlab.data.base"}),
        (rooms_in_order, {"tasks/a.py": "from ftlab import training"}),
        (rooms_in_order, {"tasks/a.py": "def f():\n    from ftlab.sweeps.x import y"}),
        (rooms_in_order, {
            "data/a.py": "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from ftlab.techniques.base import Technique"
        }),
        (rooms_in_order, {"tasks/a.py": "from ..data import base"}),
        (rooms_in_order, {"tasks/losses/a.py": "from ...data.base import Examples"}),
        (rooms_in_order, {"tasks/a.py": "import importlib\nimportlib.import_module('ftlab.cli')"}),
        (rooms_in_order, {"backbones/a.py": "from ftlab.tracking.tags import KIND"}),
        (rooms_in_order, {"reports/a.py": "import ftlab"}),
        (rooms_in_order, {"errors.py": "from ftlab.tasks.base import Task"}),
        (rooms_in_order, {"files.py": "from ftlab.tracking.mlflow_values import redact"}),
        (rooms_in_order, {"attic/a.py": ""}),
        (one_importer, {"training/a.py": "import mlflow.tracking"}),
        (one_importer, {"studies/plan.py": "from jsonargparse import ArgumentParser"}),
        (one_importer, {"cli.py": "def f():\n    import optuna"}),
        (members_apart, {
            "tasks/base.py": BASE, "tasks/one.py": MEMBER,
            "tasks/two.py": OTHER + "from ftlab.tasks.one import One\nclass Two(Task): ...",
        }),
        (members_apart, {
            "tasks/base.py": BASE, "tasks/one.py": MEMBER,
            "tasks/two.py": OTHER + "from ftlab.tasks import one\nclass Two(Task): ...",
        }),
        (members_apart, {
            "tasks/base.py": BASE, "tasks/one.py": MEMBER,
            "tasks/two.py": "from . import base, one\nclass Two(base.Task): ...",
        }),
        (pure_rooms, {"statistics/a.py": "def f():\n    import pandas"}),
        (rooms_in_order, {"statistics/a.py": "from ftlab.tracking.tags import KIND"}),
        (cycles, {"tasks/b.py": "from ftlab.tasks import a", "tasks/a.py": "import ftlab.tasks.b"}),
        (cycles, {
            "training/c.py": "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from ftlab.training.a import A",
            "training/b.py": "def f():\n    from ftlab.training import c",
            "training/a.py": "from .b import f\nclass A: ...",
        }),
        (file_sizes, {"tasks/a.py": "\n" * (LONGEST + 1)}),
        (forbidden_names, {"tasks/utils.py": ""}),
        (forbidden_names, {"tasks/text_helpers.py": ""}),
        (forbidden_names, {"common/a.py": ""}),
        (one_door, {"reports/a.py": "def f(name):\n    print(name)"}),
        (one_door, {"cli.py": "def f(name):\n    typer.echo(name)"}),
        (one_door, {"studies/a.py": "def f():\n    from rich.console import Console"}),
    ],
)
def test_check__finds_what_is_planted(check, files, tmp_path):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = check(tmp_path)
    assert len(found) == 1
    assert str(Path([*files][-1]).parts[0]) in found[0]


def test_checks__allow_what_is_allowed(tmp_path):
    files = {
        "cli.py": "from ftlab.reports.table import table\nfrom ftlab.sweeps import x",
        "__init__.py": "from ftlab.studies.study import load_study",
        "errors.py": "class FtlabError(Exception): ...",
        "statistics/a.py": "import math\nimport numpy as np\nfrom ftlab.errors import InputError",
        "tracking/records.py": "from ftlab.statistics.a import x",
        "tracking/store.py": "import mlflow\nfrom ftlab.errors import InputError",
        "tasks/base.py": BASE,
        "tasks/one.py": MEMBER + "from ftlab.tasks.class_names import class_name",
        "tasks/class_names.py": "from ..errors import InputError",
        "tasks/around.py": OTHER + "class Around(Task):\n    @abstractmethod\n    def __init__(self): ...",
        "tasks/two.py": "from ftlab.tasks.around import Around\nclass Two(Around): ...",
        "studies/components.py": "import jsonargparse\nfrom ftlab.tasks.one import One",
        "reports/table.py": "from ftlab.tracking.store import x\nfrom ftlab.studies import study",
        "sweeps/search.py": "import optuna\n" + "\n" * (LONGEST - 1),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert [violation for check in CHECKS for violation in check(tmp_path)] == []
