import pytest

from ftlab.errors import InputError
from ftlab.tracking import view
from ftlab.tracking.ui import ui_command


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


def test_view__is_where_the_experiment_is(tracker, uri, study):
    tracker.set_view(study, ["rank"])
    tracker.flush()
    experiment = tracker._client.get_experiment_by_name(study)
    assert "metrics.`rank`" in experiment.tags[view.TAG]
    assert f"/experiments/{experiment.experiment_id}/runs?" in tracker.view_path(study)
