"""Names and texts of strangers' files and stores reach the terminal as text, never as commands."""

import io
import logging
import os
import pty
import sys
from pathlib import Path

import pytest
import warm_processes
import yaml
from rich.table import Table as RichTable
from rich.text import Text
from tqdm import tqdm

from ftlab import cli
from ftlab.commands.show import complain
from ftlab.errors import InputError
from ftlab.exports.predictions import Predictions
from ftlab.reports.figures.labels import labels
from ftlab.reports.formats import markdown, page, terminal
from ftlab.reports.latex import latex
from ftlab.reports.page.markup import text as html_text
from ftlab.reports.table import Line, Table
from ftlab.studies.display import Display
from ftlab.terminal import Terminal
from ftlab.visible import VisibleStream, visible

OBEYED = {
    "colour": ("\x1b[31m", r"\x1b[31m"),
    "cursor up": ("\x1b[1A", r"\x1b[1A"),
    "link": ("\x1b]8;;http://evil.example\x1b\\", "\\x1b]8;;http://evil.example\\x1b\\"),
    "title": ("\x1b]0;mine\x07", r"\x1b]0;mine\x07"),
    "C1 control sequence": ("\x9b2J", r"\x9b2J"),
    "C1 string": ("\x9d0;mine\x9c", r"\x9d0;mine\x9c"),
    "bell": ("\x07", r"\x07"),
    "backspace": ("\x08\x08", r"\x08\x08"),
    "return": ("\r", r"\x0d"),
    "form feed": ("\x0c", r"\x0c"),
    "delete": ("\x7f", r"\x7f"),
    "right to left": ("\u202etxt.\u202c", r"\u202etxt.\u202c"),
    "isolate": ("\u2066a\u2069", r"\u2066a\u2069"),
    "mark": ("\u200f", r"\u200f"),
    "no width": ("\u200b\ufeff\u2060", r"\u200b\ufeff\u2060"),
    "joiner between Latin letters": ("a\u200db", r"a\u200db"),
    "hyphen": ("\xad", r"\xad"),
    "line separator": ("\u2028", r"\u2028"),
    "tags": ("\U000e0041", r"\U000e0041"),
    "half a character": ("\udc80", r"\udc80"),
}
ALL = "".join(raw for raw, _ in OBEYED.values())
STAY = [
    "Größe", "naïve e\u0301", "Ελληνικά", "русский", "עברית", "العربية", "हिन्दी क्\u200dष",
    "می\u200cخواهم",  # noqa: RUF001
    "ไทย", "日本語", "한국어", "👩\u200d👩\u200d👧", "❤️", "👍🏽",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "a\tb", "two\nlines",
    "\\x1b", "£ ≤ … —", "\U0010fc00"]
MARKUP = ["[red]x[/red]", "[link=http://evil.example]x[/link]", "[/]", ":cat:", "[@click=a]x"]


def obeyed(output: str) -> set[str]:
    """What a terminal would do something for, or hide."""
    return {sign for sign in ALL if (sign in output and not sign.isascii()) or
            (ord(sign) < 32 and sign in output)} - {"\n", "\t"}


@pytest.mark.parametrize(("raw", "written"), OBEYED.values(), ids=OBEYED)
def test_visible__writes_out_what_a_terminal_obeys(raw: str, written: str) -> None:
    assert visible(f"class {raw}red") == f"class {written}red"


@pytest.mark.parametrize("text", STAY)
def test_visible__leaves_all_scripts_and_emoji(text: str) -> None:
    assert visible(text) == text


def on_terminal(renderable: object) -> str:
    file = io.StringIO()
    Terminal(file=file, width=2000, force_terminal=True, color_system=None).print(renderable)
    return file.getvalue()


def study_table(name: str) -> Table:
    return Table(("technique", name), ((name, (Line((name, name), frozenset({1})),)),),
                 (name,), f"caption {name}", ((name, name),))


def table(name: str) -> RichTable:
    made = RichTable(title=name, caption=name)
    made.add_column(name)
    made.add_row(name)
    made.add_row(Text(name))
    return made


SHOWN = {
    "text": lambda name: name,
    "rich text": Text,
    "table": table,
    "study's table": lambda name: terminal(study_table(name)),
    "predictions": lambda name: Predictions({"id": [name], name: [name]}, {}, []).rich(),
}


@pytest.mark.parametrize("make", SHOWN.values(), ids=SHOWN)
def test_terminal__shows_names_as_they_stand(make) -> None:
    assert obeyed(on_terminal(make(f"class {ALL}"))) == set()
    assert r"\x1b[31m" in on_terminal(make("\x1b[31mred"))
    for name in MARKUP:
        assert name in on_terminal(make(name))


@pytest.mark.parametrize("write", [markdown, page, latex, html_text], ids=lambda write: write.__name__)
def test_files__show_names_as_they_stand(write) -> None:
    said = f"class {ALL}"
    assert obeyed(write(said if write is html_text else study_table(said))) == set()


def test_figures__label_what_is_there() -> None:
    assert labels(["\x1b[31mred"]) == {"\x1b[31mred": r"\x1b[31mred"}


@pytest.mark.parametrize("bars", [True, False])
def test_display__notes_and_ends_of_runs_move_no_cursor(bars: bool) -> None:
    file = io.StringIO()
    display = Display(Terminal(file=file, width=500, force_terminal=bars, color_system=None))
    display.start("study", 0, {"lora": 1})
    display.note("class \x1b]8;;http://evil.example\x07\u202e and [red]x[/red]\nok: all is well")
    display.run_started("run", "lora")
    display.run_ended("run", "FAILED", 1.0, "", "\x1b[2J\x9b2J gone")
    display.close()
    assert not {"\x07", "\u202e", "\x9b"} & set(file.getvalue())
    assert "\x1b]8" not in file.getvalue() and "\x1b[2J" not in file.getvalue()
    for text in (r"note: class \x1b]8;;http://evil.example\x07\u202e and [red]x[/red]\nok: all",
                 r"FAILED: \x1b[2J\x9b2J gone"):
        assert text in file.getvalue()


def test_complain__is_two_lines_whatever_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    complain(InputError("column \x1b[31m\r[red]\nerror: nothing", "name\x08 it"))
    assert capsys.readouterr().err.splitlines() == [
        r"error: column \x1b[31m\x0d[red]\nerror: nothing", r"  mend: name\x08 it"]


def test_stream__lets_text_out_and_progress_bars() -> None:
    file = io.StringIO()
    stream = VisibleStream(file)
    logger = logging.getLogger("stranger")
    logger.addHandler(logging.StreamHandler(stream))
    logger.warning("unknown \x1b[31mclass\r")
    print("\r 10%", end="", file=stream)
    print("a\udc80.csv", file=stream)
    assert file.getvalue() == "unknown \\x1b[31mclass\\x0d\n\r 10%a\\udc80.csv\n"
    assert not hasattr(stream, "buffer")


class TerminalFile(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_stream__on_a_terminal_lets_bars_below_each_other() -> None:
    file = TerminalFile()
    stream = VisibleStream(file)
    with tqdm(total=2, file=stream, position=1, leave=False, ncols=40) as bar:
        bar.update()
    assert file.getvalue().count("\n\r") == file.getvalue().count("\x1b[A") > 0
    assert r"\x1b" not in file.getvalue()


@pytest.mark.parametrize("text", [
    "\x1b[A.", "\x1b[2A", "a\x1b[A", "\x1b[A\n", "\x1b[2J", "\x1b[A\x1b[B"])
def test_stream__on_a_terminal_moves_nowhere_else(text: str) -> None:
    file = TerminalFile()
    assert VisibleStream(file).write(text) == len(text)
    assert "\x1b" not in file.getvalue()
    below = io.StringIO()
    VisibleStream(below).write("\x1b[A")
    assert below.getvalue() == r"\x1b[A"


HOSTILE = "\x1b]8;;evil:\x07\u202e\x9b2J"


def in_header(root: Path, settings: dict) -> None:
    (root / "data.csv").write_text(f"text,{HOSTILE}label\na,b\n" * 3)
    settings["datasets"]["d"]["init_args"]["label_column"] = "label"


def in_class(root: Path, settings: dict) -> None:
    (root / "data.csv").write_text(f"text,label\na,{HOSTILE}\n")


def in_key(root: Path, settings: dict) -> None:
    settings[f"see{HOSTILE}ds"] = [1]


def in_argument(root: Path, settings: dict) -> None:
    settings["techniques"]["full"]["init_args"] = {f"l{HOSTILE}r": 1}


def in_name(root: Path, settings: dict) -> None:
    settings["name"] = f"study{HOSTILE}"


def in_value(root: Path, settings: dict) -> None:
    settings["datasets"]["d"]["init_args"]["train"] = f"{HOSTILE}.csv"


def in_source(root: Path, settings: dict) -> None:
    settings["backbones"]["b"]["init_args"]["source"] = f"./{HOSTILE}"


CASES = (in_header, in_class, in_key, in_argument, in_name, in_value, in_source)


@pytest.mark.parametrize("where", CASES, ids=lambda case: case.__name__)
def test_check__quotes_what_is_wrong_as_text(where, here, tmp_path: Path, tiny_bert: Path) -> None:
    settings: dict = {
        "name": "study", "backbones": {"b": {"class_path": "HuggingFace",
                                             "init_args": {"source": str(tiny_bert)}}},
        "datasets": {"d": {"class_path": "TextClassification",
                           "init_args": {"train": str(tmp_path / "data.csv")}}},
        "techniques": {"full": {"class_path": "FullFineTuning"}}}
    (tmp_path / "data.csv").write_text("text,label\n" + "a,b\nc,d\n" * 30)
    where(tmp_path, settings)
    file = tmp_path / "study\x1b[31m.yaml"
    file.write_text(yaml.safe_dump(settings, allow_unicode=True))
    code, output, errors = here("check", file)
    assert code == 2
    assert not obeyed(output + errors)
    assert r"\x1b" in errors
    assert len(errors.splitlines()) == 2


def test_command__quotes_its_arguments_as_text(capfd, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ftlab", "run", "a.yaml", HOSTILE])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    output = "".join(capfd.readouterr())
    assert not obeyed(output) and r"\x1b]8" in output


def test_front_door__on_a_terminal_has_colours_and_no_commands(tmp_path: Path) -> None:
    parent, child = pty.openpty()
    process = warm_processes.start("ftlab.cli", "check", f"{HOSTILE}.yaml", folder=tmp_path,
                                   stdin=child, stdout=child, stderr=child)
    os.close(child)
    said = b""
    try:
        while part := os.read(parent, 4096):
            said += part
    except OSError:  # Linux says so that the other end is closed
        pass
    assert process.wait() == 2
    os.close(parent)
    text = said.decode()
    assert text.startswith("\x1b[31merror: ")
    assert r"\x1b]8;;evil:\x07\u202e\x9b2J.yaml: no such file" in text
    assert "\x1b]8" not in text
