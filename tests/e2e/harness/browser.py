"""A real browser without a network: headless Chromium, controlled by its DevTools protocol.

Owns one process with a profile of its own, and its pages. Does not know what a page should look like. `CHROMIUM` names the program if
it has another name.
"""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections import deque
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from .waiting import wait_for

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def program() -> str | None:
    """The browser of this machine, if it has one."""
    return next(filter(None, map(shutil.which, (os.environ.get("CHROMIUM", ""), *NAMES))), None)


class PageError(AssertionError):
    """A script of the page, or one run in it, threw."""


class Browser:
    """A running Chromium; use it with `with`."""

    def __init__(self, folder: Path) -> None:
        """`folder` is for its profile and its log."""
        found = program()
        assert found, "no Chromium"
        profile = folder / "profile"
        with (folder / "browser.log").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    found,
                    "--headless",
                    # Its sandbox refuses root and needs name spaces that containers lack; pages here are the tests' own.
                    "--no-sandbox",
                    "--disable-dev-shm-usage",
                    "--disable-gpu",
                    "--hide-scrollbars",
                    "--no-first-run",
                    "--disable-background-networking",
                    "--disable-component-update",
                    "--disable-sync",
                    # Nothing listens on port 9: whatever asks for a network gets none.
                    "--proxy-server=127.0.0.1:9",
                    "--remote-debugging-port=0",
                    f"--user-data-dir={profile}",
                    "about:blank",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        port_file = profile / "DevToolsActivePort"
        with contextlib.ExitStack() as opened:
            opened.callback(self._end)
            port, path = wait_for(lambda: self._lines(port_file), "the browser's DevTools", timeout=60)
            # Screenshots are long texts.
            address = f"ws://127.0.0.1:{port}{path}"
            self._socket: ClientConnection = opened.enter_context(
                connect(address, max_size=None, proxy=None, compression=None)
            )
            self._opened = opened.pop_all()
        self._number = 0
        self._events: dict[str, deque[dict[str, Any]]] = {}

    def _lines(self, file: Path) -> list[str] | None:
        assert self.process.poll() is None, "the browser has ended; its log is browser.log"
        lines = file.read_text(encoding="utf-8").split("\n") if file.exists() else []
        return lines if len(lines) == 2 else None

    def open(self, file: Path, **options: Any) -> "Page":
        """A new page with `file` in it, loaded; `options` are those of `Page`."""
        return Page(self, file, **options)

    def ask(self, method: str, session: str | None = None, timeout: float = 30.0, **parameters: Any) -> dict[str, Any]:
        """Sends a command of the protocol and returns its result."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(command | ({"sessionId": session} if session else {})))
        deadline = time.monotonic() + timeout
        while True:
            message = self._receive(deadline, method)
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]

    def events(self, session: str) -> deque[dict[str, Any]]:
        """Events of a page that have arrived and were not removed yet."""
        return self._events.setdefault(session, deque())

    def wait_event(self, session: str, method: str, timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        while not any(event["method"] == method for event in self.events(session)):
            self._receive(deadline, method)

    def _receive(self, deadline: float, what: str) -> dict[str, Any]:
        try:
            message = json.loads(self._socket.recv(timeout=max(deadline - time.monotonic(), 0.001)))
        except TimeoutError:
            raise AssertionError(f"the browser did not answer: {what}") from None
        if "method" in message:
            self.events(message.get("sessionId", "")).append(message)
        return message

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Page:
    """One page of a given size."""

    def __init__(
        self,
        browser: Browser,
        file: Path,
        *,
        width: int = 1400,
        height: int = 900,
        dark: bool = False,
        scripts: bool = True,
    ) -> None:
        self._browser = browser
        self.url = file.resolve().as_uri()
        target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")
        self.ask("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.ask(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.resize(width, height)
        self.ask("Page.navigate", url=self.url)
        browser.wait_event(self._session, "Page.loadEventFired")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.ask(method, self._session, **parameters)

    def resize(self, width: int, height: int = 900) -> None:
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def run(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression once it is settled. This works even if the page's own scripts are disabled."""
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if problem := result.get("exceptionDetails"):
            raise PageError(json.dumps(problem))
        return result["result"].get("value")

    def point_at(self, x: float, y: float) -> None:
        """Moves the mouse there, in pixels of the viewport."""
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        """Presses a key by its name, such as ArrowRight or Tab."""
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=_KEYS[key])

    def requests(self) -> list[str]:
        """The address of everything that the page requested, itself included."""
        return [event["params"]["request"]["url"] for event in self._events("Network.requestWillBeSent")]

    def complaints(self) -> list[str]:
        """Console output, uncaught errors, and messages of the browser itself."""
        methods = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for method in methods for event in self._events(method)]

    def picture(self, file: Path) -> None:
        """The whole page, however long, as PNG."""
        content = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": content["width"], "height": content["height"], "scale": 1}
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        file.write_bytes(base64.b64decode(data))

    def _events(self, method: str) -> list[dict[str, Any]]:
        # Events come before the answer to whatever is asked after them.
        self.ask("Runtime.evaluate", expression="0")
        return [event for event in self._browser.events(self._session) if event["method"] == method]


_KEYS = {"Tab": 9, "Home": 36, "End": 35, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}
