import io
import time

import pytest

from ftlab.studies.display import Clock, Display, RunningJob, clock
from ftlab.terminal import Terminal


def running(technique: str, elapsed: float, fraction: float) -> RunningJob:
    return RunningJob(technique, "fit", fraction, begin=time.monotonic() - elapsed)


def near(seconds: float) -> object:
    return pytest.approx(seconds, abs=0.2)


def test_clock__nothing_is_known_before_a_tenth_of_the_first_run() -> None:
    assert Clock({"a": 3}).left([running("a", 1.0, 0.05)]) is None


def test_clock__from_the_run_in_progress() -> None:
    # 10 s into a run that is half done: 10 s of it, and two more of 20 s.
    assert Clock({"a": 3}).left([running("a", 10.0, 0.5)]) == near(10 + 2 * 20)


def test_clock__several_at_a_time() -> None:
    both = [running("a", 10.0, 0.5), running("b", 10.0, 0.25)]
    assert Clock({"a": 3, "b": 1}).left(both, slots=2) == near((10 + 30 + 2 * 30) / 2)


def test_clock__each_technique_at_its_own_speed() -> None:
    known = Clock({"slow": 2, "quick": 2})
    known.ended("slow", 100.0)
    known.ended("quick", 10.0)
    assert known.left() == pytest.approx(10 + 100)
    assert known.expected("unseen") == pytest.approx(55)


def test_display__plain_lines_where_there_is_no_terminal() -> None:
    said = io.StringIO()
    display = Display(Terminal(file=said, width=200))
    display.start("s", 1, {"a": 2})
    display.run_started("a on d from b, seed 0", "a")
    display.progress("a on d from b, seed 0", "fit", 5, 10)
    display.run_ended("a on d from b, seed 0", "FINISHED", 12.0, "test/accuracy 0.9000", "")
    display.run_started("a on d from b, seed 1", "a")
    display.run_ended("a on d from b, seed 1", "FAILED", 3.0, "", "non-finite loss")
    display.close()
    assert said.getvalue().splitlines() == [
        "1 of 3 runs are finished already",
        "[2/3] a on d from b, seed 0: test/accuracy 0.9000 (12 s, 12 s left)",
        "[3/3] a on d from b, seed 1: FAILED: non-finite loss (3.0 s)",
    ]


def test_display__bars_on_a_terminal_say_what_how_far_and_how_long() -> None:
    said = io.StringIO()
    display = Display(Terminal(file=said, width=200, force_terminal=True))
    display.start("s", 0, {"a": 2})
    display.run_started("a on d from b, seed 0", "a")
    display.progress("a on d from b, seed 0", "fit", 5, 10)
    display.run_ended("a on d from b, seed 0", "FINISHED", 12.0, "test/accuracy 0.9000", "")
    display.run_started("a on d from b, seed 1", "a")
    display.progress("a on d from b, seed 1", "load", 0, 1)
    display.live.refresh()
    display.close()
    text = said.getvalue()
    assert "a on d from b, seed 1" in text
    assert "1 of 2 runs, 12 s left" in text
    assert "load" in text


@pytest.mark.parametrize(
    ("seconds", "said"), [(8.31, "8.3 s"), (59.4, "59 s"), (125, "2 min 5 s"), (3780, "1 h 3 min")]
)
def test_clock__as_a_person_says_it(seconds: float, said: str) -> None:
    assert clock(seconds) == said
