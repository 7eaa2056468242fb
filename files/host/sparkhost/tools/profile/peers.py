"""The other hosts of a run over several: on each, spark-profile follows its part of every step.

A peer is reached by ssh: `cd DIRECTORY && spark-profile --vary NAME=VALUE … -- COMMAND`, with {rank} and its like
filled in. So each host ends its own part when its own memory runs short. Once a part has failed, the others wait for
it in vain, and are ended: here, and there by the terminal that ssh takes away (SIGHUP). Results are read from the
peer's own results.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sparkhost.base.units import Mistake
from sparkhost.tools.profile import command
from sparkhost.tools.profile.step import NotStarted

SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10")
HOST = re.compile(r"[A-Za-z0-9_][\w.@:-]*")
LARGEST = 1 << 20
"""Bytes of a peer's results."""
PATIENCE = 60.0
"""Seconds that a peer may need longer than this host, and to hand its results over."""
MOST = 64


class Part(NamedTuple):
    """What a peer found. Bytes."""

    status: str
    peak: int
    before: int
    """MemAvailable when its part began."""


def parse(text: str) -> list[str]:
    """`spark-02,spark-03`.

    Raises:
        Mistake: no host names, or one twice.
    """
    names = text.split(",")
    if not all(HOST.fullmatch(name) for name in names) or len(set(names)) != len(names) or len(names) > MOST:
        raise Mistake(f"--peers: got {text!r}, expected other hosts' names, each once, such as spark-02,spark-03")
    return names


def places(rank: int, names: Sequence[str], settings: Mapping[str, str]) -> dict[str, str]:
    """Values of the placeholders that tell the hosts apart. `--set master=ADDRESS` wins over this host's name."""
    return {"rank": str(rank), "hosts": str(len(names) + 1), "master": settings.get("master", socket.gethostname())}


class Peers:
    """Those of one series."""

    def __init__(self, names: Sequence[str], options: argparse.Namespace) -> None:
        self.names, self.options = names, options
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.before: int | None = None
        """The least MemAvailable of a peer before its last part."""

    def words(self, name: str, vary: str, value: int, template: Sequence[str], environment: Mapping[str, str]) -> str:
        """What a peer's shell is given. `template`: filled, but for what is varied."""
        options = self.options
        given = [f"{key}={text}" for key, text in environment.items()]
        call = ["env", *given, "spark-profile", "--vary", f"{vary}={value}", "--out", self.directory(name), "--anew"]
        call += ["--time", options.time, "--rate", str(options.rate), "--by", options.by]
        call += ["--plain"] * options.plain + ["--torch"] * options.torch
        for option in ("headroom", "memory"):
            if getattr(options, option):
                call += [f"--{option}", getattr(options, option)]
        return f"cd {shlex.quote(os.getcwd())} && {shlex.join([*call, '--', *template])}"  # noqa: PTH109

    def directory(self, name: str) -> str:
        return f"{self.options.out}/peer-{name}"

    @contextlib.contextmanager
    def part(
        self,
        vary: str,
        value: int,
        template: Sequence[str],
        settings: Mapping[str, str],
        environment: Mapping[str, str],
    ) -> Iterator[None]:
        """Their parts of one step, started before and ended after it."""
        self.running = {}
        try:
            for rank, name in enumerate(self.names, start=1):
                filled = command.fill(template, {**settings, **places(rank, self.names, settings)})
                # A forced terminal: when ssh is ended, the peer's step gets SIGHUP.
                call = [*SSH, "-tt", name, self.words(name, vary, value, filled, environment)]
                self.running[name] = start(call, Path(self.options.out) / f"{vary}-{value}-{name}.log")
            yield
        finally:
            self.end()

    def failed(self) -> str | None:
        """The first peer whose part did not end well; the others wait for it in vain."""
        return next((name for name, process in self.running.items() if process.poll() not in (None, 0)), None)

    def finish(self, well: bool) -> dict[str, Part]:
        """Waits for the parts that run still, where this host's ended `well`, and reads what all of them found."""
        until = time.monotonic() + (PATIENCE if well else 0)
        for process in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(until - time.monotonic(), 0))
        self.end()
        found = {name: self.result(name) for name in self.names}
        known = [part.before for part in found.values() if part.before]
        self.before = min(known) if known else self.before
        return found

    def end(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
            if process.poll() is None:
                process.kill()
                process.wait()

    def result(self, name: str) -> Part:
        """A peer's own results; a failed part where they cannot be had."""
        path = shlex.quote(f"{self.directory(name)}/results.json")
        call = [*SSH, name, f"cd {shlex.quote(os.getcwd())} && head -c {LARGEST} {path}"]  # noqa: PTH109
        try:
            done = subprocess.run(call, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
            return part_of(json.loads(done.stdout))
        except (OSError, ValueError, TypeError, KeyError, IndexError, subprocess.TimeoutExpired):
            return Part("failed", 0, 0)


def start(call: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Raises:
    NotStarted: there is no ssh.
    """
    try:
        with log.open("wb") as output:
            return subprocess.Popen(
                call, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
    except OSError as error:
        raise NotStarted(f"{call[0]}: {error.strerror}") from error


def part_of(document: Any) -> Part:
    """The only step of a peer's results."""
    step = document["steps"][0]
    peaks = step["peaks"] or {"before": 0}
    return Part(str(step["status"])[:20], int(step["peak"]), int(peaks["before"]))
