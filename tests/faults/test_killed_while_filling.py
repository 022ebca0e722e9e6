"""A process that is killed while a cache fills leaves nothing that the next one believes."""

import dataclasses
import hashlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ftlab.backbones import cache_folder
from ftlab.backbones.huggingface import HuggingFace
from ftlab.data import token_cache
from ftlab.data.text import TextClassification
from ftlab.data.token_cache import TokenCache, Tokenised
from ftlab.training.shortcuts.prefix_cache.activation_files import obtain, path_of

fork = multiprocessing.get_context("fork")
OFTEN = [3, pytest.param(20, marks=pytest.mark.slow)]
EXAMPLES, BATCH, WIDTH = 64, 4, 50_000
PAUSE = 0.01  # seconds a batch


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(token_cache, "FEW", 0)
    return tmp_path / "cache"


def kill_in(seconds: float, body: Callable[[], Any]) -> bool:
    """Run in a process that is killed after a while; whether it was not done by then."""
    process = fork.Process(target=body)
    process.start()
    process.join(seconds)
    os.kill(process.pid, signal.SIGKILL) if process.is_alive() else None
    process.join()
    return process.exitcode == -signal.SIGKILL


def recorded() -> Iterator[Any]:
    for index in torch.arange(EXAMPLES).split(BATCH):
        time.sleep(PAUSE)
        yield index, [None], [index[:, None] * torch.ones(len(index), WIDTH)]


def read(key: str) -> tuple[bool, str]:
    """Whether it had to be made, and the digest of all rows."""
    found, made = obtain(key, EXAMPLES, recorded, lambda: None)
    (rows,) = found.rows(torch.arange(EXAMPLES), [None])
    return made, hashlib.sha256(rows.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("often", OFTEN)
def test_prefix_cache(often: int) -> None:
    begin = time.monotonic()
    _, expected = read("uninterrupted")
    whole, draw, killed = time.monotonic() - begin, random.Random(often), 0
    for number in range(often):
        killed += kill_in(draw.uniform(0, whole), lambda: read(f"key{number}"))  # noqa: B023
        begun = path_of(f"key{number}").exists()
        made, digest = read(f"key{number}")
        assert digest == expected
        assert made is not begun
    assert killed >= often // 2
    folder = path_of("x").parent
    assert {path.suffix for path in folder.iterdir()} <= {".safetensors", ".lock"}


def test_prefix_cache_killed_again_and_again_while_others_wait() -> None:
    """Of four that want the same, the one that fills is killed; the next one of them fills."""
    _, expected = read("uninterrupted")
    for _ in range(2):
        waiting = [fork.Process(target=read, args=("key",)) for _ in range(3)]
        for process in waiting:
            process.start()
        time.sleep(5 * PAUSE)
        os.kill(waiting[0].pid, signal.SIGKILL)
        for process in waiting:
            process.join(60)
        assert [process.exitcode for process in waiting[1:]] == [0, 0]
        assert read("key") == (False, expected)
        path_of("key").unlink()


@pytest.mark.parametrize("often", OFTEN)
def test_token_cache(often: int, backbone: Callable[..., HuggingFace], cache: Path) -> None:
    preprocessing = backbone("bert").preprocessing
    module = TextClassification("unread.csv")
    texts = [f"the film of number {i} was {'very ' * (i % 9)}good" for i in range(3000)]

    def ids(longest: int, pause: float = 0.0) -> Tokenised:
        def encode(*arguments: Any) -> Any:
            time.sleep(pause)
            return preprocessing.encode(*arguments)

        slow = dataclasses.replace(preprocessing, encode=encode)
        return TokenCache(module, slow).encoded(texts, longest)

    draw, killed = random.Random(often), 0
    for number in range(often):
        longest = 8 + number  # a file of its own
        killed += kill_in(draw.uniform(0, 0.2), lambda: ids(longest, 0.05))  # noqa: B023
        rows, cut = preprocessing.encode(texts, longest)
        for _ in range(2):
            made = ids(longest)
            assert ([list(row) for row in made.columns["ids"]], made.cut) == (rows, cut)
    assert killed >= often // 3
    assert len([*cache_folder.folder("tokens").glob("*.safetensors")]) == often
    assert module.notes == []
