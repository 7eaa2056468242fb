"""The live terminal: what `table` draws, again and again, and the keys."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.text import Text

from sparkfleet import foreign
from sparkfleet.enrol.ssh import Route
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.status import table
from sparkfleet.status.fleet import HostView, Traces, views
from sparkfleet.status.records import Records
from sparkfleet.status.stream import Streams

EVERY = 1.0
KEYS = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"k": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"j": "down",
    b"\r": "open",
    b"\n": "open",
    b"\x1b": "back",
    b"\x7f": "back",
    b"w": "why",
    b"l": "log",
    b"q": "quit",
    b"\x03": "quit",
}
HELP = {
    "fleet": "↑↓ choose  Enter open  w why  l log  q quit",
    "host": "Esc back  ↑↓ next host  w why  l log  q quit",
    "why": "Esc back  q quit",
    "log": "Esc back  l again  q quit",
}
# As root where sudo asks for no password: the journal of the host's own units is for its admins.
LOG = (
    'sh -c \'S=; if [ "$(id -u)" = 0 ]; then :; elif sudo -n true 2>/dev/null; then S="sudo -n"; fi; '
    "exec $S journalctl -q -n 200 --no-pager -o short-iso -u sparkfleet-watchdog -u sparkfleet-observer "
    "-u sparkfleet-gpu-sampler -u sparkfleet-launcher'"
)


@dataclass
class Log:
    """What one host's journal says, fetched aside: the screen never waits for it."""

    route: Route
    lines: list[str] = field(default_factory=lambda: ["asking the host …"])

    def fetch(self) -> None:
        try:
            answer = self.route.run(LOG)
        except CommandFailed as error:
            self.lines = [str(error)]
            return
        text = answer.stdout if answer.rc == 0 else answer.reason
        self.lines = [foreign.line(line, 400) for line in text.splitlines()[-400:]] or ["its journal says nothing"]


@dataclass
class Screen:
    """What is shown, and where the cursor is."""

    streams: Streams
    records: Records
    routes: dict[str, Route]
    traces: Traces = field(default_factory=Traces)
    mode: str = "fleet"
    selected: str = ""
    log: Log | None = None
    touched: bool = False
    """Whether a key was pressed; before that the cursor stays on the first host, whichever that becomes."""
    _found: list[HostView] = field(default_factory=list)

    def look(self) -> None:
        """Takes what has been heard by now."""
        self.records.look()
        self._found = views(self.streams.heard(), self.records)
        for view in self._found:
            if view.says is not None:
                self.traces.add(view.name, view.says)
        if not self.touched and self._found:
            self.selected = self._found[0].name

    def draw(self, width: int, height: int) -> RenderableType:
        body: RenderableType
        match self.mode:
            case "fleet":
                body = table.fleet(self._found, width, self.selected, most=max(1, height - 5))
            case "log":
                body = Text("\n".join((self.log.lines if self.log else [])[-(height - 4) :]), no_wrap=True)
            case "why":
                body = table.why(self.chosen().says)
            case _:
                body = table.host(self.chosen(), self.traces, width)
        head = Text.assemble((f"{self.records.fleet_file.name}  ", "bold"), table.summary(self._found))
        head.append(time.strftime("  %H:%M:%S"), "dim")
        where = "" if self.mode in ("fleet", "host") else f"{self.selected}  "
        return Group(head, Text(""), body, Text(""), Text(where + HELP[self.mode], "dim"))

    def chosen(self) -> HostView:
        return next(view for view in self._found if view.name == self.selected)

    def press(self, key: str) -> bool:
        """Acts on a key; False where that ends it."""
        self.touched = True
        match key:
            case "quit":
                return False
            case "up" | "down":
                self._move(-1 if key == "up" else 1)
            case "open":
                self.mode = "host"
            case "back":
                self.mode = "fleet" if self.mode in ("fleet", "host") else "host"
            case "why":
                self.mode = "why"
            case "log":
                self.mode, self.log = "log", Log(self.routes[self.selected])
                threading.Thread(target=self.log.fetch, daemon=True).start()
        return True

    def _move(self, by: int) -> None:
        names = [view.name for view in self._found]
        if names and self.mode in ("fleet", "host"):
            at = names.index(self.selected) + by
            self.selected = names[max(0, min(at, len(names) - 1))]


def key_of(data: bytes) -> str:
    """What was pressed; "" for what means nothing here."""
    return KEYS.get(data) or KEYS.get(data[:1] if data[:1] != b"\x1b" else data[:3], "")


def show(routes: Sequence[Route], records: Records) -> ExitCode:
    """Until q or Ctrl-C. The terminal is then as it was."""
    console = Console()
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        with Streams(routes) as streams, console.screen() as shown:
            screen = Screen(streams, records, {route.name: route for route in routes})
            due = 0.0
            while True:
                if time.monotonic() >= due:
                    screen.look()
                    due = time.monotonic() + EVERY
                shown.update(screen.draw(console.width, console.height))
                if select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
                    key = key_of(os.read(sys.stdin.fileno(), 64))
                    if not screen.press(key):
                        return ExitCode.CLEAN
    except KeyboardInterrupt:
        return ExitCode.CLEAN
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
