"""The line that says what a command is doing: on a terminal alone, and gone before anything else."""

import os
import pty
import subprocess
import sys

PROGRAM = """
from ftlab.activity import doing
from ftlab.commands.show import say
from ftlab.terminal import Terminal
doing("reading what takes long"); say("first"); say("second")
doing("drawing \\x1b[31m red"); Terminal().say("a line of words " * 20)
"""


def test_a_terminal_shows_it_until_something_is_printed():
    main, end = pty.openpty()
    subprocess.run([sys.executable, "-c", PROGRAM], stdout=end, stderr=end, check=True)
    shown = os.read(main, 100_000).decode().replace("\x1b[0m", "")
    assert shown.startswith("\r\x1b[Kreading what takes long...\r\x1b[Kfirst\r\nsecond\r\n")
    assert "drawing \\x1b[31m red...\r\x1b[Ka line" in shown


def test_a_file_has_the_lines_alone_and_whole():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True,
                           env={name: value for name, value in os.environ.items() if name != "COLUMNS"})
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == ["first", "second", "a line of words " * 20]
