"""`--json`: a program that drives ftlab and reads nothing but stdout, a line at a time."""

import csv
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import warm_processes
import yaml
from bad_studies import BAD
from processes import wait_for

from ftlab.commands.event_display import EventDisplay
from ftlab.commands.json_lines import alone_on_stdout
from ftlab.errors import InputError

UNRENDERED = True
DOCS = Path(__file__).resolve().parent.parent / "docs" / "programs.md"
Answers = list[dict[str, Any]]


class Caller:
    """A program in a folder of its own: what each command answered, by its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard: dict[str, Answers] = {}

    def __call__(self, command: str, *arguments: object, code: int = 0) -> Answers:
        done = warm_processes.run("ftlab.cli", command, *arguments, "--json", folder=self.folder,
                                  environment={**os.environ, "COLUMNS": "40"})
        assert done.returncode == code, done.stderr + done.stdout
        answers = [json.loads(line, parse_constant=pytest.fail) for line in done.stdout.splitlines()]
        self.heard.setdefault(command, []).extend(answers)
        return answers

    def one(self, command: str, *arguments: object, code: int = 0) -> dict[str, Any]:
        (answer,) = self(command, *arguments, code=code)
        return answer


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, reviews: Path) -> Iterator[Caller]:
    """After `run --json` of a study of two techniques and three seeds."""
    folder = tmp_path_factory.mktemp("program")
    bert = {"class_path": "HuggingFace", "init_args": {"source": str(tiny_bert), "pooling": "mean"}}
    data = {"class_path": "TextClassification",
            "init_args": {"train": str(reviews), "max_length": 32, "batch_size": 8}}
    study = {"name": "small", "backbones": {"bert": bert}, "datasets": {"reviews": data},
             "techniques": {"probe": {"class_path": "LinearProbe", "init_args": {"lr": 0.03}},
                            "norms": {"class_path": "NormTuning", "init_args": {"lr": 0.01}}},
             "seeds": [0, 1, 2], "trainer": {"max_epochs": 1}}
    (folder / "small.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    made = Caller(folder)
    made("run", "small.yaml")
    yield made


def test_run__is_an_event_a_line(caller: Caller) -> None:
    events = caller.heard["run"]
    assert events[0]["event"] in ("note", "start") and events[-1]["event"] == "result"
    (start,) = (event for event in events if event["event"] == "start")
    assert (start["finished"], start["total"], start["waiting"]) == (0, 6, {"probe": 3, "norms": 3})
    ended = [event for event in events if event["event"] == "run_ended"]
    assert len(ended) == 6 and ended[-1]["finished"] == 6
    with (caller.folder / "results/small/runs.csv").open() as file:
        stored = {(row["technique"], row["seed"]): row for row in csv.DictReader(file)}
    for event in ended:
        assert event["status"] == "FINISHED" and event["reason"] is None
        row = stored[event["technique"], event["run"].rpartition("seed ")[2]]
        assert event["metrics"]["test/accuracy"] == float(row["test/accuracy"])
    trained = {event["run"] for event in events if event["event"] == "measured" and "val/loss" in event["metrics"]}
    assert trained >= {event["run"] for event in ended if event["technique"] == "norms"}
    again = caller("run", "small.yaml")
    assert [event["event"] for event in again if event["event"] != "note"] == ["start", "result"]
    assert again[-1]["cells"] == events[-1]["cells"]


def test_run__foresees(caller: Caller) -> None:
    estimate = caller.one("run", "small.yaml", "--dry-run")
    assert [cell["technique"] for cell in estimate["cells"]] == ["probe", "norms"]
    assert all(cell["memory_bytes"] > 0 for cell in estimate["cells"])


def test_run__a_failed_run_is_told_and_the_code_is_1(caller: Caller) -> None:
    events = caller("run", "small.yaml", "--set", "techniques.norms.init_args.lr=1e30", "--set", "name=fails",
                    "--only", "norms", "--seeds", "0", code=1)
    (ended,) = (event for event in events if event["event"] == "run_ended")
    assert ended["status"] == "FAILED" and "finite" in ended["reason"]
    assert any("finite" in failure for failure in events[-1]["failures"])


def test_run__an_interrupted_one_says_so(caller: Caller) -> None:
    said = caller.folder / "interrupted"
    with said.open("wb") as out:
        process = warm_processes.start(
            "ftlab.cli", "run", "small.yaml", "--set", "name=long", "--set", "trainer.max_epochs=5000", "--json",
            folder=caller.folder, stdout=out, stderr=subprocess.DEVNULL)
        wait_for(lambda: b'"progress"' in said.read_bytes())
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    last = json.loads(said.read_text().splitlines()[-1])
    assert last == {"error": {"what": "SIGTERM: stopped", "how": "the same command continues", "place": None}}


def test_table__has_every_digit(caller: Caller) -> None:
    table = caller.one("table", "small.yaml")
    with (caller.folder / "results/small/table.csv").open() as file:
        written = {row["technique"]: row for row in csv.DictReader(file)}
    assert {cell["technique"]: cell["mean"] for cell in table["cells"]} == {
        name: float(row["mean"]) for name, row in written.items()}
    (pair,) = table["pairs"]
    assert (pair["a"], pair["b"], pair["seeds"]) == ("probe", "norms", 3) and 0 <= pair["p_holm"] <= 1
    assert pair["verdict"] is None, "what a study does not ask is null"
    chosen = caller.one("table", "small.yaml", "--columns", "val/loss,cost/train_seconds")
    assert len(chosen["lines"]) == 2 and chosen["studies"] == ["small"]


def test_check__names_what_how_and_where(caller: Caller) -> None:
    (caller.folder / "bad.yaml").write_text("name: bad\nsedes: [0]\n")
    good, bad, missing = caller("check", "small.yaml", "bad.yaml", "none.yaml", code=2)
    assert good["ok"] and good["planned"] == "6 runs" and good["cells"] == 2
    assert bad["error"]["what"] == "unknown key" and "'seeds'" in bad["error"]["how"]
    assert bad["error"]["place"] == "bad.yaml:2: sedes"
    assert missing["error"]["place"] == "none.yaml"


def test_list__is_what_people_are_shown(caller: Caller) -> None:
    every = caller.one("list")["classes"]
    assert {"LoRA", "Classification", "HuggingFace"} <= {entry["name"] for entry in every}
    (lora,) = caller.one("list", "LoRA")["classes"]
    rank = next(argument for argument in lora["arguments"] if argument["name"] == "rank")
    assert (lora["room"], rank["type"], rank["required"]) == ("techniques", "int", False)
    (task,) = caller.one("list", "Classification")["classes"]
    assert {"name": "accuracy", "higher_is_better": True, "unit": "share"} in task["metrics"]
    fits = {fit["name"]: fit for fit in caller.one("list", "--for", "small.yaml")["techniques"]}
    assert fits["LoRA"]["fits"] == "yes" and fits["DANN"]["reason"]
    error = caller.one("list", "Lorra", code=2)["error"]
    assert "LoRA" in error["how"] and error["place"] is None


def test_status__is_of_every_cell(caller: Caller) -> None:
    (caller.folder / "search.yaml").write_text("study: small.yaml\ntrials: 1\n")
    assert "nothing of the sweep" in caller.one("status", "search.yaml", code=2)["error"]["what"]
    done = warm_processes.run("ftlab.cli", "sweep", "search.yaml", "--only", "probe", folder=caller.folder)
    assert done.returncode == 0, done.stderr
    status = caller.one("status", "search.yaml")
    cells = {cell["technique"]: cell for cell in status["cells"]}
    assert cells["probe"]["ended"] == 1 and cells["probe"]["own"] == cells["probe"]["best"]
    assert cells["norms"]["ended"] == 0 and cells["norms"]["best"] is None and not status["over"]


def test_doctor__says_whether_all_is_well(caller: Caller) -> None:
    report = caller.one("doctor")
    assert report["ok"] is True and any(check["what"].startswith("Python") for check in report["checks"])


def test_compare__of_a_study_with_itself_nothing_moved(caller: Caller) -> None:
    drift = caller.one("compare", "results/small", "results/small")
    assert drift["equal"] and not drift["moved"] and len(drift["changes"]) == 2
    assert drift["changes"][0]["difference"] == 0.0


def test_predict__is_a_row_an_example(caller: Caller) -> None:
    (caller.folder / "new.csv").write_text("text,label\na good film,\nan awful plot,\n")
    answer = caller.one("predict", "small.yaml", "new.csv", "--best")
    assert [row["text"] for row in answer["predictions"]] == ["a good film", "an awful plot"]
    scores = [value for key, value in answer["predictions"][0].items() if key.startswith("score ")]
    assert sum(scores) == pytest.approx(1.0, abs=1e-6)


def test_options__that_are_wrong_are_objects_too(caller: Caller) -> None:
    assert "--jsn" in caller.one("doctor", "--jsn", code=2)["error"]["what"]
    assert caller.one("run", "small.yaml", "--seeds", "a", code=2)["error"] == {
        "what": "not whole numbers", "how": "--seeds 0,1,2", "place": "--seeds a"}


def test_events__that_are_rare(caller: Caller, capfd: pytest.CaptureFixture[str]) -> None:
    """What these runs do not have: other runs than planned, one that vanished, one of another command, a look."""
    capfd.readouterr()
    with alone_on_stdout(True):
        display = EventDisplay()
        display.start("small", 0, {"lora": 1})
        os.write(1, b"a library prints\n")
        display.note("wait")
        display.say("a look at three seeds")
        display.expect({"lora": 2})
        display.run_started("a", "lora")
        display.run_dropped("a")
        display.run_ended_elsewhere("a", "lora", "FINISHED")
        display.close()
    output, errors = capfd.readouterr()
    events = [json.loads(line) for line in output.splitlines()]
    assert "a library prints" in errors
    assert [event["event"] for event in events] == [
        "start", "note", "say", "expect", "run_started", "run_dropped", "run_ended"]
    assert events[3]["total"] == 2 and events[-1]["finished"] == 1
    caller.heard["run"] += events


@pytest.mark.parametrize("name", BAD)
def test_place__is_apart_from_what_is_wrong(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each wrong study: the file, its line and the keys, which the file has."""
    from ftlab.studies.study import load_study

    monkeypatch.chdir(tmp_path)
    study = {"name": "x", "backbones": {"b": "HuggingFace"}, "datasets": {"d": "TextClassification"},
             "techniques": {"a": "LoRA"}, **BAD[name][0]}
    study["backbones"] = {"b": {"class_path": "HuggingFace", "init_args": {"source": "s"}}}
    if "datasets" not in BAD[name][0]:
        study["datasets"] = {"d": {"class_path": "TextClassification", "init_args": {"train": "t"}}}
    Path("my study.yaml").write_text(yaml.safe_dump(study))
    with pytest.raises(InputError) as caught:
        load_study(Path("my study.yaml"))
    error = caught.value
    found = re.fullmatch(r"my study\.yaml(?::(\d+))?(?:: (\S+))?", error.place)
    assert found, error.what
    top = (found[2] or "techniques").partition(".")[0]
    assert top in study, "keys of the file, and no word of the problem"
    assert f"{error.place}: {error.problem}" == error.what and error.problem


@pytest.mark.parametrize(("what", "place"), [
    ("reviews.csv, row 3: the label is missing", "reviews.csv, row 3"),
    ("data/a b.conll, line 12: no tag", "data/a b.conll, line 12"),
    ("--set techniques.a.rank=x: no such key", "--set techniques.a.rank=x"),
    ("s.yaml:4: techniques.lora.on.bbc from minilm.lr: expected a number",
     "s.yaml:4: techniques.lora.on.bbc from minilm.lr"),
    ("study small: nothing is tracked", ""),
    ("another command holds all that is left", ""),
])
def test_place__of_data_options_and_of_none(what: str, place: str) -> None:
    assert InputError(what).place == place
    assert InputError(what).problem == what.removeprefix(f"{place}: " if place else "")


def documented() -> dict[str, set[str]]:
    """Keys by command; `a.b`, `.c` in one field is `a.b` and `a.c`."""
    found: dict[str, set[str]] = {}
    for section in DOCS.read_text().split("\n## ")[1:]:
        command, _, text = section.partition("\n")
        for field in re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE):
            base = ""
            for key in re.findall(r"`([^`]+)`", field):
                full = base + key if key.startswith(".") else key
                base = full.rpartition(".")[0] if not key.startswith(".") else base
                found.setdefault(command, set()).add(full)
    return found


def paths(value: Any, known: set[str], at: str = "") -> Iterator[str]:
    """Dotted keys of an object; of a mapping by free names `.*`."""
    if isinstance(value, dict):
        if f"{at}.*" in known:
            yield f"{at}.*"
            return
        for key, part in value.items():
            yield from paths(part, known, f"{at}.{key}" if at else key)
    elif isinstance(value, list):
        at = f"{at}[]"
        for part in value:
            yield from paths(part, known, at)
        if not value:
            yield at
    else:
        yield at


def test_docs__have_each_key_and_no_other(caller: Caller) -> None:
    """After all others of this module: what they have heard, against docs/programs.md."""
    if len(caller.heard) < 8:
        pytest.skip("the other tests of this module have not run")
    docs = documented()
    assert docs.keys() >= caller.heard.keys()
    for command, answers in caller.heard.items():
        known, seen = docs[command], set()
        for answer in answers:
            if "error" in answer and command != "check":
                assert answer["error"].keys() == {"what", "how", "place"}
                continue
            event = answer.pop("event", None)
            keys = known if event is None else docs["table"] | known
            if event == "result":
                seen |= {"result.failures[]"} & {f"result.{key}" for key in paths(answer, keys)}
                assert {*paths(answer, keys)} - {"failures[]"} <= {*docs["table"], *nullable(docs["table"])}
                continue
            seen |= {*paths({event: answer} if event else answer, keys)}
        open_ = nullable(known)
        assert seen <= known | open_, f"{command}: not in docs"
        assert {key for key in known if not {key, *nullable({key})} & seen} <= RARE.get(command, set()), \
            f"{command}: in docs alone"


RARE = {"compare": {"costs[].*"}}
"""Keys that a study compared with itself does not have."""


def nullable(keys: set[str]) -> set[str]:
    """What stands where there is nothing: null for a mapping, an empty list for a list of objects."""
    less = {key.removesuffix(".*") for key in keys}
    return less | {key.partition("[]")[0] + "[]" for key in keys if "[]" in key}
