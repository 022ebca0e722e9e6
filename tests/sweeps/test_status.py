"""The table of a sweep, as a person reads it in a terminal of 80 columns."""

import io
import time
from dataclasses import replace

import pytest
from rich.console import Console

from ftlab.errors import InputError
from ftlab.sweeps.display import SweepDisplay
from ftlab.sweeps.status import left, rich, status
from ftlab.terminal import Terminal


def shown(sweep, standings, direction="maximize", width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(rich(sweep, standings, direction))
    return console.file.getvalue()


@pytest.fixture
def board(make_board, tmp_path):
    return make_board(str(tmp_path / "optuna.journal"), sampler="Random")


def one(board, technique, value=None, end="complete"):
    """Take the next trial and end it; the cells take turns, so it is checked whose it is."""
    held = board.take()
    assert held.cell.key.technique == technique
    if end == "complete":
        assert board.complete(held, [value])
    elif end == "prune":
        board.report(held, 1, value)
        assert board.prune(held)
    elif end == "fail":
        assert board.fail(held, "non-finite loss")
    return held


def test_rich__fits_80_columns_and_leaves_out_what_did_not_happen(board):
    one(board, "lora", 0.5)
    one(board, "probe", 0.61239)
    text = shown(board.sweep, board.standing())
    assert max(map(len, text.splitlines())) <= 80
    lines = [line.split() for line in text.splitlines()]
    assert ["technique", "ended", "own", "best", "best", "setting"] in lines
    assert ["lora", "1/4", "0.5000", "0.5000", "the", "study's", "own"] in lines
    assert ["probe", "1/4", "0.6124", "0.6124", "the", "study's", "own"] in lines
    assert "reviews" not in text and "bert" not in text, "there is one pair"
    assert "No trial runs now" in text


def test_rich__counts_and_best_with_its_setting(board):
    one(board, "lora", 0.5)
    one(board, "probe", 0.5)
    best = one(board, "lora", 0.75)
    one(board, "probe", 0.4, "prune")
    one(board, "lora", end="fail")
    board.take()
    text = shown(board.sweep, board.standing())
    assert max(map(len, text.splitlines())) <= 80
    (head,) = [line for line in text.splitlines() if "technique" in line]
    assert head.split()[1:5] == ["ended", "running", "pruned", "failed"]
    lora, probe = (next(line for line in text.splitlines() if line.startswith(name)).split()
                   for name in ("lora", "probe"))
    assert lora[:7] == ["lora", "3/4", "-", "-", "1", "0.5000", "0.7500"]
    assert probe[:7] == ["probe", "2/4", "1", "1", "-", "0.5000", "0.5000"]
    assert f"lr {best.values['lr']:.3g}" in text
    lowest = shown(board.sweep, board.standing(), "minimize")
    assert "lower is better" in lowest and "0.7500" not in lowest


def test_rich__long_names_and_many_values_wrap(board):
    long = one(board, "lora", 0.1)
    standings = board.standing()
    trial = standings[0].trials[0]
    trial.number = 1
    trial.params = {f"optim.some_long_name_{n}": 0.123456789 for n in range(5)}
    text = shown(board.sweep, standings)
    assert max(map(len, text.splitlines())) <= 80
    assert "some_long_name_4" in "".join(text.split()) and long.number == 0


def test_rich__several_pairs_are_sections(board):
    one(board, "lora", 0.1)
    standings = board.standing()
    other = board.standing()
    for standing in other:
        key = standing.cell.key
        object.__setattr__(standing, "cell", type(standing.cell)(**{
            **vars(standing.cell), "key": type(key)(**{**vars(key), "dataset": "[b]news"})}))
    text = shown(board.sweep, [*standings, *other])
    assert "reviews from bert" in text and "[b]news from bert" in text


def test_left__is_known_while_trials_run_and_some_have_ended(board, monkeypatch):
    assert left(board.standing()) is None
    first = board.take()
    assert left(board.standing()) is None, "nothing has ended"
    time.sleep(0.2)
    board.complete(first, [0.5])
    assert left(board.standing()) is None, "nothing runs"
    board.take()
    took = next(t.duration for s in board.standing() for t in s.trials if t.duration)
    assert left(board.standing()) == pytest.approx(7 * took.total_seconds())
    board.take()
    assert left(board.standing()) == pytest.approx(7 * took.total_seconds() / 2)
    assert "left." in shown(board.sweep, board.standing())


def test_rich__says_when_all_is_over(board):
    while (held := board.take()) is not None:
        board.complete(held, [0.5])
    assert "All trials have ended." in shown(board.sweep, board.standing())


def test_status__reads_the_storage_alone(board):
    one(board, "lora", 0.5)
    sweep = replace(board.sweep, storage=board.storage.where)
    assert [s.ended for s in status(sweep)] == [1, 0]
    with pytest.raises(InputError, match="nothing of the sweep other"):
        status(replace(sweep, name="other"))


def test_status__of_a_sweep_never_begun_makes_no_storage(make_sweep, tmp_path):
    with pytest.raises(InputError, match="nothing of the sweep"):
        status(make_sweep(storage=str(tmp_path / "optuna.journal")))
    assert list(tmp_path.iterdir()) == []


def display_of(board, terminal):
    console = Terminal(file=io.StringIO(), width=120, force_terminal=terminal)
    display = SweepDisplay(board.standing, "maximize", console)
    display.start("s", 0, {"lora": 4, "probe": 4}, 2)
    return display


def test_display__shows_all_trials_whoever_does_them(board):
    display = display_of(board, terminal=True)
    held = board.take()
    display.run_started("lora on reviews from bert, trial 0", "lora")
    display.progress("lora on reviews from bert, trial 0", "fit", 1, 2)
    board.complete(held, [0.51239])
    other = board.take()  # another coordinator's
    board.report(other, 1, 0.1)
    board.prune(other)
    display.run_ended("lora on reviews from bert, trial 0", "COMPLETE", 1.0,
                      "val/accuracy 0.5124", "")
    board.take()
    display.looked = 0.0
    display.idle()
    display.live.refresh()
    display.close()
    text = display.console.file.getvalue()
    assert "2 of 8 trials" in text
    assert "1 of 4, 1 running, best 0.5124" in text
    assert "1 of 4, 1 pruned" in text
    assert "[2/8] lora on reviews from bert, trial 0: val/accuracy 0.5124" in text


def test_display__a_pruned_trial_is_no_fault(board):
    display = display_of(board, terminal=False)
    held = board.take()
    display.run_started("lora on reviews from bert, trial 0", "lora")
    board.report(held, 1, 0.1)
    board.prune(held)
    display.run_ended("lora on reviews from bert, trial 0", "PRUNED", 4.0, "val/accuracy 0.1000",
                      "pruned")
    display.close()
    assert "trial 0: pruned at val/accuracy 0.1000 (4.0 s" in display.console.file.getvalue()


def test_display__counts_failures_and_the_time_left(board):
    display = display_of(board, terminal=False)
    for technique in ("lora", "probe"):
        held = board.take()
        display.run_started(f"{technique} on reviews from bert, trial 0", technique)
        board.fail(held, "non-finite loss")
        display.run_ended(f"{technique} on reviews from bert, trial 0", "FAIL", 4.0, "",
                          "non-finite loss")
    assert display.failed == 2
    lines = display.console.file.getvalue().splitlines()
    # seven trials of four seconds each, two at a time
    assert lines[0].startswith("[1/8] lora") and lines[0].endswith("(4.0 s, 14 s left)")
    assert lines[1].startswith("[2/8] probe") and lines[1].endswith("(4.0 s, 12 s left)")
    display.close()
