"""What a run changes of its data module, it changes in a copy."""

import ast
from pathlib import Path

import ftlab
from ftlab.data.examples import SplitName
from ftlab.data.text import TextClassification
from ftlab.data.text_augment import TextAugment
from ftlab.data.train_batches import Update

PACKAGE = Path(ftlab.__file__).parent


def test_copies__differ_in_one_respect_and_leave_the_original() -> None:
    data = TextClassification("unread.csv")
    before = dict(vars(data))
    for changed, name, value in (
        (data.without_shortcuts(), "plain", True),
        (data.in_pinned_memory(), "pinned", True),
        (data.updated_by(Update(2)), "update", Update(2)),
        (data.with_cached({}), "cached", {}),
        (data.with_cached({}, blank_inputs=True), "blank_inputs", True),
    ):
        assert getattr(changed, name) == value
        assert {key: vars(changed)[key] for key in before} == before
    assert vars(data) == before


def test_cached_names__are_a_view_of_train_each() -> None:
    splits: tuple[SplitName, ...] = ("train", "validation")
    assert TextClassification("unread.csv").cached_names(splits, 3) == {
        "train": "train", "validation": "validation"}
    viewed = TextClassification("unread.csv", augment=TextAugment(views=4))
    assert viewed.cached_names(splits, 2) == {
        "train/0": "train", "train/1": "train", "validation": "validation"}


def written_from_outside(tree: ast.Module) -> list[str]:
    return [ast.unparse(node) for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            and ast.unparse(node.value).split(".")[-1] in ("data", "datamodule")]


def test_data_module__is_written_into_by_its_own_room_alone() -> None:
    assert written_from_outside(ast.parse("run.data.plain = True; data.cached |= {}")) == [
        "run.data.plain", "data.cached"]
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] != "data":
            assert written_from_outside(ast.parse(path.read_text())) == [], path
