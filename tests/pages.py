"""A running `ftlab ui`, and what a person does in its pages, as methods of a browser."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 120.0  # seconds; a page takes two on a quiet machine


@dataclass(frozen=True)
class Served:
    """A running `ftlab ui`: its process, its port, and the addresses that it printed."""

    process: subprocess.Popen[str]
    port: int
    addresses: dict[str, str]

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Pages:
    """A browser at MLflow's pages.

    Args:
        driver: of the browser.
        root: the server's address.
        shots: folder for screenshots.
    """

    def __init__(self, driver: Any, root: str, shots: Path) -> None:
        self.driver, self.root, self.shots = driver, root, shots

    def open(self, address: str, width: int = 1400, height: int = 900) -> None:
        """Load a page as if for the first time, but for the panel that MLflow opens beside it."""
        self.driver.set_window_size(width, height + 140)
        self.driver.get(f"{self.root}/health")
        self.driver.execute_script(
            "localStorage.clear();"
            "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');"
            "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false')"
        )
        self.driver.get(address)

    def until(self, ready: Callable[[], Any], what: str) -> Any:
        """What `ready` gives once it gives something; a screenshot where it never does."""
        from selenium.common.exceptions import WebDriverException

        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(WebDriverException):  # the page changed below us
                if found := ready():
                    return found
            if time.monotonic() > end:
                self.shot("failed")
                raise AssertionError(f"{what}: never, see {self.shots}")
            time.sleep(0.1)

    def shot(self, name: str) -> None:
        self.driver.save_screenshot(str(self.shots / f"{name}.png"))

    def all(self, css: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", css))

    def click(self, xpath: str) -> None:
        self.until(lambda: self.driver.find_element("xpath", xpath).click() is None, xpath)

    def text(self) -> str:
        return str(self.driver.find_element("css selector", "body").text)

    def see(self, *texts: str) -> None:
        self.until(lambda: all(text in self.text() for text in texts), f"to see {texts}")

    def rows(self) -> dict[str, dict[str, str]]:
        """The table of runs: name -> column -> text, from top to bottom."""
        return dict(self.driver.execute_script(
            """
            const found = {};
            for (const cell of document.querySelectorAll('.ag-row .ag-cell')) {
                const row = cell.closest('.ag-row').getAttribute('row-index');
                found[row] = found[row] || {};
                const seen = cell.querySelector('a') || cell;
                found[row][cell.getAttribute('col-id')] = seen.innerText.trim();
            }
            const order = Object.keys(found).sort((a, b) => a - b).map(row => found[row]);
            return order.map(row => [row['attributes.`Run Name`'], row]);
            """
        ))

    def wait_for_rows(self, count: int) -> dict[str, dict[str, str]]:
        def ready() -> dict[str, dict[str, str]] | None:
            rows = self.rows()
            return rows if len(rows) == count else None

        return dict(self.until(ready, f"{count} rows"))

    def row(self, name: str) -> Any:
        """The row of a run, its fixed left part."""
        path = f"//div[contains(@class, 'ag-pinned-left')]//div[@row-id][.//a[normalize-space()='{name}']]"
        return self.until(lambda: self.driver.find_element("xpath", path), name)

    def unfold(self, name: str) -> None:
        self.row(name).find_element("css selector", "button").click()

    def tick(self, name: str) -> None:
        self.row(name).find_element("css selector", ".ag-checkbox").click()
