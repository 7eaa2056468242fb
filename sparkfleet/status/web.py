"""`sparkfleet watch --web`: the fleet as a page on loopback, live by server-sent events.

Who may see it: whoever has the token. It comes in the address that is printed, once; the page then has
it as a cookie that no script reads and no other site sends. Requests that name another host than
loopback are refused, so a foreign name that resolves to 127.0.0.1 (DNS rebinding) gets nothing. Through
`ssh -L` the page is the same: it names no address of its own.

The page makes no request elsewhere: its policy allows its own script and style by their hashes, and
connections to where it came from.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sparkfleet.enrol.ssh import Route
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.status.fleet import Traces, views
from sparkfleet.status.records import Records
from sparkfleet.status.stream import Streams

HERE = "127.0.0.1"
NAMES = (HERE, "localhost", "[::1]")
EVERY = 0.5
"""Seconds between two looks at what was heard."""
SIGN = 10.0
"""Seconds after which a page that has nothing to be told gets a sign of life."""
PAGES = 16
"""Pages that are told at a time; more are refused."""
PATIENCE = 20.0
"""Seconds that a page may take nothing, and a client say nothing."""
FOLDER = Path(__file__).parent


@dataclass
class Board:
    """What is shown, and since which version each host stands so."""

    streams: Streams
    records: Records
    traces: Traces = field(default_factory=Traces)
    changed: threading.Condition = field(default_factory=threading.Condition)
    version: int = 0
    order: list[str] = field(default_factory=list)
    hosts: dict[str, tuple[int, str]] = field(default_factory=dict)
    """By name the version in which it changed last, and its JSON."""
    pages: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(PAGES))

    def look(self) -> None:
        """Takes what was heard by now."""
        self.records.look()
        found = views(self.streams.heard(), self.records)
        with self.changed:
            self.version += 1
            for view in found:
                if view.says is not None:
                    self.traces.add(view.name, view.says)
                # How old it is changes all the time, and the page can count itself.
                text = json.dumps({**view.as_json(), "seconds": None}, separators=(",", ":"))
                if self.hosts.get(view.name, (0, ""))[1] != text:
                    self.hosts[view.name] = (self.version, text)
            self.order = [view.name for view in found]
            self.changed.notify_all()

    def since(self, version: int) -> tuple[int, str]:
        """The version now, and what has changed since that one, as JSON; "" where that is nothing."""
        with self.changed:
            changed = [text for at, text in self.hosts.values() if at > version]
            head: dict[str, Any] = {"fleet": self.records.fleet_file.name, "order": self.order}
            if not version:
                head["controls"] = self.records.controls
            now = self.version
        if not changed and version:
            return now, ""
        return now, f'{json.dumps(head)[:-1]},"hosts":[{",".join(changed)}]}}'

    def trace(self, name: str) -> dict[str, Any] | None:
        """Memory by owner over the last minutes, and the last day; None where there is no such host."""
        with self.changed:
            if name not in self.hosts:
                return None
            points = list(self.traces.points.get(name, ()))
        return {"points": points, "minutes": self.streams.heard()[name].day.rows()}


class Page(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = PATIENCE
    protocol_version = "HTTP/1.1"
    server_version = "sparkfleet"
    sys_version = ""

    def do_GET(self) -> None:
        self.close_connection = True
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        if not self._is_here():
            self._answer(421, b"this page is for loopback\n", "text/plain")
        elif address.path == "/" and "token" in query:
            self._let_in(query["token"][0])
        elif not self._is_known():
            self._answer(403, b"open the address that `sparkfleet watch --web` has printed\n", "text/plain")
        elif address.path == "/":
            text, policy = page()
            self._answer(200, text, "text/html; charset=utf-8", policy)
        elif address.path == "/events":
            self._tell()
        elif address.path == "/trace" and (found := self.server.board.trace(query.get("host", [""])[0])) is not None:
            self._answer(200, json.dumps(found).encode(), "application/json")
        else:
            self._answer(404, b"there is no such page\n", "text/plain")

    def _is_here(self) -> bool:
        name = self.headers.get("Host", "")
        bare = name if name.endswith("]") else name.rpartition(":")[0] or name
        return bare in NAMES

    def _let_in(self, token: str) -> None:
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._answer(403, b"the token is another one: it is new with each start\n", "text/plain")
            return
        self.send_response(303)
        cookie = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
        for name, value in (("Location", "/"), ("Set-Cookie", cookie), ("Content-Length", "0"), *SAFE):
            self.send_header(name, value)
        self.end_headers()

    def _is_known(self) -> bool:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            return False
        return found is not None and hmac.compare_digest(found.value.encode(), self.server.token.encode())

    def _answer(self, code: int, body: bytes, kind: str, policy: str = "default-src 'none'") -> None:
        self.send_response(code)
        length = ("Content-Length", str(len(body)))
        for name, value in (("Content-Type", kind), length, ("Content-Security-Policy", policy), *SAFE):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _tell(self) -> None:
        """The stream of events, until the page is closed."""
        board = self.server.board
        if not board.pages.acquire(blocking=False):
            self._answer(503, b"too many pages are open\n", "text/plain")
            return
        try:
            self.send_response(200)
            for name, value in (("Content-Type", "text/event-stream"), *SAFE):
                self.send_header(name, value)
            self.end_headers()
            version, last = 0, time.monotonic()
            while not self.server.over.is_set():
                version, text = board.since(version)
                if text:
                    self.wfile.write(f"event: fleet\ndata: {text}\n\n".encode())
                elif time.monotonic() - last > SIGN:
                    self.wfile.write(b": here\n\n")
                if text or time.monotonic() - last > SIGN:
                    last = time.monotonic()
                with board.changed:
                    if board.version == version:
                        board.changed.wait(1.0)
        except OSError:
            pass  # the page was closed
        finally:
            board.pages.release()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the address holds the token."""


SAFE = (
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Connection", "close"),
)


class Server(ThreadingHTTPServer):
    """The page's server, on loopback alone."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, board: Board, port: int) -> None:
        super().__init__((HERE, port), Page)
        self.board = board
        self.over = threading.Event()
        self.token = secrets.token_urlsafe(24)
        # Cookies know no ports: two pages on this machine must not take each other's.
        self.cookie = f"sparkfleet_{self.server_port}"

    def address(self) -> str:
        return f"http://{HERE}:{self.server_port}/?token={self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""


@cache
def page() -> tuple[bytes, str]:
    """The page, and its policy."""
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    text = (FOLDER / "page.html").read_text(encoding="utf-8")
    text = text.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.encode(), policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def serve(routes: Sequence[Route], records: Records, port: int) -> ExitCode:
    """Until Ctrl-C.

    Raises:
        CommandFailed: the port is taken.
    """
    with Streams(routes) as streams:
        board = Board(streams, records)
        try:
            server = Server(board, port)
        except OSError as error:
            text = f"{HERE}:{port}: {error.strerror}: choose another with --port"
            raise CommandFailed(text, ExitCode.BAD_CONFIGURATION) from error
        print(f"open {server.address()}")
        forward = f"{server.server_port}:{HERE}:{server.server_port}"
        print(f"from elsewhere: ssh -L {forward} THIS-MACHINE; Ctrl-C ends it", flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            while True:
                board.look()
                time.sleep(EVERY)
        except KeyboardInterrupt:
            return ExitCode.CLEAN
        finally:
            server.over.set()
            server.shutdown()
            server.server_close()
