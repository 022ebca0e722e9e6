"""No line of ftlab lets a file run: the source is walked for calls that could.

Each check takes a syntax tree and returns what is wrong, so that the same checks run on ftlab and
on planted mistakes.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "ftlab"
LOADERS = ("from_pretrained", "from_config")  # of transformers
EXECUTES = "exports/loading_code.py"  # the lines of a card, which ftlab itself has written
FORBIDDEN = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads",
    "shelve.open", "joblib.load", "dill.load", "dill.loads", "cloudpickle.load",
    "cloudpickle.loads", "np.load", "numpy.load", "pd.read_pickle", "pandas.read_pickle",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen", "eval"}
METHODS = {"load_from_checkpoint", "extractall", "unpack_archive", "load_model"}  # of whatever


def keywords(call: ast.Call) -> dict[str, str]:
    return {word.arg or "**": ast.unparse(word.value) for word in call.keywords}


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str, list[str]]]:
    """Each call, its dotted name, and the calls of the `with` statements around it."""
    def walk(node: ast.AST, around: list[str]) -> Iterator[tuple[ast.Call, str, list[str]]]:
        if isinstance(node, ast.With):
            for item in node.items:
                yield from walk(item.context_expr, around)
            around = [*around, *(ast.unparse(item.context_expr) for item in node.items)]
            for inner in node.body:
                yield from walk(inner, around)
            return
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            around = []  # it may be called elsewhere
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func), around
        for inner in ast.iter_child_nodes(node):
            yield from walk(inner, around)

    return walk(tree, [])


def trusting(tree: ast.AST) -> list[str]:
    """Loaders of transformers that could run a folder's code, fetch, or ask."""
    return [f"line {call.lineno}: {name} {what}" for call, name, around in calls(tree)
            if name.rpartition(".")[2] in LOADERS
            for what, wrong in (
                ("lacks trust_remote_code=False",
                 keywords(call).get("trust_remote_code") != "False"),
                ("is not called within closed()", "closed()" not in around)) if wrong]


def unpickling(tree: ast.AST) -> list[str]:
    """Calls that run what a file says, or read tensors with more than tensors."""
    wrong = []
    for call, name, _ in calls(tree):
        if name in FORBIDDEN or name.rpartition(".")[2] in METHODS:
            wrong.append(f"line {call.lineno}: {name}")
        if name == "torch.load" and keywords(call).get("weights_only") != "True":
            wrong.append(f"line {call.lineno}: torch.load lacks weights_only=True")
        if keywords(call).get("shell") == "True" or keywords(call).get("allow_pickle") == "True":
            wrong.append(f"line {call.lineno}: {name} with a shell, or with pickle")
    return wrong


def any_format(tree: ast.AST) -> list[str]:
    """Images opened in whatever format Pillow knows."""
    return [f"line {call.lineno}: Image.open lacks formats" for call, name, _ in calls(tree)
            if name.endswith("Image.open") and "formats" not in keywords(call)]


def printed(tree: ast.AST) -> list[str]:
    """The same in lines of code that an export prints."""
    wrong = []
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
              for part in ast.walk(node) if part is not node}
    for node in ast.walk(tree):
        if id(node) in inside or not isinstance(node, ast.JoinedStr | ast.Constant):
            continue
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
        for found in re.finditer(r"(\S+)\.from_pretrained\(([^)]*)", text):
            if found[1] != "PeftModel" and "trust_remote_code=False" not in found[2]:
                wrong.append(f"line {node.lineno}: {found[0]}")
        for found in re.finditer(r"Image\.open\(([^)]*)", text):
            if "formats=" not in found[1]:
                wrong.append(f"line {node.lineno}: {found[0]}")
    return wrong


def executing(tree: ast.AST) -> list[str]:
    return [f"line {call.lineno}: exec" for call, name, _ in calls(tree) if name == "exec"]


CHECKS = (trusting, unpickling, any_format, printed, executing)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_source__runs_nothing_of_a_file(check):
    paths = sorted(PACKAGE.rglob("*.py"))
    assert len(paths) > 100
    wrong = [f"{path.relative_to(PACKAGE)}, {what}" for path in paths
             for what in check(ast.parse(path.read_text(encoding="utf-8")))
             if not (check is executing and path == PACKAGE / EXECUTES)]
    assert wrong == []


@pytest.mark.parametrize(("check", "source"), [
    (trusting, "with closed():\n    AutoModel.from_pretrained(folder)"),
    (trusting, "with closed():\n    AutoModel.from_pretrained(folder, trust_remote_code=True)"),
    (trusting, "with closed():\n    AutoModel.from_config(config, trust_remote_code=trust)"),
    (trusting, "AutoModel.from_pretrained(folder, trust_remote_code=False)"),
    (trusting, "with closed():\n    def f():\n        A.from_config(c, trust_remote_code=False)"),
    (unpickling, "import pickle\npickle.loads(data)"),
    (unpickling, "torch.load(file)"),
    (unpickling, "torch.load(file, weights_only=False)"),
    (unpickling, "numpy.load(file, allow_pickle=False)"),
    (unpickling, "frame = pandas.read_pickle(path)"),
    (unpickling, "Module.load_from_checkpoint(path)"),
    (unpickling, "mlflow.pytorch.load_model(uri)"),
    (unpickling, "archive.extractall(folder)"),
    (unpickling, "run(command, shell=True)"),
    (any_format, "from PIL import Image\nwith Image.open(path) as image:\n    image.load()"),
    (any_format, "PIL.Image.open(path)"),
    (printed, "CODE = 'tokenizer = AutoTokenizer.from_pretrained(folder)'"),
    (printed, "code = f'model = {name}.from_pretrained(folder{more}).eval()'"),
    (printed, "CODE = 'Image.open(image).convert()'"),
    (executing, "exec(code, names)"),
])
def test_check__finds_what_is_planted(check, source):
    assert len(check(ast.parse(source))) == 1


def test_checks__allow_what_is_allowed():
    source = """
with torch.device("meta"), closed():
    model = auto.from_config(config, trust_remote_code=False)
torch.load(file, weights_only=True)
Image.open(path, formats=FORMATS)
CODE = "model = PeftModel.from_pretrained(model, folder)"
"""
    assert [what for check in CHECKS for what in check(ast.parse(source))] == []
