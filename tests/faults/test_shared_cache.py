"""A cache and results that a team shares: modes follow the umask, and another's files are read."""

import json
import multiprocessing
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ftlab.backbones import cache_folder, gguf_file
from ftlab.data import token_cache
from ftlab.data.token_cache import Tokenised
from ftlab.reports.csv_files import write_file
from ftlab.studies import check_cache, forked, run_process
from ftlab.studies.run_folders import mark_failed
from ftlab.sweeps import tuned_study
from ftlab.training import checkpoint
from ftlab.training.shortcuts.prefix_cache import activation_files

NOBODY = 65534
fork = multiprocessing.get_context("fork")


def prefixes(folder: Path) -> None:
    index = torch.arange(4)
    activation_files.obtain("key", 4, lambda: iter([(index, [None], [index])]), lambda: None)


def tokens(folder: Path) -> None:
    path = cache_folder.folder("tokens") / "key.safetensors"
    path.parent.mkdir(parents=True)
    with cache_folder.locked(path.with_suffix(".lock")):
        token_cache._write(path, Tokenised({"ids": [[1, 2], [3]]}))


def checks(folder: Path) -> None:
    check_cache._keep(cache_folder.folder(check_cache.KIND) / "key.json", "{}")


def unpacked_gguf(folder: Path) -> None:
    def weights(new: Path) -> list[str]:
        save_file({"a": torch.zeros(2)}, new / "model.safetensors")
        return ["model.safetensors"]

    gguf_file._fill(cache_folder.folder("gguf") / "model", "a.gguf", weights)


def checkpoints(folder: Path) -> None:
    checkpoint.save(folder / "run", {"a": torch.zeros(2)}, {})


def failed_checkpoints(folder: Path) -> None:
    checkpoints(folder)
    mark_failed(folder / "run", "a reason")


def results(folder: Path) -> None:
    write_file(folder / "results" / "table.csv", "a,b\n")


def a_tuned_study(folder: Path) -> None:
    tuned_study._replace(folder / "study.tuned.yaml", "name: study\n")


def events(folder: Path) -> None:
    run_process.journal(folder)({"event": "alive"})


def output(folder: Path) -> None:
    child = fork.Process(target=forked.redirect, args=(folder / "output.log",))
    child.start()
    child.join()


WRITERS = (prefixes, tokens, checks, unpacked_gguf, checkpoints, failed_checkpoints, results,
           a_tuned_study, events, output)


@pytest.mark.parametrize("umask", [0o002, 0o077], ids="{:03o}".format)
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_files__have_the_modes_of_the_umask(
    writer, umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)  # the package gguf
    before = os.umask(umask)
    try:
        writer(tmp_path)
    finally:
        os.umask(before)
    paths = [*tmp_path.rglob("*")]
    modes = {str(path.relative_to(tmp_path)): f"{stat.S_IMODE(path.stat().st_mode):o}"
             for path in paths}
    assert modes == {name: f"{(0o777 if (tmp_path / name).is_dir() else 0o666) & ~umask:o}"
                     for name in modes}
    assert any(path.is_file() for path in paths)


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that any user may enter, which a folder of pytest's is not."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as two users")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_cache__of_another_user_is_read_and_added_to(
    open_to_all: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTLAB_CACHE", str(open_to_all))
    prefixes(open_to_all)
    tokens(open_to_all)
    lock = open_to_all / "prefix" / "other.lock"
    lock.touch()  # root's, of a process that was killed
    lock.parent.chmod(0o777)

    def other_user() -> None:
        os.setuid(NOBODY)
        index = torch.arange(4)

        def record() -> activation_files.Recorded:
            yield index, [None], [index]

        whole, made = activation_files.obtain("key", 4, record, lambda: None)
        _, added = activation_files.obtain("other", 4, record, lambda: None)
        ids = token_cache._open(open_to_all / "tokens" / "key.safetensors")
        seen.put([whole.rows(index, [None])[0].tolist(), made, added,
                  ids and [list(row) for row in ids.columns["ids"]]])

    seen = fork.SimpleQueue()
    child = fork.Process(target=other_user)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert json.loads(json.dumps(seen.get())) == [[0, 1, 2, 3], False, True, [[1, 2], [3]]]
