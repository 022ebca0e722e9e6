"""Files that go from rank to rank, and what ranks agree on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from forks import on_two_ranks
from torch import distributed

from ftlab.training import rank_files


def ranks(mesh: Any) -> Any:
    """What stands for their Trainer, on two nodes."""
    return SimpleNamespace(global_rank=mesh.get_local_rank(), world_size=2, num_nodes=2,
                           strategy=SimpleNamespace(root_device=torch.device("cpu")))


@pytest.mark.parametrize("size", [0, 10, 25])
def test_move__gives_the_other_rank_the_file(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_files, "PIECE", 10)
    content = bytes(range(size))

    def sent(mesh: Any) -> bytes:
        folder = tmp_path / str(mesh.get_local_rank())
        if not mesh.get_local_rank():
            folder.mkdir()
            (folder / "file").write_bytes(content)
        rank_files.move(folder / "file", 0, 1, ranks(mesh))
        return (folder / "file").read_bytes()

    assert on_two_ranks(tmp_path, sent) == [content, content]


def test_move__to_a_folder_that_cannot_be_written_leaves_the_ranks_in_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "1").write_text("not a folder")

    def sent(mesh: Any) -> str:
        rank = mesh.get_local_rank()
        path = tmp_path / "1" / "file" if rank else tmp_path / "file"
        reason = rank_files.agree(ranks(mesh), lambda: rank_files.move(path, 0, 1, ranks(mesh)), (OSError,))
        after = torch.tensor([float(rank)])
        distributed.all_reduce(after)
        return f"{reason} {after.item()}"

    one, other = on_two_ranks(tmp_path, sent)
    assert one == other
    assert "1" in one and one.endswith(" 1.0") and len(one) > 10


def test_agree__is_what_one_rank_alone_could_not_do(tmp_path: Path) -> None:
    def act(mesh: Any) -> str:
        def fail() -> None:
            if mesh.get_local_rank():
                raise OSError("No space left on device")
        return rank_files.agree(ranks(mesh), fail, (OSError,))

    assert on_two_ranks(tmp_path, act) == ["No space left on device"] * 2
