"""An MLflow server on loopback that can be killed and started again, and a proxy that misbehaves."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pages import free_port
from processes import wait_for

MODES = ("500", "429", "slow", "black hole", "lost answer", "refused")


class Server:
    """`mlflow server` over a SQLite file, with artifacts that it serves itself."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port",
                   str(self.port), "--workers", "1", "--backend-store-uri",
                   f"sqlite:///{self.folder}/server.db", "--artifacts-destination",
                   str(self.folder / "files"), "--serve-artifacts"]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
        wait_for(self.answers)

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End it as the kernel does: at once, all its processes."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


class Proxy:
    """Passes requests on to a server, or does what `mode` says.

    Attributes:
        mode: empty, or one of `MODES`. `lost answer` passes the request on and answers 502.
        patience: seconds that `slow` takes.
    """

    def __init__(self, port: int, patience: float = 3.0) -> None:
        self.mode, self.patience, self.asked = "", patience, 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                proxy.asked += 1
                mode = proxy.mode
                size = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(size)
                if mode == "black hole":
                    while proxy.mode == mode:
                        time.sleep(0.05)
                    self.close_connection = True
                    return
                if mode == "refused":
                    self.close_connection = True
                    return
                if mode in ("500", "429"):
                    self.tell(int(mode), b'{"error_code": "INTERNAL_ERROR", "message": "no"}', {})
                    return
                if mode == "slow":
                    time.sleep(proxy.patience)
                inner = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
                inner.request(self.command, self.path, body, headers)
                answer = inner.getresponse()
                content = answer.read()
                if mode == "lost answer":
                    self.tell(502, b"{}", {})
                else:
                    self.tell(answer.status, content, dict(answer.getheaders()))
                inner.close()

            def tell(self, status: int, content: bytes, headers: dict[str, str]) -> None:
                try:
                    self.send_response(status)
                    kind = {k.lower(): v for k, v in headers.items()}.get("content-type")
                    self.send_header("Content-Type", kind or "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:  # who asked has given up
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.mode = "closed"
        self._server.shutdown()
        self._server.server_close()
