"""Programs of others: what they may say and take, and what they leave behind."""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

import pytest

from sparkfleet import child
from sparkfleet.child import Limits


def is_alive(pid: int) -> bool:
    """A zombie is not: in a container nobody may take its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def waited_for(pid: int) -> bool:
    """Whether a process ends within a few seconds."""
    until = time.monotonic() + 5
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not is_alive(pid)


def test_input_output_and_errors_are_kept_apart() -> None:
    done = child.run(["sh", "-c", "cat; echo error >&2; exit 3"], Limits(20), b"data" * 100_000)
    assert (done.rc, done.stdout, done.stderr) == (3, b"data" * 100_000, b"error\n")
    assert done.lines() == ["error"]


@pytest.mark.parametrize("command", ["yes", "yes >&2", "sleep 300"])
def test_what_goes_beyond_a_limit_is_ended_with_all_that_it_started(command: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    line = f"sleep 300 & echo $! >{pids}; echo $$ >>{pids}; exec {command}"
    with pytest.raises(child.OutOfBounds):
        child.run(line, Limits(1.5))
    assert all(waited_for(int(pid)) for pid in pids.read_text().split())


def test_errors_without_end_take_no_memory_and_the_last_are_kept() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = child.run("head -c 300000000 /dev/zero >&2; echo last >&2", Limits(60))
    assert done.stderr.endswith(b"\0last\n")
    assert len(done.stderr) <= child.ERRORS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


def test_the_end_of_a_long_output_can_be_kept_instead() -> None:
    done = child.run("head -c 9000000 /dev/zero; echo last", Limits(60, last=True))
    assert done.stdout.endswith(b"\0last\n")
    assert len(done.stdout) <= 2 * child.MIB


def test_a_reply_takes_no_time_and_is_given_when_it_is_asked_for() -> None:
    def reply(output: bytes | bytearray) -> bytes | None:
        if not output.endswith(b"who?\n"):
            return None
        time.sleep(1.2)  # a person is asked
        return b"me\n"

    done = child.run("read -r request; echo who?; read -r word; echo $request $word", Limits(1), b"x\n", reply)
    assert done.stdout == b"who?\nx me\n"


def test_a_program_that_may_ask_stays_at_the_terminal() -> None:
    told = [sys.executable, "-c", "import os; print(os.getpgrp(), os.getsid(0))"]
    kept = child.run(told, Limits(20), terminal=True).stdout.split()
    assert kept == [str(os.getpgrp()).encode(), str(os.getsid(0)).encode()]
    other = child.run(told, Limits(20)).stdout.split()
    assert other[0] == other[1] != kept[0]


def test_a_program_that_reads_nothing_and_ends_is_no_mistake() -> None:
    assert child.run(["true"], Limits(20), b"x" * 1_000_000).rc == 0
    with pytest.raises(FileNotFoundError):
        child.run(["/nonexistent"], Limits(1))
