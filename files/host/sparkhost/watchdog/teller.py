"""The process that tells: journal, post-mortem, the owner's terminals, the next login, metrics. It may block.

Each way of telling is on its own: a full disk does not keep the owner's terminal from the message.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sparkhost.watchdog import journal, metrics, postmortem, terminals
from sparkhost.watchdog.config import ACCEPTED
from sparkhost.watchdog.model import MIB
from sparkhost.watchdog.report import headline, listed_pauses

# What the owner is told of at once.
FOR_THE_OWNER = frozenset(("term", "kill"))
# A trace that fills the disk would be a poor servant.
LARGEST_TRACE = 256 * MIB


@dataclass
class Teller:
    """Where things are told. `state_dir` outlives a boot, `run_dir` does not."""

    state_dir: Path
    run_dir: Path
    textfile: str = ""
    record: Path | None = None
    terminals_dir: Path = Path("/dev/pts")
    journal_socket: str = journal.SOCKET
    counts: dict[str, int] = field(default_factory=dict)
    last_event: float = 0.0
    _failed: str = ""
    _lost: int = 0

    def serve(self, source: socket.socket) -> None:
        """Until the watchdog has gone."""
        while data := source.recv(1 << 18):
            try:
                self.take(json.loads(data))
            except Exception as error:  # a mistake of ours costs one message
                self._failed = f"a message: {type(error).__name__}: {error}"

    def take(self, message: dict[str, Any]) -> None:
        """One message of the watchdog's."""
        self._left_out(message)
        match message.get("do", "event"):
            case "event":
                self.event(message)
            case "state":
                self.state(message)
            case "accepted":
                text = message["text"].encode()
                self._try("accepted", lambda: postmortem.replace(self.state_dir / ACCEPTED, text, 0o600))
            case "record":
                self._try("record", lambda: self.trace(message))
            case "drop_page_cache":
                self._try("drop_caches", drop_page_cache)

    def _left_out(self, message: dict[str, Any]) -> None:
        """Says how many messages before this one were given up, in the message and in the journal."""
        lost = message.get("lost", 0)
        left_out, self._lost = lost - self._lost, lost
        if left_out > 0 and "look" in message:
            message["left_out"] = left_out
            reason = f"{left_out} messages were left out: telling did not keep up, or they were too long"
            said = {"event": "left_out", "victim": None, "look": message["look"], "time": time.time(), "reason": reason}
            self.event({**said, "left_out": left_out})

    def event(self, record: dict[str, Any]) -> None:
        kind = record["event"]
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.last_event = record["time"]
        record["host"] = socket.gethostname()
        record["when"] = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(record["time"]))
        line = headline(record)
        self._try("journal", lambda: journal.send(self.journal_socket, line, record))
        if kind == "resumed":
            self.tell_paused(record)
        if record["victim"] is None:
            return
        if kind in FOR_THE_OWNER:
            owner = record["victim"]["owner"]
            self._try("terminals", lambda: terminals.write(self.terminals_dir, owner, f"{line}. Why: spark-why"))
        self._try("post-mortem", lambda: postmortem.keep(self.state_dir, record))

    def tell_paused(self, record: dict[str, Any]) -> None:
        """Each owner of work that stood still, for how long."""
        would = "would have been " if record["dry_run"] else "was "
        for owner in {pause["owner"] for pause in record["paused"]}:
            theirs = listed_pauses([pause for pause in record["paused"] if pause["owner"] == owner])
            text = f"memory watchdog: memory was short; work of yours {would}paused and goes on: {theirs}"
            self._try("terminals", partial(terminals.write, self.terminals_dir, owner, text))

    def state(self, message: dict[str, Any]) -> None:
        def write() -> None:
            text = json.dumps({**message, "counts": self.counts, "last_event": self.last_event, "failed": self._failed})
            postmortem.replace(self.run_dir / "state.json", text.encode(), 0o644)

        self._try("state", write)
        if self.textfile and Path(self.textfile).is_dir():
            self._try("textfile", lambda: self.metrics(message))

    def metrics(self, message: dict[str, Any]) -> None:
        """For the node exporter's textfile collector."""
        lines = [
            ("sparkfleet_watchdog_looks_total", "counter", "Looks at the host's memory", [("", message["looks"])]),
            (
                "sparkfleet_watchdog_events_total",
                "counter",
                "Events by kind",
                [(f'{{kind="{kind}"}}', count) for kind, count in sorted(self.counts.items())],
            ),
            (
                "sparkfleet_watchdog_available_bytes",
                "gauge",
                "MemAvailable at the last look",
                [("", message["look"]["available"])],
            ),
            ("sparkfleet_watchdog_last_event_seconds", "gauge", "When the last event was", [("", self.last_event)]),
            ("sparkfleet_watchdog_lost_messages_total", "counter", "Messages given up", [("", message["lost"])]),
        ]
        text = metrics.text([*lines, *metrics.of_slice(), *metrics.of_gpus(), *metrics.of_observer()])
        postmortem.replace(Path(self.textfile) / "sparkfleet-watchdog.prom", text.encode(), 0o644)

    def trace(self, message: dict[str, Any]) -> None:
        if self.record is None or (self.record.exists() and self.record.stat().st_size > LARGEST_TRACE):
            return
        with self.record.open("a") as file:
            file.write(json.dumps(message) + "\n")

    def _try(self, what: str, do: Callable[[], None]) -> None:
        try:
            do()
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._failed = f"{what}: {error}"


def drop_page_cache() -> None:
    """Clean page cache only, neither dentries nor inodes (Documentation/admin-guide/sysctl/vm.rst)."""
    descriptor = os.open("/proc/sys/vm/drop_caches", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, b"1")
    finally:
        os.close(descriptor)
