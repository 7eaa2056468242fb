"""A reader that has seen enough, with every command that people call: real processes, a real pipe."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sparkhost.base.pipes import quiet_without_reader

FILES = Path(__file__).resolve().parents[2] / "files"
ENTRY = re.compile(r"^(from sparkhost[\w.]* import (?:main|top))$.*^(sys\.exit\(.*\))$", re.MULTILINE | re.DOTALL)
# What systemd starts, not a person: their output is the journal's, or the job's own.
OF_SYSTEMD = {"spark-helper", "spark-job", "spark-vllm-build", "sparkfleet-gpu-sampler", "sparkfleet-observer"}


def commands() -> dict[str, tuple[str, str]]:
    """What an entry point imports, and how it calls it, by command."""
    found = {path.name: ENTRY.search(path.read_text()) for path in sorted(FILES.glob("*/spark*")) if path.is_file()}
    return {name: (match[1], match[2]) for name, match in found.items() if match and name not in OF_SYSTEMD}


def run_without_reader(code: str) -> subprocess.CompletedProcess[str]:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=FILES / "host",
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)


def test_all_commands_are_looked_at() -> None:
    assert {"spark-run", "spark-top", "spark-why", "spark-doctor", "spark-stack", "spark-watchdog"} <= set(commands())


@pytest.mark.parametrize("name", sorted(commands()))
def test_a_command_without_a_reader_ends_without_a_word(name: str) -> None:
    imports, call = commands()[name]
    done = run_without_reader(f"import sys; {imports}; sys.argv = ['{name}', '--help']; {call}")
    assert (done.returncode, done.stderr) == (141, "")


def test_so_does_one_that_prints_more_than_is_buffered() -> None:
    head = "import sys\nfrom sparkhost.base.pipes import quiet_without_reader as q\n@q\n"
    code = f"{head}def main():\n for _ in range(9999): print('x' * 100)"
    done = run_without_reader(f"{code}\n return 0\nsys.exit(main())")
    assert (done.returncode, done.stderr) == (141, "")


def test_the_broken_pipe_of_a_socket_is_not_swallowed() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()

    def main() -> int:
        return ours.send(b"x")

    with ours, pytest.raises(BrokenPipeError):
        quiet_without_reader(main)()
