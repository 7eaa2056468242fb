"""Every write of a guarded change and of its take-back fails, one after the other, and then the host is started again.

strace(1) fails them in the kernel's place: with a full disk, a read-only or a broken one, or by SIGKILL. Afterwards the
host is as it was or as it was to be, never something between, and nothing waits any more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.unit import guarded_host as host

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="makes files of root"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]
SYSCALLS = ("openat", "write", "fsync", "fchmod", "fchown", "fsetxattr", "rename", "unlink", "rmdir", "mkdir", "symlink")
ENDED = "var/lib/sparkfleet/rollback/record.ended"
# Once, or (+) all calls of that name from there on.
FAULTS = ("error=ENOSPC:when={}", "error=EROFS:when={}", "error=EIO:when={}", "error=EROFS:when={}+")
# Beside SIGKILL one for each write, in turn; SPARKFLEET_ALL_FAULTS=1 has every write fail in every way.
ALL = os.environ.get("SPARKFLEET_ALL_FAULTS") == "1"


def made(tmp_path: Path, name: str) -> Path:
    root = tmp_path / name
    host.build(root)
    return root


def trace(root: Path, part: str, *inject: str) -> str:
    """Does a part of the deploy under strace; the trace."""
    log = root.with_suffix(".trace")
    words = ["strace", "-y", "-o", str(log), "-e", f"trace={','.join(SYSCALLS)}", *inject]
    subprocess.run([*words, *host.command(root, part)], capture_output=True, timeout=60, check=False)
    return log.read_text()


def writes(text: str, root: Path) -> Iterator[tuple[str, int]]:
    """Each system call of a trace that writes below `root`: its name, and the how manieth of that name it is."""
    numbers = {name: count(1) for name in SYSCALLS}
    for line in text.splitlines():
        name = line.partition("(")[0]
        if name in numbers:
            number = next(numbers[name])
            if str(root) in line and " = -1 " not in line and (name != "openat" or "O_CREAT" in line):
                yield name, number


def faults(text: str, root: Path) -> Iterator[str]:
    turn = count()
    for name, number in writes(text, root):
        chosen = FAULTS if ALL else (FAULTS[next(turn) % len(FAULTS)],)
        yield from (f"inject={name}:{fault.format(number)}" for fault in (*chosen, "signal=KILL:when={}"))


@pytest.mark.parametrize("part", ["change", "take-back"])
def test_whatever_write_fails_the_host_is_as_before_or_as_proved(tmp_path: Path, part: str) -> None:
    sample = made(tmp_path, "0")
    old = host.snapshot(sample)
    if part == "take-back":
        subprocess.run(host.command(sample, "change-only"), check=True)
    text = trace(sample, part)
    new = host.snapshot(sample)
    assert (new == old) is (part == "take-back")
    tried, wrong = 0, []
    for fault in faults(text, sample):
        tried += 1
        root = made(tmp_path, "1")
        if part == "take-back":
            subprocess.run(host.command(root, "change-only"), check=True)
        assert "INJECTED" in trace(root, part, "-e", fault) or "KILL" in fault
        if not host.boots(root) and list(root.glob(ENDED)):
            # Only what is left of a change that has ended was not removed: the timer does that, or the next deploy.
            subprocess.run(host.command(root, "take-back"), check=True)
        now = host.snapshot(root)
        left = {name for name in now if host.LEFT.search(name)}
        state = {name: value for name, value in now.items() if name not in left}
        if state not in (old, new) or list(root.glob("var/lib/sparkfleet/rollback/record.*")):
            changed = {name for name in {*state, *old} if state.get(name) != old.get(name)}
            wrong.append(f"{fault}: {sorted(changed)}, left {sorted(left)}")
        elif left and "KILL" not in fault and "+" not in fault:
            wrong.append(f"{fault}: left {sorted(left)}")
        shutil.rmtree(root)
    print(f"{part}: {tried} faults in {len(list(writes(text, sample)))} writes, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)
    assert tried > 60
