"""From a stored run to a folder, a table and a registered model: the front door, and what it refuses."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
import transformers
import yaml
from exported import restored
from hub_server import Hub, hub
from huggingface_hub import ModelCard
from matrix import make_world
from mlflow import MlflowClient
from scripted import HereEngine

import ftlab
from ftlab.errors import FtlabError, Incompatible, InputError
from ftlab.exports.export import write_model
from ftlab.tracking.tracker import Tracker

UNRENDERED = True
TOKEN = "hf_" + "x1Y2" * 9
Stored = SimpleNamespace


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, reviews: Path,
           empty_store: Path) -> Stored:
    """A study of two techniques and two seeds, run and stored."""
    root = tmp_path_factory.mktemp("stored")
    shutil.copy(empty_store, root / "mlflow.db")
    backbone = root / "bert"
    shutil.copytree(tiny_bert, backbone)
    table = root / "reviews.csv"
    shutil.copy(reviews, table)
    study = root / "small.yaml"
    study.write_text(yaml.safe_dump({
        "name": "small",
        "backbones": {"bert": {"class_path": "HuggingFace",
                               "init_args": {"source": str(backbone), "pooling": "mean"}}},
        "datasets": {"reviews": {"class_path": "TextClassification", "init_args": {
            "train": str(table), "max_length": 20, "batch_size": 8}}},
        "techniques": {"lora": {"class_path": "LoRA", "init_args": {"lr": 0.01}},
                       "adapter": "BottleneckAdapter"},
        "seeds": [0, 1], "trainer": {"max_epochs": 1, "accelerator": "cpu"}}))
    uri = f"sqlite:///{root / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        outcome = ftlab.run_study(ftlab.load_study(study), uri, root / "results",
                                  engine=HereEngine())
    assert outcome.finished == 4, outcome.failures
    cells = Tracker(uri).cells("small")
    ids = {cell.key.technique: [run.run_id for run in cell.runs] for cell in cells}
    return SimpleNamespace(root=root, uri=uri, backbone=backbone, table=table, ids=ids,
                           lora=ids["lora"][0], adapter=ids["adapter"][0],
                           runs={run.run_id: run for cell in cells for run in cell.runs})


def artifacts(stored: Stored, run_id: str) -> Path:
    return next(stored.root.glob(f"mlartifacts/**/{run_id}/artifacts"))


def header(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_export__adapter_and_card(stored: Stored, here: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    code, output, errors = here("export", stored.lora[:10], "--out", folder,
                                "--tracking-uri", stored.uri)
    assert code == 0, errors
    assert "PEFT adapter" in output
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors", "head.safetensors",
            "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    assert os.listdir(folder.parent) == ["model"]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}
    said, card = header(folder), (folder / "README.md").read_text()
    assert "license" not in said
    assert said["library_name"] == "peft"
    assert "pipeline_tag" not in said, "its head is on pooled features, where no pipeline looks"
    assert "of random weights" in card
    run = stored.runs[stored.lora]
    metrics = {each["type"]: each["value"] for each in said["model-index"][0]["results"][0]["metrics"]}
    assert metrics["accuracy"] == run.metrics["test/accuracy"]
    assert "one of 2 seeds" in card
    assert run.run_id in card
    assert run.tags["ftlab.backbone_sha256"] in card
    assert "technique.init_args.lr: 0.01" in card


def test_export__merged_is_a_folder_of_sentence_transformers(stored: Stored, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    made = ftlab.export_run(stored.lora, tmp_path / "model", merged=True, tracking_uri=stored.uri)
    assert "sentence-transformers" in made.form
    texts = ["the film was very good", "awful cast"]
    given = torch.tensor(library.SentenceTransformer(str(made.folder), device="cpu").encode(texts))
    ours = ftlab.predict(stored.lora, written(tmp_path, texts), stored.uri).columns
    expected = torch.tensor([ours["score bad"], ours["score good"]]).T
    torch.testing.assert_close(given.softmax(dim=-1), expected, rtol=1e-4, atol=1e-5)


def written(folder: Path, texts: list[str]) -> Path:
    path = folder / "new.csv"
    path.write_text("\n".join(["text", *texts]) + "\n")
    return path


# PEFT asks transformers for what this calls outdated
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_onnx__gives_the_same_for_any_batch(stored: Stored, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    made = ftlab.export_run(stored.lora, tmp_path / "model", onnx=True, tracking_uri=stored.uri)
    session = onnxruntime.InferenceSession(str(made.folder / "model.onnx"))
    names: dict = {"folder": str(made.folder)}
    code = (made.folder / "README.md").read_text().split("```python\n")[1].split("\n```")[0]
    exec(code.replace('folder = "."', ""), names)  # noqa: S102  what the card shows
    for texts in (["a film"], ["the plot was quite good and fine", "bad", "a score of the cast"]):
        inputs = names["prepare"](texts)
        with torch.no_grad():
            expected = names["compute"](**inputs)
        given = session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]
        torch.testing.assert_close(torch.tensor(given), expected, rtol=1e-4, atol=1e-4)


def test_predict__is_what_the_run_stored(stored: Stored, here: Callable, tmp_path: Path) -> None:
    rows = pq.read_table(artifacts(stored, stored.adapter) / "predictions/test.parquet").to_pylist()
    texts = stored.table.read_text().splitlines()[1:]
    lines = [texts[int(row["id"].split(":")[1]) - 1] for row in rows]
    table = tmp_path / "test.csv"
    table.write_text("\n".join(["text,label", *lines]) + "\n")
    said = ftlab.predict(stored.adapter, table, stored.uri)
    assert list(said.frame()) == list(said.columns)
    assert said.columns["target"] == [row["target"] for row in rows]
    assert said.columns["prediction"] == [row["prediction"] for row in rows]
    for place, name in enumerate(("bad", "good")):
        assert said.columns[f"score {name}"] == pytest.approx(
            [row["scores"][place] for row in rows], abs=1e-6)
    accuracy = stored.runs[stored.adapter].metrics["test/accuracy"]
    assert said.metrics["accuracy"] == pytest.approx(accuracy)

    bare = written(tmp_path, [line.split(",")[0] for line in lines])
    for name in ("out.csv", "out.parquet"):
        code, output, errors = here("predict", stored.adapter, bare, "--out", name,
                                    "--tracking-uri", stored.uri)
        assert code == 0, errors
        assert output == f"{name}: {len(rows)} predictions\n"
    found = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert list(found) == ["id", "text", "prediction", "score bad", "score good"]
    assert found["prediction"] == said.columns["prediction"]
    with (tmp_path / "out.csv").open() as file:
        assert [row["prediction"] for row in csv.DictReader(file)] == found["prediction"]
    code, output, _ = here("predict", stored.adapter, bare, "--tracking-uri", stored.uri)
    assert code == 0
    assert "new:1" in output


LOAD = """
import sys
sys.modules["ftlab"] = None
import json, mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/bbc best/1")
table = model.predict(pandas.DataFrame({"text": ["a good film", "awful"]}))
json.dump(table.to_dict("list"), open(sys.argv[2], "w"))
"""


def test_register__loads_in_a_fresh_process(stored: Stored, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(stored.uri, stored.uri)
    before = client.get_run(stored.lora).info
    made = ftlab.export_run(stored.lora, register="bbc best", merged=True, tracking_uri=stored.uri)
    assert (made.version, made.folder) == ("bbc best/1", None)
    version = client.get_model_version("bbc best", "1")
    assert version.run_id == stored.lora
    run = client.get_run(stored.lora)
    model_id = run.outputs.model_outputs[0].model_id
    assert version.source == client.get_logged_model(model_id).artifact_location
    assert (run.info.status, run.info.end_time) == (before.status, before.end_time)
    files = [p.name for p in stored.root.glob(f"mlartifacts/**/{model_id}/**/*")]
    assert "model.py" in files
    assert "input_example.json" in files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".bin", ".pt"))]

    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    done = subprocess.run([sys.executable, "-c", LOAD, stored.uri, tmp_path / "told.json"],
                          cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    ours = ftlab.predict(stored.lora, written(tmp_path, ["a good film", "awful"]), stored.uri)
    for name in ("prediction", "score bad", "score good"):
        assert told[name] == (ours.columns[name] if name == "prediction"
                              else pytest.approx(ours.columns[name], abs=1e-5))
    again = ftlab.export_run(stored.lora, register="bbc best", tracking_uri=stored.uri)
    assert again.version == "bbc best/2"


def test_refused__what_no_other_library_has(stored: Stored, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="modules into the network that BertModel lacks"):
        ftlab.export_run(stored.adapter, tmp_path / "deep" / "model", tracking_uri=stored.uri)
    assert not any(tmp_path.iterdir())


def test_refused__a_head_of_ftlabs_own(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = restored(make_world("text_classification", request.getfixturevalue),
                     "NearestNeighbours", tmp_path / "run")
    (tmp_path / "model").mkdir()
    with pytest.raises(Incompatible, match="in the place of the linear head, which no other library"):
        write_model(model, tmp_path / "model")


def test_masked_images__are_transformers_own(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    world = make_world("masked_images", request.getfixturevalue)
    model = restored(world, "LoRA", tmp_path / "run")
    with pytest.raises(Incompatible, match="mask_token has trained beside the adapter"):
        write_model(model, tmp_path / "model")
    write_model(model, tmp_path / "merged", merged=True)
    batch = next(iter(model.run.data.test_dataloader()))
    network = transformers.AutoModelForMaskedImageModeling.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(network(**batch["inputs"]).reconstruction, model.model.eval()(batch))


def test_disagreement__leaves_nothing(
    stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftlab.exports.head_code._POOLED", {"mean": "hidden[:, 0]"})
    with pytest.raises(FtlabError, match="gives other outputs than ours"):
        ftlab.export_run(stored.lora, tmp_path / "model", tracking_uri=stored.uri)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_out__is_not_overwritten(kind: str, stored: Stored, tmp_path: Path) -> None:
    taken = tmp_path / "model"
    if kind == "folder":
        taken.mkdir()
    (taken / "mine" if kind == "folder" else taken).write_text("mine")
    with pytest.raises(InputError, match="is not empty" if kind == "folder" else "is a file"):
        ftlab.export_run(stored.lora, taken, tracking_uri=stored.uri)
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def other_class(path: Path) -> None:
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"technique": {"class_path": "os.system", "init_args": {}}}))


def other_predictions(path: Path) -> None:
    table = pq.read_table(path).to_pandas()
    table["prediction"] = table["prediction"].map({"good": "bad", "bad": "good"})
    table.to_parquet(path)


def one_row_more(path: Path) -> None:
    path.write_text(path.read_text() + "a film,good\n")


CHANGED = {
    "checkpoint": ("checkpoint/delta.safetensors", flip, "is damaged"),
    "half a manifest": ("checkpoint/manifest.json", lambda path: path.write_text("{"), "no readable"),
    "no manifest": ("checkpoint/manifest.json", Path.unlink, "no readable manifest"),
    "a foreign class": ("checkpoint/manifest.json", other_class, "lies outside ftlab"),
    "predictions": ("predictions/test.parquet", other_predictions, "gives .* otherwise"),
    "backbone": ("bert/model.safetensors", flip, "the backbone's weights have changed since"),
    "data": ("reviews.csv", one_row_more, "the dataset's data have changed since"),
}


@pytest.fixture
def unrecorded(stored: Stored) -> Iterator[None]:
    """The run's files have no sha256 in its record, as in a store of an earlier ftlab."""
    client = MlflowClient(stored.uri)
    tags = {name: value for name, value in client.get_run(stored.lora).data.tags.items()
            if name.startswith("ftlab.sha256.")}
    assert {"checkpoint/manifest.json", "checkpoint/delta.safetensors", "predictions/test.parquet"
            } <= {name.removeprefix("ftlab.sha256.") for name in tags}
    for name in tags:
        client.delete_tag(stored.lora, name)
    yield
    for name, value in tags.items():
        client.set_tag(stored.lora, name, value)


@pytest.mark.parametrize("name", ["checkpoint/manifest.json", "checkpoint/delta.safetensors",
                                  "predictions/test.parquet"])
def test_damaged__is_named_by_export_and_where_it_is_read_by_predict(
    name: str, stored: Stored, here: Callable, tmp_path: Path
) -> None:
    path = artifacts(stored, stored.lora) / name
    kept = path.read_bytes()
    table = written(tmp_path, ["the film was very good"])
    try:
        for harm in (flip, Path.unlink):
            harm(path)
            code, _, errors = here("export", stored.lora, "--out", tmp_path / "model",
                                   "--tracking-uri", stored.uri)
            assert code == 2
            assert errors.startswith(f"error: run {stored.lora}: {name} is damaged: it")
            assert errors.count("\n") == 2
            code, _, errors = here("predict", stored.lora, table, "--tracking-uri", stored.uri)
            assert code == (0 if name.startswith("predictions") else 2), errors
            assert (f"{name} is damaged" in errors) is bool(code)
    finally:
        path.write_bytes(kept)
    assert {each.name for each in tmp_path.iterdir()} == {"new.csv"}


@pytest.mark.usefixtures("unrecorded")
@pytest.mark.parametrize("case", CHANGED)
def test_changed_since__refused(case: str, stored: Stored, tmp_path: Path) -> None:
    name, change, message = CHANGED[case]
    beside = name.startswith(("bert", "reviews"))
    path = (stored.root if beside else artifacts(stored, stored.lora)) / name
    kept, times = path.read_bytes(), path.stat()
    try:
        change(path)
        with pytest.raises(FtlabError, match=message) as caught:
            ftlab.export_run(stored.lora, tmp_path / "model", tracking_uri=stored.uri)
    finally:
        path.write_bytes(kept)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "\n" not in caught.value.what
    assert caught.value.mend
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def unfit(stored: Stored) -> dict[str, str]:
    """Runs without a model, by what is wrong with them."""
    from ftlab.tracking.records import CellKey
    from ftlab.tracking.tracker import Tracker

    tracker = Tracker(stored.uri)
    tracker.open_study("broken", {})
    key = CellKey("broken", "b", "d", "t", "c")
    cell = tracker.open_cell(key, {}, [0, 1], 0)
    failed, bare = (tracker.open_run(cell, seed, {}) for seed in (0, 1))
    tracker.end_run(failed, "FAILED", "out of memory")
    tracker.end_run(bare, "FINISHED")
    sweep = tracker.open_sweep(key, "s")
    trial = tracker.open_trial(sweep, 0, 1, {}, {})
    tracker.close()
    return {"failed": failed, "bare": bare, "cell": cell, "sweep": sweep, "trial": trial,
            "unknown": "0" * 32, "no id": "lora seed 0", "prefix of none": "0000"}


@pytest.mark.parametrize(("kind", "message"), [
    ("failed", "is FAILED: out of memory"), ("bare", "has no checkpoint"),
    ("cell", "is a cell, whose runs have a model each"), ("sweep", "keep no checkpoint"),
    ("trial", "is a trial of a sweep"), ("unknown", "no run 0000"), ("no id", "not an id"),
    ("prefix of none", "no run 0000 in"),
])
def test_run__without_a_model_is_refused(
    kind: str, message: str, stored: Stored, unfit: dict[str, str], tmp_path: Path
) -> None:
    for call in (lambda: ftlab.export_run(unfit[kind], tmp_path / "m", tracking_uri=stored.uri),
                 lambda: ftlab.predict(unfit[kind], stored.table, stored.uri)):
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in caught.value.what
        assert caught.value.mend


def test_run__prefix_of_several(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftlab.tracking.find_run import RunReader

    reader = RunReader(stored.uri)
    runs = [reader._client.get_run(run) for run in stored.ids["lora"]]
    monkeypatch.setattr(RunReader, "_beginning_with", lambda self, wanted: runs)
    with pytest.raises(InputError, match="2 runs begin with abcd") as caught:
        reader.find("abcd")
    assert all(run in caught.value.what for run in stored.ids["lora"])


def test_store__that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tracking store at"):
        ftlab.predict("abcd", "x.csv", f"sqlite:///{tmp_path}/none.db")


@pytest.mark.parametrize(("arguments", "message"), [
    ({}, "neither a folder nor a name"), ({"register": "a/b"}, "is not a name for a model"),
    ({"register": "models:/x"}, "is not a name for a model"),
])
def test_export__arguments(arguments: dict, message: str, stored: Stored) -> None:
    with pytest.raises(InputError, match=message):
        ftlab.export_run(stored.lora, tracking_uri=stored.uri, **arguments)


def test_predict__bad_input(stored: Stored, here: Callable, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("words,label\nx,good\n")
    (tmp_path / "class.csv").write_text("text,label\nx,soso\n")
    for source, message in (("none.csv", "no such file"), ("other.csv", "no column 'text'"),
                            ("class.csv", "'soso' does not occur in train")):
        code, _, errors = here("predict", stored.lora, source, "--tracking-uri", stored.uri)
        assert code == 2
        assert message in errors
    code, _, errors = here("predict", stored.lora, stored.table, "--out", "a.txt",
                           "--tracking-uri", stored.uri)
    assert code == 2
    assert "written as .csv or .parquet" in errors


@pytest.fixture
def a_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on loopback, that huggingface_hub takes for the real one."""
    with hub() as server:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def test_push__sends_what_the_dry_run_shows(stored: Stored, here: Callable, tmp_path: Path, a_hub: Hub) -> None:
    shown = tmp_path / "shown"
    command = ("export", stored.lora, "--merged", "--push", "small", "--tracking-uri", stored.uri)
    code, output, errors = here(*command, "--dry-run", "--out", shown)
    assert code == 0, errors
    assert "Nothing was sent" in output
    assert not a_hub.asked
    code, output, errors = here(*command)
    assert code == 0, errors
    assert f"Sent: {a_hub.url}/me/small" in output
    (made,) = a_hub.made
    assert made["name"] == "small"
    assert made.get("private") or made.get("visibility") == "private", made
    files = {str(path.relative_to(shown)): path.read_bytes() for path in shown.rglob("*") if path.is_file()}
    assert a_hub.files == files
    assert a_hub.tokens == {f"Bearer {TOKEN}"}
    for name, content in files.items():
        assert TOKEN.encode() not in content
        assert str(stored.root).encode() not in content, name
    card = ModelCard(files["README.md"].decode())
    scores = {result.metric_type: result.metric_value for result in card.data.eval_results}
    run = stored.runs[stored.lora]
    assert scores["accuracy"] == run.metrics["test/accuracy"]
    assert scores["cost/train_seconds"] == run.metrics["cost/train_seconds"]
    assert "## How it compares" in card.text
    assert "adapter" in card.text.partition("## How it compares")[2].partition("## Where")[0]


@pytest.mark.parametrize(("status", "code", "message"), [(403, 2, "the hub refuses"), (500, 1, "500")])
def test_push__refused_by_the_hub_is_two_lines(
    stored: Stored, here: Callable, a_hub: Hub, status: int, code: int, message: str,
    monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_little(model: object, folder: Path, *given: object) -> tuple[None, str]:
        (folder / "model.txt").write_text("x")
        return None, "A model."

    monkeypatch.setattr("ftlab.exports.export.write_model", write_little)
    a_hub.refusing = status
    found, _, errors = here("export", stored.lora, "--push", "small", "--tracking-uri", stored.uri)
    assert found == code, errors
    assert message in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(("options", "message"), [
    (("--push", "a/b/c"), "not the name of a repository"), (("--push", "x", "--dry-run"), "add --out DIR")])
def test_push__wrong_names_are_refused_first(here: Callable, options: tuple[str, ...], message: str) -> None:
    code, _, errors = here("export", "0" * 32, *options)
    assert code == 2
    assert message in errors


def test_card__states_the_base_s_licence(stored: Stored, tmp_path: Path) -> None:
    (stored.backbone / "README.md").write_text("---\nlicense: mit\n---\n# A base\n")
    try:
        ftlab.export_run(stored.lora, tmp_path / "model", tracking_uri=stored.uri)
    finally:
        (stored.backbone / "README.md").unlink()
    assert header(tmp_path / "model")["license"] == "mit"
