"""A stand-in for the Hugging Face hub: what huggingface_hub asks of it to make a repository and commit to it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """Attributes: made, what was asked of `create`; files, by repository and path; refusing, a status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.made: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        self.refusing = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: Any) -> None: ...

    def _answer(self, status: int, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.asked.append(f"GET {self.path}")
        self._answer(200, {"id": "me/small", "sha": "0" * 40, "siblings": [], "name": "me"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.server.asked.append(f"POST {self.path}")
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.refusing:
            self._answer(self.server.refusing, {"error": "no"})
        elif self.path == "/api/repos/create":
            self.server.made.append(json.loads(body))
            self._answer(200, {"url": f"{self.server.url}/me/small", "id": "me/small"})
        elif "/preupload/" in self.path:
            self._answer(200, {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                                         for file in json.loads(body)["files"]]})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                said = json.loads(line)
                if said["key"] == "file":
                    self.server.files[said["value"]["path"]] = base64.b64decode(said["value"]["content"])
            self._answer(200, {"commitUrl": f"{self.server.url}/me/small/commit/1", "commitOid": "1" * 40,
                               "success": True})
        else:
            self._answer(200, {"errors": [], "warnings": []})


@contextmanager
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
