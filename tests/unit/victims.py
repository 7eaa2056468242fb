"""Real processes of this machine as victims, and real cgroups where it lets us make them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkhost.watchdog.model import Candidate, Member
from sparkhost.watchdog.process import Processes

PROC = Processes(Path("/proc"))


@contextlib.contextmanager
def started(code: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program that has printed its first line; it and all that it started is killed in the end."""
    mark = uuid.uuid4().hex
    command = [sys.executable, "-c", code, mark]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
    finally:
        for pid in PROC.numbers():
            with contextlib.suppress(OSError):
                if mark.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        child.wait(20)
        if child.stdout is not None:
            child.stdout.close()


def victim_of(*pids: int, alone: bool = False) -> Candidate:
    roots = []
    for pid in pids:
        start = PROC.start_of(pid)
        assert start is not None
        roots.append(Member(pid, start))
    return Candidate("k", "n", "process", PROC.cgroup_of(pids[0]) or "/", tuple(roots), alone=alone)


def cgroup_mount() -> Path:
    """Where the tree of cgroups of version 2 is mounted, writable for us; else the test is skipped."""
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    root = next((Path(line[1]) for line in lines if line[2] == "cgroup2"), None)
    if root is None or not os.access(root, os.W_OK) or os.geteuid() != 0:
        pytest.skip("needs root and a cgroup v2 tree")
    return root


@contextlib.contextmanager
def made_cgroups(*names: str) -> Iterator[Path]:
    """Makes cgroups, each with those above it; what was made is removed once the processes in it have ended."""
    root = cgroup_mount()
    made: list[Path] = []
    try:
        for name in names:
            for folder in reversed([root / name.strip("/"), *(root / name.strip("/")).parents]):
                if not folder.exists():
                    try:
                        folder.mkdir()
                    except OSError as error:
                        pytest.skip(f"cannot make a cgroup: {error}")
                    made.append(folder)
        yield root
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def unused(suffix: str = "") -> str:
    """The name of a cgroup that nobody has."""
    return f"/sparkfleet-test-{uuid.uuid4().hex[:8]}{suffix}"
