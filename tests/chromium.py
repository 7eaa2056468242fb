"""A headless Chromium, driven over the pipe of its DevTools protocol; no package and no port is needed for that.

Pages are served on the loopback, and every request that anything makes for them is kept.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.lab import tools

SECONDS = 30.0
"""For one answer of the browser; a busy machine takes its time."""

MIDDLE = """(() => {
  const element = document.querySelector(SELECTOR);
  element.scrollIntoView({ block: 'center' });
  const at = element.getBoundingClientRect();
  return [at.x + at.width / 2, at.y + at.height / 2];
})()"""


class BrowserError(Exception):
    """The browser does not answer, or answers that something is wrong."""


class Browser:
    """One tab of a browser."""

    def __init__(self, program: str, profile: Path) -> None:
        # The browser reads from its descriptor 3 and writes to 4; messages end with a NUL.
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        arguments = [
            program,
            "--headless",
            "--remote-debugging-pipe",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--no-first-run",
            "--disable-background-networking",
            f"--user-data-dir={profile}",
            # Neither root nor a container can have the sandbox, and the pages are our own.
            "--no-sandbox",
        ]
        redirect = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        # Its own group: the browser is many processes, and all of them must go.
        self._process = subprocess.Popen(
            ["bash", "-c", redirect, "bash", *arguments],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._left = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """Ends the browser."""
        try:
            self._session = None
            self.call("Browser.close")
            self._process.wait(10)
        except (BrowserError, OSError, subprocess.TimeoutExpired):
            os.killpg(self._process.pid, 9)
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One call of the protocol. Raises BrowserError."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        end = time.monotonic() + SECONDS
        while True:
            answer = self._message(end, method)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _message(self, end: float, waiting_for: str) -> dict[str, Any]:
        while b"\0" not in self._left:
            timer = threading.Timer(max(end - time.monotonic(), 0.01), os.killpg, (self._process.pid, 9))
            timer.start()
            try:
                chunk = os.read(self._read, 1 << 20)
            finally:
                timer.cancel()
            if not chunk:
                raise BrowserError(f"{waiting_for}: the browser has gone, or took more than {SECONDS:g} s")
            self._left += chunk
        first, self._left = self._left.split(b"\0", 1)
        message: dict[str, Any] = json.loads(first)
        return message

    def open(self, url: str) -> None:
        """Goes to a page and waits until it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def until(self, condition: str) -> None:
        """Waits until a JavaScript expression is true. Raises BrowserError."""
        end = time.monotonic() + SECONDS
        while not self.js(condition):
            if time.monotonic() > end:
                raise BrowserError(f"not within {SECONDS:g} s: {condition}")
            time.sleep(0.02)

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page. Raises BrowserError where it throws."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(str(answer["exceptionDetails"].get("exception", {}).get("description")))
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """A real click on the middle of an element."""
        x, y = self.js(MIDDLE.replace("SELECTOR", json.dumps(selector)))
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key, with its Windows virtual key code."""
        common: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """The size of the window, in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def media(self, media: str = "", **features: str) -> None:
        """`media("print")`, or `media(**{"prefers-color-scheme": "dark"})`."""
        given = [{"name": name, "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", media=media, features=given)

    def screenshot(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def requests(self) -> list[str]:
        """The addresses asked for since the page was opened, `data:` left out: nothing is sent for those."""
        sent = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("data:")]

    def complaints(self) -> list[str]:
        """What the page wrote to the console, exceptions, and what the page's policy forbade."""
        said = []
        for event in self.events:
            match event["method"]:
                case "Runtime.exceptionThrown":
                    said.append(str(event["params"]["exceptionDetails"]))
                case "Runtime.consoleAPICalled":
                    said.append(str(event["params"]["args"]))
                case "Log.entryAdded":
                    said.append(str(event["params"]["entry"]["text"]))
        return said


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser for a while. Raises BrowserError where the machine has none."""
    program = tools.browser()
    if program is None:
        raise BrowserError(f"none of {', '.join(tools.BROWSERS)} is there: make lab installs one on Debian")
    with tempfile.TemporaryDirectory(prefix="sparkfleet-chromium-", ignore_cleanup_errors=True) as profile:
        one = Browser(program, Path(profile))
        try:
            yield one
        finally:
            one.close()


class Pages:
    """Pages on the loopback; `asked` are the paths that were asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                page = outer.pages.get(self.path)
                self.send_response(200 if page is not None else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(page or b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, name: str, page: str) -> str:
        """Serves a page. Returns its address."""
        self.pages[f"/{name}"] = page.encode()
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    def close(self) -> None:
        """Stops serving."""
        self._server.shutdown()
        self._server.server_close()
