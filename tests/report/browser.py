"""Chromium without a window, driven by chromedriver: the WebDriver protocol is JSON over HTTP and needs no library.

The window's size, the colour scheme and the medium are set by Chromium's own commands (DevTools), since a window cannot
be as narrow as a phone.
"""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
HEIGHT = 900


class Browser:
    """One session."""

    def __init__(self, address: str, profile: Path) -> None:
        self.address = address
        options = {"binary": CHROMIUM, "args": [*SWITCHES, f"--user-data-dir={profile}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = self._call("/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def _call(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def command(self, name: str, **parameters: Any) -> Any:
        """One of Chromium's own."""
        return self._call(f"/session/{self.session}/goog/cdp/execute", {"cmd": name, "params": parameters})

    def open(self, file: Path) -> None:
        self._call(f"/session/{self.session}/url", {"url": file.as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a function with this body returns in the page."""
        return self._call(f"/session/{self.session}/execute/sync", {"script": script, "args": list(arguments)})

    def look(self, *, width: int, scheme: str = "light", medium: str = "screen") -> None:
        """width: CSS pixels."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.command("Emulation.setEmulatedMedia", media=medium, features=[feature])
        size = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": width < 600}
        self.command("Emulation.setDeviceMetricsOverride", **size)

    def point_at(self, x: float, y: float) -> None:
        """CSS pixels from the window's corner."""
        self.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.command("Input.dispatchKeyEvent", type=kind, key=key)

    def messages(self) -> list[str]:
        """What the console has said since the last call."""
        return [one["message"] for one in self._call(f"/session/{self.session}/se/log", {"type": "browser"})]

    def quit(self) -> None:
        self._call(f"/session/{self.session}", method="DELETE")


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """profile: an empty folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([str(CHROMEDRIVER), f"--port={port}"], **quiet) as driver:
        try:
            wait_for(port)
            opened = Browser(f"http://127.0.0.1:{port}", profile)
            try:
                yield opened
            finally:
                opened.quit()
        finally:
            driver.terminate()


def wait_for(port: int) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("chromedriver does not listen")
