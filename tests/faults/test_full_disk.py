"""A disk that fills in the middle: two lines, exit code 1, and the same command continues."""

import contextlib
import dataclasses
import errno
import itertools
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ftlab import cli, files
from ftlab.backbones.huggingface import HuggingFace
from ftlab.data import token_cache
from ftlab.data.text import TextClassification
from ftlab.data.token_cache import TokenCache, Tokenised
from ftlab.errors import InputError
from ftlab.files import is_full, is_of_disk, replacing
from ftlab.reports.csv_files import write_file
from ftlab.studies import forked, run_process
from ftlab.studies.check_cache import remembered
from ftlab.studies.engine import EVENTS, UNWRITABLE, died
from ftlab.studies.local_engine import _Tail
from ftlab.sweeps.journal_storage import Journal
from ftlab.tracking.tracker import Tracker
from ftlab.training import checkpoint
from ftlab.training.evaluate import write_predictions
from ftlab.training.shortcuts.prefix_cache.activation_files import obtain

MADE = True  # stores as users have them

Disk = SimpleNamespace
ROOM = 64 * 1024


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A disk of 64 KiB: `fill` leaves so many bytes of it, `close` lets it be read alone."""
    with tempfile.TemporaryDirectory(prefix="ftlab-disk-") as folder:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", folder],
                              capture_output=True, check=False)
        if made.returncode:
            pytest.skip("only root may mount a disk that is small")
        try:
            yield SimpleNamespace(folder=Path(folder), fill=lambda leave: fill(Path(folder), leave),
                                  close=lambda: subprocess.run(
                                      ["mount", "-o", "remount,ro", folder], check=True))
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path, leave: int) -> None:
    """Take all the room but some pages; 0 bytes leave none."""
    file = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(file, bytes(4096))
    os.truncate(file, max(0, os.fstat(file).st_size - leave))
    os.close(file)


def rest(disk: Disk) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in disk.folder.rglob("*")
            if path.is_file() and path.name != "filler"}


# What the errors are

RUST = 'Error while serializing: I/O error: No space left on device (os error 28)'
DISK = [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EDQUOT, "x"),
        OSError(errno.EROFS, "x", "/there"), PermissionError(errno.EACCES, "x", "/there"),
        RuntimeError("unable to write: No space left on device (28)"), SafetensorError(RUST),
        ValueError("(sqlite3.OperationalError) database or disk is full")]


@pytest.mark.parametrize("error", DISK, ids=repr)
def test_an_error_of_the_disk_is_two_lines_and_exit_code_1(
    error: Exception, here: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", lambda **_: fails())
    code, output, errors = here("run", "study.yaml")
    assert (code, output) == (1, "")
    lines = errors.splitlines()
    assert len(lines) == 2, errors
    assert lines[0].startswith("error: /there: " if getattr(error, "filename", "") else "error: a ")
    assert "the same command again" in lines[1]


def test_an_error_of_another_kind_keeps_its_traceback(
    here: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "app", lambda **_: {}["nothing"])
    with pytest.raises(KeyError):
        here("run", "study.yaml")
    for error in (FileNotFoundError(errno.ENOENT, "x"), ValueError("permission denied")):
        assert not is_of_disk(error)


def test_bad_input_for_want_of_room_is_no_wrong_use(
    here: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**_: object) -> None:
        try:
            raise DISK[-1]
        except ValueError as error:
            raise InputError("tracking store: full", "free space") from error

    monkeypatch.setattr(cli, "app", fails)
    assert here("run", "study.yaml")[0] == 1


# Who writes

def test_checkpoint(disk: Disk) -> None:
    """The earlier one stays whole."""
    checkpoint.save(disk.folder, {"w": torch.zeros(64)}, {"n": 1})
    before = {path.name: path.read_bytes() for path in disk.folder.iterdir()}
    disk.fill(leave=8192)
    with pytest.raises(OSError, match="No space left") as caught:
        checkpoint.save(disk.folder, {"w": torch.zeros(30_000)}, {"n": 2})
    assert is_full(caught.value)
    assert caught.value.filename.startswith(str(disk.folder))
    assert {name: (disk.folder / name).read_bytes() for name in rest(disk)} == before


@pytest.mark.parametrize("leave", [0, 4096, 8192])
def test_a_file_that_is_replaced(disk: Disk, leave: int) -> None:
    path = disk.folder / "table.md"
    files.write(path, "old")
    disk.fill(leave)
    with pytest.raises(OSError, match="No space left") as caught:
        files.write(path, "new" * 20_000)
    assert caught.value.filename == str(path)
    assert rest(disk) == {"table.md": 3}
    (disk.folder / "filler").unlink()
    files.write(path, "new" * 10_000)
    assert rest(disk) == {"table.md": 30_000}


def test_a_library_in_rust_raises_as_others_do(disk: Disk) -> None:
    """So that who does without a cache (`except OSError`) does so here too."""
    with pytest.raises(OSError, match="No space left"), replacing(disk.folder / "x") as temporary:
        save_file({"w": torch.zeros(60_000)}, temporary)
    assert rest(disk) == {}


def test_token_cache(disk: Disk) -> None:
    made = Tokenised({"ids": [[300] * 4000] * 10}, 0)
    with pytest.raises(OSError, match="No space left"):
        token_cache._write(disk.folder / "x.safetensors", made)
    assert rest(disk) == {}


def test_a_run_s_journal(disk: Disk) -> None:
    """A torn line is no event; the run ends with a code that says why, and nothing else could."""
    report = run_process.journal(disk.folder)
    report({"event": "note", "text": "first"})
    disk.fill(leave=0)
    with pytest.raises(OSError, match="No space left"):
        for number in range(100):
            report({"event": "note", "text": f"{number} " * 40})
    assert run_process._end(report, ValueError("a reason " * 1000)) == UNWRITABLE
    assert "disk is full" in died(UNWRITABLE, False)
    (disk.folder / "filler").unlink()
    assert not (disk.folder / EVENTS).read_bytes().endswith(b"\n")
    report({"event": "note", "text": "space again"})
    report({"event": "note", "text": "last"})
    texts = [event["text"] for event in _Tail(disk.folder / EVENTS).read()]
    assert texts[0] == "first"
    assert texts[-1] == "last"
    assert all(json.dumps(text) for text in texts)


@pytest.mark.parametrize("size", [10, 300, 5000])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_sweep_s_journal__holds_what_was_appended_and_no_half_of_a_batch(
    disk: Disk, size: int, batch: int
) -> None:
    journal, reader = (Journal(disk.folder / "journal", 5) for _ in range(2))
    numbers = itertools.count()
    appended: list[int] = []
    read: list[int] = []

    def append() -> None:
        logs = [{"op_code": 9, "number": next(numbers), "text": "x" * size} for _ in range(batch)]
        journal.append_logs(logs)
        appended.extend(log["number"] for log in logs)
        read.extend(log["number"] for log in reader.read_logs(len(read)))

    append()
    disk.fill(leave=16384)
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            while True:
                append()
    (disk.folder / "filler").unlink()
    append()
    append()
    assert read == appended
    assert [log["number"] for log in Journal(disk.folder / "journal", 5).read_logs(0)] == appended


def test_prediction_records(disk: Disk) -> None:
    disk.fill(leave=0)
    with pytest.raises(OSError) as caught:
        write_predictions(disk.folder / "test.parquet", {"id": [*map(str, range(20_000))]})
    assert is_full(caught.value)


class Broken(torch.utils.data.Dataset[torch.Tensor]):
    """Raises an error in the process that loads it."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        raise self.error


@pytest.mark.parametrize(("error", "said"), [
    (RuntimeError("unable to write to file </torch_1>: No space left on device (28)"),
     "RuntimeError: unable to write to file </torch_1>: No space left on device (28)"),
    (InputError("images/3.png: damaged", "get it again"),
     "images/3.png: damaged")])
def test_a_loader_s_process_says_what_it_was(error: Exception, said: str) -> None:
    """As where `/dev/shm` is too small: not that torch caught something."""
    with pytest.raises(type(error)) as caught:
        next(iter(torch.utils.data.DataLoader(Broken(error), num_workers=1)))
    assert run_process.first_line(caught.value) == said


def test_a_forked_run_ends_where_its_output_cannot_be_written(disk: Disk) -> None:
    """What its last prints raise must not carry it on as a second server."""
    disk.fill(leave=0)
    child = os.fork()
    if not child:
        forked.redirect(disk.folder / "output.log")
        print("x" * 100_000)  # waits in a buffer
        forked.leave(lambda: 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


# Folders that may only be read

def test_a_cache_that_may_only_be_read_is_read(
    disk: Disk, backbone: Callable[..., HuggingFace], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there is used, and what is not is computed, of which a note is taken once."""
    monkeypatch.setenv("FTLAB_CACHE", str(disk.folder))
    monkeypatch.setattr(token_cache, "FEW", 0)
    preprocessing, module = backbone("bert").preprocessing, TextClassification("unread.csv")
    cache = TokenCache(module, preprocessing)

    def recorded() -> Iterator[tuple[torch.Tensor, list[None], list[torch.Tensor]]]:
        yield torch.arange(2), [None], [torch.ones(2, 3)]

    cache.encoded(["a film", "the plot"], 8)
    obtain("key", 2, recorded, lambda: None)
    disk.close()
    slow = dataclasses.replace(preprocessing, encode=lambda *_: pytest.fail("it is there"))
    slow_cache = TokenCache(module, slow)
    monkeypatch.setattr(slow_cache, "_key", lambda *_: next(
        (disk.folder / "tokens").glob("*.safetensors")).stem)
    assert [*slow_cache.encoded(["a film", "the plot"], 8).columns["ids"]
            ] == preprocessing.encode(["a film", "the plot"], 8)[0]
    assert obtain("key", 2, recorded, lambda: None)[1] is False
    assert module.notes == []
    for _ in range(2):
        assert [*cache.encoded(["the cast"], 8).columns["ids"]
                ] == preprocessing.encode(["the cast"], 8)[0]
    assert module.notes == [(f"token ids are not kept: {disk.folder / 'tokens'}: "
                            "Read-only file system")]
    with pytest.raises(OSError, match="Read-only"):  # the run computes, and says why
        obtain("other", 2, recorded, lambda: None)
    assert remembered("what?", lambda: 1) == 1


def test_results_and_a_store_that_may_only_be_read(disk: Disk) -> None:
    disk.close()
    with pytest.raises(InputError, match=r"results .*Read-only file system"):
        write_file(disk.folder / "study" / "table.md", "text")
    with pytest.raises(InputError, match="not writable"):
        Tracker(f"sqlite:///{disk.folder}/mlflow.db").open_study("small", {})
