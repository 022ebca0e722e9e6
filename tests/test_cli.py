"""The front door: the command line on real files, as a new user would use it."""

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import warm_processes
import yaml
from processes import begin, said

import ftlab

UNRENDERED = True
FTLAB = [sys.executable, "-m", "ftlab.cli"]


@pytest.fixture
def study(tmp_path: Path, tiny_bert: Path, reviews: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "small",
                "question": "Does it work?",
                "backbones": {
                    "bert": {
                        "class_path": "HuggingFace",
                        "init_args": {"source": str(tiny_bert), "pooling": "mean"},
                    }
                },
                "datasets": {
                    "reviews": {
                        "class_path": "TextClassification",
                        "init_args": {"train": str(reviews), "max_length": 32, "batch_size": 8},
                    }
                },
                "techniques": {
                    "probe": {"class_path": "LinearProbe", "init_args": {"lr": 0.03}},
                    "lora": {"class_path": "LoRA", "init_args": {"lr": 0.01}},
                },
                "seeds": [0, 1],
                "trainer": {"max_epochs": 2},
            },
            sort_keys=False,
        )
    )
    return path


Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Runs `ftlab ARGUMENTS` in a folder of its own; its store is that folder's `mlflow.db`."""
    return lambda *arguments, **environment: warm_processes.run(
        "ftlab.cli", *arguments, folder=tmp_path,
        environment={**os.environ, "COLUMNS": "160", **environment})


Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def quick(here: Here, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`call` in this process, where the imports are done."""
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(arguments, *here(*arguments))

    return run


def runs(folder: Path) -> list[dict[str, str]]:
    with (folder / "results" / "small" / "runs.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_help__is_fast() -> None:
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*FTLAB, "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # Half a second of the processor's time, which other work makes little longer.
    assert min(took) < 1.0
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ftlab.cli", "--help"],
        check=True, capture_output=True, text=True,
    ).stderr  # fmt: skip
    for heavy in ("torch", "mlflow", "lightning", "transformers", "pandas"):
        assert f" {heavy}\n" not in loaded


def test_run__table_store_and_nothing_twice(
    study: Path, call: Call, quick: Call, tmp_path: Path, rendered: None
) -> None:
    first = subprocess.run(  # a process of its own, as a shell starts it
        [*FTLAB, "run", study], cwd=tmp_path, env={**os.environ, "COLUMNS": "160"},
        capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    assert "probe on reviews from bert, seed 1" in first.stdout
    assert "ftlab ui" in first.stdout
    assert {path.name for path in (tmp_path / "results" / "small").iterdir()} == {
        "runs.csv", "table.md", "table.tex", "table.csv", "table.html", "provenance.json", "figures",
        "study.yaml", "tests.csv", "references.bib",
    }  # fmt: skip
    rows = runs(tmp_path)
    assert [(r["technique"], r["seed"], r["status"]) for r in rows] == [
        ("probe", "0", "FINISHED"), ("probe", "1", "FINISHED"),
        ("lora", "0", "FINISHED"), ("lora", "1", "FINISHED"),
    ]  # fmt: skip
    assert all(0 <= float(row["test/accuracy"]) <= 1 for row in rows)
    assert int(float(rows[0]["cost/trainable_parameters"])) == 32 * 2 + 2
    assert all(float(row["cost/checkpoint_bytes"]) > 0 for row in rows)

    before = {p.name: p.read_bytes() for p in (tmp_path / "results/small").iterdir() if p.is_file()}
    again = call("run", study)
    assert again.returncode == 0, again.stderr
    assert "4 of 4 runs are finished already" in again.stdout
    assert [row["run_id"] for row in runs(tmp_path)] == [row["run_id"] for row in rows]
    table = call("table", study)
    assert table.returncode == 0, table.stderr
    after = {p.name: p.read_bytes() for p in (tmp_path / "results/small").iterdir() if p.is_file()}
    assert before == after

    figures = tmp_path / "results" / "small" / "figures"
    drawn = (figures / "scores.pdf").read_bytes()
    (figures / "scores.pdf").unlink()
    plot = quick("plot", study, "--only", "scores")
    assert plot.returncode == 0, plot.stderr
    assert "Bars: the table's 95% interval" in " ".join(plot.stdout.split())
    assert (figures / "scores.pdf").read_bytes() == drawn
    assert (figures / "confusion_matrices.png").exists()

    provenance = json.loads(before["provenance.json"])
    assert len(provenance["datasets"]["reviews"]) == 64
    assert "torch" in provenance["environments"][0]["versions"]


def test_run__a_third_seed_is_added_to_the_others(study: Path, quick: Call, tmp_path: Path) -> None:
    assert quick("run", study, "--only", "probe", "--seeds", "0").returncode == 0
    more = quick("run", study, "--only", "probe", "--seeds", "0,5")
    assert "1 of 2 runs are finished already" in more.stdout
    assert [row["seed"] for row in runs(tmp_path)] == ["0", "5"]


def test_run__a_failed_run_fails_alone(study: Path, quick: Call, tmp_path: Path) -> None:
    done = quick(
        "run", study, "--set", "techniques.lora.init_args.lr=1e30", "--set",
        "trainer.gradient_clip=null", "--set", "techniques.lora.init_args.optim.warmup=0",
        "--seeds", "0",
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    status = {row["technique"]: row["status"] for row in runs(tmp_path)}
    assert status == {"probe": "FINISHED", "lora": "FAILED"}
    assert "non-finite loss" in done.stderr
    assert "1 failed" in (tmp_path / "results" / "small" / "table.md").read_text()
    output = done.stderr.split("(output: ")[1].split(")")[0]
    assert "GuardFailed" in Path(output).read_text()


def test_run__all_failed_still_shows_the_gaps(study: Path, quick: Call) -> None:
    done = quick(
        "run", study, "--only", "probe", "--seeds", "0", "--set", "trainer.gradient_clip=null",
        "--set", "techniques.probe.init_args={lr: 1e38, solver: null}",
        "--set", "trainer.max_epochs=3",
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed" in done.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_run__interrupted_continues(
    study: Path, quick: Call, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = begin(tmp_path, "run", study, "--only", "lora", "--set", "trainer.max_epochs=150")
    (events,) = wait_for(lambda: [*tmp_path.glob("results/small/.work/*seed0/events.jsonl")], process)
    wait_for(lambda: '"phase": "fit"' in events.read_text(), process)
    process.send_signal(number)
    assert process.wait(300) == code, said(tmp_path)
    assert "the same command continues" in said(tmp_path)
    assert statuses(tmp_path) == ["KILLED"]
    left = list(tmp_path.glob("results/small/.work/*"))
    assert all((folder / "state" / "states.json").exists() for folder in left)
    assert not children(tmp_path)
    assert quick("run", study, "--only", "probe", "--seeds", "0").returncode == 0
    assert left == list(tmp_path.glob("results/small/.work/*"))  # to go on from


def test_run__kill_costs_the_run_in_progress_alone(study: Path, quick: Call, tmp_path: Path) -> None:
    assert quick("run", study, "--seeds", "0", "--only", "probe").returncode == 0
    finished = runs(tmp_path)[0]["run_id"]
    process = begin(tmp_path, "run", study, "--only", "probe", "--seeds", "0,1")
    wait_for(lambda: any(tmp_path.glob("results/small/.work/*seed1/events.jsonl")), process)
    process.kill()
    process.wait()
    wait_for(lambda: not children(tmp_path), None)  # the workers end with their coordinator
    done = quick("run", study, "--only", "probe", "--seeds", "0,1")
    assert done.returncode == 0, done.stderr
    rows = runs(tmp_path)
    assert [(row["seed"], row["status"]) for row in rows] == [("0", "FINISHED"), ("1", "FINISHED")]
    assert rows[0]["run_id"] == finished
    assert sorted(statuses(tmp_path)) == ["FINISHED", "FINISHED", "KILLED"]


def test_run__a_killed_worker_fails_its_run_alone(study: Path, tmp_path: Path) -> None:
    process = begin(tmp_path, "run", study, "--plain", "--only", "probe", "--set", "seeds=[0, 1]")
    wait_for(lambda: any(tmp_path.glob("results/small/.work/*seed0/events.jsonl")), process)
    leader = [pid for pid in children(tmp_path) if os.getpgid(pid) == pid and os.getsid(pid) == pid]
    os.kill(max(leader), signal.SIGKILL)
    assert process.wait(300) == 1, said(tmp_path)
    assert "killed by SIGKILL" in said(tmp_path)
    assert [row["status"] for row in runs(tmp_path)] == ["FAILED", "FINISHED"]


def test_run__changed_data_does_not_join_old_runs(
    study: Path, quick: Call, tmp_path: Path, reviews: Path
) -> None:
    own = tmp_path / "own.csv"
    own.write_text(reviews.read_text())
    option = f"datasets.reviews.init_args.train={own}"
    assert quick("run", study, "--only", "probe", "--seeds", "0", "--set", option).returncode == 0
    own.write_text(reviews.read_text() + "a very good film,good\n")
    done = quick("run", study, "--only", "probe", "--seeds", "0,1", "--set", option)
    assert done.returncode == 2
    assert "the dataset has changed since seed 0 ran" in done.stderr


def test_run__ddp_on_two_processes(study: Path, quick: Call, tmp_path: Path) -> None:
    done = quick(
        "run", study, "--seeds", "0", "--set", "trainer.devices=2", "--set",
        "trainer.accelerator=cpu", "--set", "techniques.lora=GradualUnfreezing",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row["status"] for row in runs(tmp_path)] == ["FINISHED", "FINISHED"]


TECHNIQUE = '''
from ftlab.backbones.task_model import TaskModel
from ftlab.techniques.base import Optimization, Technique, freeze_all_but_head


class LastBias(Technique):
    """Train the head and the last block's biases.

    Args:
        lr: peak learning rate.
        optim: optimizer, weight decay and schedule.
    """

    def __init__(self, lr: float = 1e-2, optim: Optimization = Optimization()) -> None:
        super().__init__(lr, optim)

    def adapt(self, model: TaskModel) -> None:
        freeze_all_but_head(model)
        for name, parameter in model.blocks[-1].named_parameters():
            parameter.requires_grad_(name.endswith("bias"))
'''


def test_new_technique__is_one_file_in_the_room(study: Path, call: Call, tmp_path: Path) -> None:
    shutil.copytree(Path(ftlab.__file__).parent, tmp_path / "house" / "ftlab")
    (tmp_path / "house" / "ftlab" / "techniques" / "last_bias.py").write_text(TECHNIQUE)
    house = {"PYTHONPATH": str(tmp_path / "house")}
    assert "  LastBias: Train the head and the last block's biases." in call("list", **house).stdout
    option = "techniques={mine: {class_path: LastBias, init_args: {lr: 2.0e-2}}}"
    done = call("run", study, "--set", option, "--seeds", "0", **house)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [(row["technique"], row["status"]) for row in runs(tmp_path)] == [("mine", "FINISHED")]


def test_allow__admits_a_module_of_the_current_folder_and_no_other(
        study: Path, here: Here, tmp_path: Path) -> None:
    """As somebody does who has read the README: `last_bias.py` beside the study, `--allow last_bias`."""
    (tmp_path / "last_bias.py").write_text(TECHNIQUE)
    for name in ("datasets", "peft", "wandb"):  # what libraries look for, in the runs' processes too
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py was imported')\n")
    option = ("--set", "techniques={mine: last_bias.LastBias}")
    assert "with --allow last_bias" in here("check", study, *option)[2]
    unknown = here("check", study, "--set", "techniques={mine: LastBias}")[2]
    assert "a class of yours needs --allow MODULE" in unknown
    assert "--allow last_bias, in the folder" in here("check", study, "--allow", "last_bias.py")[2]
    assert "--allow peft: there is one here, and another in" in here(
        "check", study, "--allow", "peft")[2]
    allowed = (*option, "--allow", "last_bias")
    code, output, errors = here("run", study, *allowed, "--seeds", "0")
    assert code == 0, output + errors
    [row] = runs(tmp_path)
    assert (row["technique"], row["status"]) == ("mine", "FINISHED")
    assert here("table", study, *allowed)[0] == 0
    (tmp_path / "new.csv").write_text("text\ngood film\n")
    code, output, errors = here("predict", row["run_id"], "new.csv", "--allow", "last_bias")
    assert code == 0, errors
    assert "LastBias" in here("list", "techniques", "--allow", "last_bias")[1]


def test_dry_run__writes_nothing(study: Path, here: Here, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    code, output, errors = here("run", study, "--dry-run")
    assert code == 0, errors
    assert "2 cells x 2 seeds = 4 runs" in output
    assert " 66 " in output, "the probe's parameters"
    assert "Computed once:" in output and "without shortcuts" in output
    assert set(tmp_path.iterdir()) == before


REFUSED: dict[str, tuple[list[str], str]] = {
    "misspelt key": (["--set", "sedes=[0]"], "did you mean 'seeds'"),
    "unknown technique": (["--only", "lorra"], "did you mean 'lora'"),
    "seeds": (["--seeds", "a"], "--seeds a: not whole numbers"),
    "no file": (["--set", "datasets.reviews.init_args.train=none.csv"], "none.csv"),
    "no column": (["--set", "datasets.reviews.init_args.text=txt"], "did you mean 'text'"),
    "metric": (["--set", "select_by=val/acuracy"], "did you mean 'accuracy'"),
    "too long": (["--set", "datasets.reviews.init_args.max_length=64"], "set max_length: 32"),
    "range": (["--set", "trainer.max_epochs=0"], "max_epochs must be at least 1, got 0"),
    "weights": (["--set", "backbones.bert.init_args.sha256=abc"], "sha256"),
    "store": (["--tracking-uri", "file:./mlruns"], "sqlite:///"),
    "network": (
        ["--set", "techniques.lora=PrefixTuning", "--set",
         "backbones.bert={class_path: Torchvision, init_args: {name: resnet18, weights: null}}"],
        "yields texts",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_run__refuses_before_anything_is_written(
    case: str, study: Path, here: Here, tmp_path: Path
) -> None:
    options, said = REFUSED[case]
    refused(here, tmp_path, ["run", str(study), *options], said)


GOOD = b"text,label\n" + b"fine plot,good\npoor plot,bad\n" * 10
FILES: dict[str, tuple[dict[str, bytes], list[str], str]] = {
    "label that train lacks": (
        {"a.csv": GOOD, "b.csv": b"text,label\nfilm,ugly\n"},
        ["train=a.csv", "test=b.csv"], "label 'ugly' does not occur in train",
    ),
    "too few examples to split": (
        {"a.csv": GOOD + b"film,rare\n"}, ["train=a.csv"], "'rare'",
    ),
    "empty text": ({"a.csv": GOOD + b",good\n"}, ["train=a.csv"], "empty"),
    "empty file": ({"a.csv": b""}, ["train=a.csv"], "a.csv"),
    "empty text file": (
        {**{f"f/{c}/{i}.txt": b"x" for c in "ab" for i in range(8)}, "f/a/9.txt": b""},
        ["train=f"], "9.txt",
    ),
    "one class": ({"a.csv": b"text,label\n" + b"film,good\n" * 20}, ["train=a.csv"], "two classes"),
    "no class folders": ({"f/a.txt": b"x"}, ["train=f"], "f"),
    "unknown kind of file": ({"a.docx": b"x"}, ["train=a.docx"], ".docx"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_run__refuses_bad_files(case: str, study: Path, here: Here, tmp_path: Path) -> None:
    files, settings, said = FILES[case]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    options = [f"--set=datasets.reviews.init_args.{setting}" for setting in settings]
    refused(here, tmp_path, ["run", str(study), *options], said)


def test_run__refuses_an_image_that_does_not_decode(
    study: Path, here: Here, tmp_path: Path, tiny_resnet: Path, shapes: Path
) -> None:
    shutil.copytree(shapes, tmp_path / "shapes")
    (tmp_path / "shapes" / "left" / "00.png").write_bytes(b"no image")
    data = "datasets.reviews={class_path: ImageClassification, init_args: {train: shapes}}"
    backbone = f"backbones.bert={{class_path: HuggingFace, init_args: {{source: {tiny_resnet}}}}}"
    refused(here, tmp_path, ["run", str(study), "--set", data, "--set", backbone], "00.png")


def test_run__refuses_prompts_for_a_cnn(
    study: Path, here: Here, tmp_path: Path, tiny_resnet: Path, shapes: Path
) -> None:
    data = f"datasets.reviews={{class_path: ImageClassification, init_args: {{train: {shapes}}}}}"
    backbone = f"backbones.bert={{class_path: HuggingFace, init_args: {{source: {tiny_resnet}}}}}"
    options = ["--set", data, "--set", backbone, "--set", "techniques.lora=PromptTuning"]
    refused(here, tmp_path, ["run", str(study), *options], "needs a text encoder or decoder")


def test_run__refuses_a_full_disk(
    study: Path, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    refused(here, tmp_path, ["run", str(study)], "0.0 GB free, and the study needs about 0.1 GB")


def refused(here: Here, folder: Path, arguments: list[str], said: str) -> None:
    """One line of what, one of how, exit code 2, nothing written."""
    before = set(folder.rglob("*"))
    code, _, errors = here(*arguments)
    assert code == 2, errors
    assert said in errors
    assert "Traceback" not in errors
    what, *mend = errors.strip().splitlines()
    assert what.startswith("error: ")
    assert len(mend) == 1
    assert mend[0].startswith("  mend: ")
    assert set(folder.rglob("*")) == before


def test_check__every_file_is_looked_at(study: Path, here: Here, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: bad\n")
    code, output, errors = here("check", bad, study)
    assert code == 2
    assert "backbones: at least one is needed" in errors
    assert "small.yaml: ok, 2 cells, 4 runs" in output


def test_check__a_sweep_file_and_its_study(study: Path, here: Here, tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(f"study: {study}\ntrials: 3\n")
    _, output, _ = here("check", file, study)
    assert "search.yaml: ok, 2 cells, 6 trials" in output
    assert "small.yaml: ok, 2 cells, 4 runs" in output
    file.write_text(f"study: {study}\ntrial: 3\n")
    code, _, errors = here("check", file)
    assert code == 2 and "search.yaml:2: trial: unknown key" in errors
    file.write_text(f"study: {study}\n")
    _, output, _ = here("check", file, "--set", "trials=2", "--set", "techniques.new=BitFit")
    assert "search.yaml: ok, 3 cells, 6 trials" in output  # a key of the sweep, and one of its study
    code, _, errors = here("check", file, "--set", "trails=2")
    assert code == 2 and "trails: unknown key" in errors


def test_check__devices_that_are_not_here(study: Path, here: Here) -> None:
    code, _, errors = here("check", study, "--set", "trainer.accelerator=gpu")
    assert code == 2 and "this machine has no GPU" in errors
    assert "mend: set trainer: {accelerator: auto}" in errors


def test_version(here: Here) -> None:
    code, output, _ = here("--version")
    assert code == 0 and output == f"ftlab {metadata.version('ftlab')}\n"


def test_table__without_runs(study: Path, here: Here) -> None:
    code, _, errors = here("table", study)
    assert code == 2
    assert "run a study first" in errors


def test_list__shows_rooms_and_arguments(here: Here) -> None:
    _, everything, _ = here("list")
    for name in ("FullFineTuning", "Classification", "TextClassification", "Torchvision"):
        assert f"  {name}: " in everything
    assert "DataModule:" not in everything
    assert "      rank (int) = 8: inner width of the update." in here("list", "techniques")[1]
    tasks = here("list", "tasks")[1].partition("\nloss:\n")
    assert "      loss = None [ClassBalanced | " in tasks[0]
    assert "  Focal: " in tasks[2] and "      gamma (float) = 2.0: how strongly easy" in tasks[2]
    data = here("list", "data")[1]
    assert "\nsampling:\n  Balanced: " in data and "      validation (float) = 0.1: fraction for" in data
    code, _, errors = here("list", "technique")
    assert code == 2
    assert "did you mean 'techniques'" in errors


def test_doctor__looks_at_versions_and_store(here: Here) -> None:
    code, output, _ = here("doctor")
    assert code == 0, output
    assert "ok   lightning" in output and "ok   extras installed: " in output and "ok   Python 3" in output
    code, output, _ = here("doctor", "--tracking-uri", "file:./mlruns")
    assert code == 1
    assert "BAD  tracking store" in output


def wait_for(ready: Callable[[], Any], process: warm_processes.Process | None) -> Any:
    """What `ready` gives once it gives something, while the process lives."""
    until = time.monotonic() + 300
    while not (given := ready()):
        assert time.monotonic() < until, "nothing happened"
        assert process is None or process.poll() is None, "it has ended"
        time.sleep(0.02)
    return given


def children(folder: Path) -> list[int]:
    """Processes whose current folder is `folder`, but for this one."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "cwd").readlink() == folder:
                found.append(int(process.name))
        except OSError:  # it has ended, or is another user's
            continue
    return [pid for pid in found if pid != os.getpid()]


def statuses(folder: Path) -> list[str]:
    from ftlab.tracking.tracker import Tracker

    client = Tracker(f"sqlite:///{folder / 'mlflow.db'}")._client
    experiment = client.get_experiment_by_name("small")
    found = client.search_runs([experiment.experiment_id], "tags.`ftlab.kind` = 'run'")
    return [run.info.status for run in found]
