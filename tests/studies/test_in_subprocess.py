"""What a process of its own answers, and when none is asked."""

import os
import subprocess
import sys
import textwrap
import threading

import pytest

from ftlab.errors import Incompatible
from ftlab.studies import in_subprocess


def asked(code: str) -> str:
    """What a script prints that has `apart` and nothing heavy."""
    begin = "import os, sys, types\nfrom ftlab.studies.in_subprocess import apart\n"
    done = subprocess.run([sys.executable, "-c", begin + textwrap.dedent(code)], text=True,
                          capture_output=True, timeout=60, check=True)
    assert not done.stderr, done.stderr
    return done.stdout.strip()


def test_apart__another_process_answers_and_keeps_its_imports() -> None:
    assert asked("""
        def answer():
            sys.modules["torch"] = types.ModuleType("torch")
            return [os.getpid(), {"a": 1}]
        pid, said = apart(answer)
        print(pid != os.getpid(), said, "torch" in sys.modules)
    """) == "True {'a': 1} False"


def test_apart__an_error_of_the_users_comes_back_as_it_is() -> None:
    assert asked("""
        from ftlab.errors import Incompatible
        def answer():
            raise Incompatible(f"no {os.getpid()}", "mend")
        try:
            apart(answer)
        except Incompatible as error:
            print(error.what != f"no {os.getpid()}", error.mend)
    """) == "True mend"


@pytest.mark.parametrize("how", ["os._exit(1)", "os.kill(os.getpid(), 9)"])
def test_apart__a_process_that_dies_is_asked_for_here(how: str) -> None:
    assert asked(f"""
        me = os.getpid()
        def answer():
            if os.getpid() != me:
                {how}
            return "here"
        print(apart(answer))
    """) == "here"


def test_apart__is_asked_here_where_nothing_is_saved_or_threads_run(
        monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_subprocess.HEAVY in sys.modules or __import__("torch")
    assert in_subprocess.apart(os.getpid) == os.getpid()
    monkeypatch.setattr(in_subprocess, "HEAVY", "a module that is not imported")
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert in_subprocess.apart(os.getpid) == os.getpid()
    finally:
        stop.set()
        thread.join()

    def refuse() -> None:
        raise Incompatible("no", "mend")

    with pytest.raises(Incompatible, match="no"):
        in_subprocess.apart(refuse)
