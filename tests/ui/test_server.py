"""The server behind `ftlab ui`, without a browser: who may ask it, and how it ends."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import Served, free_port
from processes import alive, wait_for
from tracked_study import STUDY

from ftlab.tracking.tracker import Tracker

UNRENDERED = True
API = "/api/2.0/mlflow/experiments/search"
ASKED = json.dumps({"max_results": 10})


def ask(ui: Served, method: str, path: str, host: str, **headers: str) -> int:
    """The status of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", ui.port, timeout=30)
    connection.putrequest(method, path, skip_host=True)
    body = ASKED if method == "POST" else ""
    said = {"Host": host, "Content-Type": "application/json", "Content-Length": str(len(body))}
    for name, value in (said | headers).items():
        connection.putheader(name, value)
    connection.endheaders(body.encode())
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("path", ["/", API, "/graphql", "/ajax-api/3.0/mlflow/server-info"])
@pytest.mark.parametrize("host", [
    "rebound.example:{port}", "10.rebound.example:{port}", "192.168.rebound.example:{port}",
    "localhost.rebound.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}",
])  # fmt: skip
def test_ui__refuses_every_other_name_of_the_host(ui: Served, host: str, path: str) -> None:
    method = "GET" if path == "/" else "POST"
    assert ask(ui, method, path, host.format(port=ui.port)) == 403


def test_ui__answers_by_its_own_names_and_to_no_other_page(ui: Served) -> None:
    for host in (f"127.0.0.1:{ui.port}", f"localhost:{ui.port}"):
        assert ask(ui, "GET", "/", host) == 200
        assert ask(ui, "POST", API, host) == 200
        assert ask(ui, "POST", API, host, Origin="http://other.example") == 403


def test_ui__is_not_on_other_addresses(ui: Served) -> None:
    with pytest.raises(ConnectionRefusedError):  # it would answer if bound to all addresses
        socket.create_connection(("127.0.0.2", ui.port), timeout=5)


def test_ui__prints_where_the_study_is(ui: Served, store: str) -> None:
    paths = Tracker(store).view_paths()
    assert ui.addresses == {what: ui.root + path for what, path in paths.items()}
    assert list(paths) == [STUDY, f"{STUDY}, learning curves"]


def test_ui__starts_no_other_processes(ui: Served, tmp_path: Path) -> None:
    folder = Path(f"/proc/{ui.process.pid}/cwd").readlink()
    names = [line.split()[2] for line in alive(folder).values()]
    assert sorted(names) == ["ftlab.cli", "mlflow", "uvicorn"]


Here = Callable[..., tuple[int, str, str]]


def test_ui__a_port_that_is_taken(ui: Served, store: str, here: Here) -> None:
    code, _, errors = here("ui", "--tracking-uri", store, "--port", ui.port)
    assert code == 2
    assert errors.splitlines() == [
        f"error: port {ui.port} of 127.0.0.1: Address already in use", "  mend: give another --port"]


@pytest.mark.parametrize("given", ["smal", "study.yaml"])
def test_ui__a_study_that_is_not_there(
    given: str, store: str, here: Here, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text("name: smal\n")
    code, _, errors = here("ui", given, "--tracking-uri", store, "--port", free_port())
    assert code == 2
    assert "study smal: nothing is tracked of it" in errors
    assert f"there are: {STUDY}" in errors


STAND_IN = """
import subprocess, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
class Healthy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *arguments): pass
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy).serve_forever()
"""


@pytest.fixture
def begun(store: str, tmp_path: Path) -> subprocess.Popen[bytes]:
    """`ftlab ui` with a stand-in for MLflow's server that has a child, as that one has."""
    port = free_port()
    program = (
        "import sys; from ftlab import cli; from ftlab.tracking import ui_server\n"
        f"ui_server.ui_command = lambda *_: [sys.executable, '-c', {STAND_IN!r}, '{port}']\n"
        f"sys.argv = ['ftlab', 'ui', '--tracking-uri', {store!r}, '--port', '{port}']\n"
        "cli.main()"
    )
    with (tmp_path / "said.log").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=tmp_path, stdout=said, stderr=said,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    wait_for(lambda: "Ctrl-C" in (tmp_path / "said.log").read_text())
    assert len(alive(tmp_path)) == 3
    return process


@pytest.mark.parametrize(("number", "code"), [
    (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_ui__ends_with_all_that_it_started(
    begun: subprocess.Popen[bytes], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    begun.send_signal(number)
    assert begun.wait(300) == code
    if number is not signal.SIGKILL:
        assert alive(tmp_path) == {}
    else:  # MLflow ends its own child when it gets SIGTERM, which the stand-in does not
        wait_for(lambda: len(alive(tmp_path)) == 1)
        os.kill(*alive(tmp_path), signal.SIGKILL)
    assert "Traceback" not in (tmp_path / "said.log").read_text()
