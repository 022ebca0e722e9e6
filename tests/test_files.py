"""Files are replaced whole, nothing stays of one that fails, and the umask gives the mode."""

import os
import stat
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from ftlab.files import replacing, write


@pytest.fixture(params=[0o022, 0o002, 0o077], ids="{:03o}".format)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_replacing__gives_the_mode_of_the_umask_whatever_writes(tmp_path, umask):
    with replacing(tmp_path / "a.safetensors") as temporary:
        save_file({"a": torch.arange(3)}, temporary)  # 0600 by itself
    write(tmp_path / "a.json", "{}")
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    assert load_file(tmp_path / "a.safetensors")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("locked", [True, False])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()],
                         ids=["disk full", "Ctrl-C"])
def test_replacing__leaves_the_earlier_file_and_nothing_else(tmp_path, locked, error):
    path = tmp_path / "table.csv"
    write(path, "whole")
    with pytest.raises(type(error)), replacing(path, locked) as temporary:
        temporary.write_text("ha")
        assert path.read_text() == "whole"
        raise error
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_text() == "whole"


KILLED = """
import os, sys
from pathlib import Path
from ftlab.files import replacing
with replacing(Path(sys.argv[1]), locked=True) as temporary:
    temporary.write_bytes(b"torn")
    os._exit(9)
"""


def test_replacing__under_a_lock_takes_over_what_a_killed_process_left(tmp_path):
    path = tmp_path / "cache.bin"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, path], check=False)
        assert len([*tmp_path.iterdir()]) == 1
    with replacing(path, locked=True) as temporary:
        temporary.write_bytes(b"whole")
    assert [*tmp_path.iterdir()] == [path]


def test_replacing__two_writers_without_a_lock_do_not_share_a_name(tmp_path):
    path = tmp_path / "runs.csv"
    with replacing(path) as one, replacing(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"  # the outer is renamed last
