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


# A user number that nobody has: who flees is no root, and shares it with nobody else on this machine.
UID = 424_242
SIBLING = """
import ctypes, os, platform, pty, signal, time
pid, _ = pty.fork() if {terminal} else (os.fork(), 0)
if pid:
    print(os.read(_, 100).decode() if {terminal} else "", flush=True)
    time.sleep(600)
os.setgid({uid})
os.setuid({uid})
if os.fork():
    time.sleep(600)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
kept = bytearray(b"x") * (80 << 20)
libc = ctypes.CDLL(None)
print("ready", flush=True)
signal.sigwait([signal.SIGTERM])
# fork(2), but for the parent, which is this process's own; a copy has all that the original held.
if libc.syscall(56 if platform.machine() == "x86_64" else 220, 0x8000 | signal.SIGCHLD, 0, 0, 0, 0):
    os._exit(0)
time.sleep(600)
"""
FLEES = """
import ctypes, os, signal, sys, time
libc = ctypes.CDLL(None)
if {subreaper}:
    libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    if os.fork():
        time.sleep(600)
os.setgid({uid})
os.setuid({uid})
{beside}
def flee():
    libc.prctl(15, b"sshd", 0, 0, 0)  # PR_SET_NAME
    for cgroup in {cgroups}:
        with open(cgroup + "/cgroup.procs", "w") as file:
            file.write("0")
    if os.fork():
        os._exit(0)
    if {setsid}:
        os.setsid()
        if os.fork():
            os._exit(0)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print(os.getpid(), flush=True)
while signal.sigwait([signal.SIGTERM]):
    flee()
"""
BESIDE = """
if not os.fork():
    while True:
        if not os.fork():
            time.sleep(0.2)
            os._exit(0)
        os.wait()
"""


def flees(*, setsid: bool = True, subreaper: bool = False, beside: str = "", cgroups: tuple[str, ...] = ()) -> str:
    return FLEES.format(uid=UID, setsid=setsid, subreaper=subreaper, beside=beside, cgroups=cgroups)
