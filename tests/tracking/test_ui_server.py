import base64
import json
import zlib

import pytest

from ftlab.errors import InputError
from ftlab.tracking import ui_layout
from ftlab.tracking.mlflow_values import LONGEST_TAG
from ftlab.tracking.tracker import Tracker
from ftlab.tracking.ui_server import addresses, environment, ui_command


def test_ui_command__loopback_and_exact_hosts_only(tmp_path):
    (tmp_path / "mlflow.db").touch()
    command = ui_command(f"sqlite:///{tmp_path}/mlflow.db", 5001)
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert options["--host"] == "127.0.0.1"
    assert options["--allowed-hosts"] == "127.0.0.1:5001,localhost:5001"
    assert "*" not in " ".join(command)
    assert options["--backend-store-uri"] == f"sqlite:///{tmp_path}/mlflow.db"


def test_ui_command__a_password_is_not_on_the_command_line():
    assert "s3cr3t" not in " ".join(ui_command("postgresql://me:s3cr3t@host/x", 5001))


@pytest.mark.parametrize("uri", ["http://host:5000", "sqlite:///missing.db"])
def test_ui_command__nothing_to_serve(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError):
        ui_command(uri, 5001)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_ui_command__port_out_of_range(port):
    with pytest.raises(InputError, match="port"):
        ui_command(None, port)


@pytest.mark.parametrize("name", ["MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE",
                                  "MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_STATIC_PREFIX"])
def test_environment__other_servers_settings_do_not_reach_ours(name, monkeypatch):
    monkeypatch.setenv(name, "true")
    monkeypatch.setenv("KEPT", "yes")
    made = environment("postgresql://me:s3cr3t@host/x")
    assert name not in made
    assert made["KEPT"] == "yes"
    assert made["MLFLOW_BACKEND_STORE_URI"] == "postgresql://me:s3cr3t@host/x"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.1"])
def test_ui__takes_no_other_address_to_listen_at(host, here):
    code, output, errors = here("ui", "--host", host)
    assert code == 2
    assert "No such option" in output + errors


def test_ui_command__a_servers_password_is_not_said():
    with pytest.raises(InputError) as caught:
        ui_command("https://me:s3cr3t@host:5000", 5001)
    assert caught.value.mend == "open https://host:5000 in a browser"
    assert "s3cr3t" not in f"{caught.value.what} {caught.value.mend}"


def test_view__is_where_the_experiment_is(tracker, uri, study):
    tracker.set_view(study, "test/accuracy", ["val/f1/a", "best_epoch"])
    tracker.flush()
    experiment = tracker._client.get_experiment_by_name(study)
    state = json.loads(experiment.tags[ui_layout.TAG])
    assert "metrics.`test/accuracy.mean`" in state["selectedColumns"]
    folded = [s["name"] for s in state["compareRunSections"] if not s["display"]]
    assert folded == ["param", "val/f1"]
    assert f"/experiments/{experiment.experiment_id}/runs?" in tracker.view_path(study)


def test_addresses__of_each_study_its_curves_and_sweeps(tracker, uri, study, key):
    with_sweep = Tracker(uri)
    with_sweep.open_study("other", {})
    with_sweep.set_view("other", "test/mse")
    with_sweep.set_sweep_view("other", "quick", {"lora": ["lr"]}, ["val/mse"], False)
    with_sweep.close()
    tracker.set_view(study, "test/accuracy")
    found = addresses(uri, 5001)
    assert {*found} >= {"other", "other, learning curves", "other, sweep quick", study}
    assert found["other, sweep quick"].startswith("http://127.0.0.1:5001/#/experiments/")
    assert "viewStateShareKey=ftlab-quick&" in found["other, sweep quick"]
    assert {*addresses(uri, 5001, study)} == {study, f"{study}, learning curves"}
    with pytest.raises(InputError, match="nothing is tracked"):
        addresses(uri, 5001, "no such")


def test_view__a_long_one_is_packed_as_the_ui_unpacks_it():
    names = [f"val/part {n}/f1" for n in range(200)]
    text = ui_layout.study_tags("s", "test/accuracy", names)[ui_layout.TAG]
    assert len(text) < LONGEST_TAG
    kind, _, packed = text.partition(";")
    assert kind == "deflate"
    state = json.loads(zlib.decompress(base64.b64decode(packed)))  # pako.inflate in the UI
    assert len(state["compareRunSections"]) == 202
