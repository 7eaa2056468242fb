"""A user at a terminal: the launcher under a real pseudoterminal, with a real job at its other side."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from sparkhost.launcher import terminal
from tests.unit.launcher_jobs import STUB

ROOT = Path(__file__).resolve().parents[2]
# What `run.launch` does around `stay`, with a stub that nobody but us starts.
LAUNCHER = f"""
import os, subprocess, sys
sys.path[:0] = [{str(ROOT / "files" / "host")!r}]
from sparkhost.launcher import inherit, report, run, stay, terminal
ours, theirs = run.pair()
command = ["/usr/bin/python3", "-IS", "-c", {STUB!r}]
stub = subprocess.Popen(command, stdin=theirs, stdout=theirs, start_new_session=True)
theirs.close()
ending = stay.stay(ours, inherit.gather(sys.argv[1:], [*os.environ.items()]), terminal.usable(), "/none")
stub.wait()
print("CODE", report.code_of(ending), "SENT", ending.sent, flush=True)
"""


@dataclass
class Screen:
    """A terminal with the launcher in its foreground."""

    pid: int
    master: int
    text: str = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, pattern: str) -> re.Match[str]:
        """Waits until the screen shows something."""
        end = time.monotonic() + 30
        while not (match := re.search(pattern, self.text)):
            left = end - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.text!r}"
            if select.select([self.master], [], [], left)[0]:
                try:
                    self.text += os.read(self.master, 65536).decode(errors="replace")
                except OSError:
                    assert re.search(pattern, self.text), f"no {pattern!r} in {self.text!r}"
        return match


def open_screen(argv: Sequence[str]) -> Screen:
    pid, master = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, *argv])
    return Screen(pid, master)


@pytest.fixture
def screens() -> Iterator[list[Screen]]:
    opened: list[Screen] = []
    yield opened
    for screen in opened:
        os.kill(screen.pid, signal.SIGKILL)
        os.waitpid(screen.pid, 0)
        os.close(screen.master)


def launch(screens: list[Screen], script: str) -> Screen:
    """Runs a shell script as a job."""
    screens.append(open_screen(["-c", LAUNCHER, "sh", "-c", script]))
    return screens[-1]


def test_the_job_has_a_terminal_of_its_own_and_the_users_size(screens: list[Screen]) -> None:
    screen = launch(screens, "read x; tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all; exit 3")
    fcntl.ioctl(screen.master, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
    screen.type("go\r")
    screen.until("CODE 3 SENT")
    assert re.search(r"/dev/pts/\d+\r\n33 77\r\nall\r\n", screen.text)


def test_a_change_of_size_reaches_the_job(screens: list[Screen]) -> None:
    screen = launch(screens, "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done")
    screen.until("ready")
    fcntl.ioctl(screen.master, termios.TIOCSWINSZ, struct.pack("4H", 12, 34, 0, 0))
    screen.until("12 34\r\n")
    screen.until("CODE 0")


@pytest.mark.parametrize(("key", "name", "code"), [("\x03", "INT", 130), ("\x1c", "QUIT", 131)])
def test_keys_end_the_job_and_not_the_launcher(screens: list[Screen], key: str, name: str, code: int) -> None:
    # Who says that it is ready must be who gets the signal: a shell that gets it before it forks waits for its child.
    sleeper = "import signal, time; signal.signal(2, signal.SIG_DFL); print('ready', flush=True); time.sleep(60)"
    screen = launch(screens, f'ulimit -c 0; exec python3 -c "{sleeper}"')
    screen.until("ready")
    screen.type(key)
    screen.until(f"CODE {code} ")


def test_a_job_may_handle_ctrl_c_and_go_on(screens: list[Screen]) -> None:
    screen = launch(
        screens, "trap 'echo saved' INT; echo ready; while [ -z \"$x\" ]; do read x; done; echo read $x; exit 7"
    )
    screen.until("ready")
    screen.type("\x03")
    screen.until("saved")
    screen.type("more\r")
    screen.until("read more")
    screen.until("CODE 7 ")


def test_the_users_terminal_is_as_it_was(screens: list[Screen]) -> None:
    screen = launch(screens, "stty -echo; echo ready; kill -9 $$")
    before = termios.tcgetattr(screen.master)
    screen.until("CODE 137")
    assert termios.tcgetattr(screen.master) == before


def test_all_of_a_long_output_is_shown(screens: list[Screen]) -> None:
    screen = launch(screens, "seq 20000")
    screen.until("CODE 0")
    assert re.findall(r"(\d+)\r\n", screen.text)[:20000] == [str(n) for n in range(1, 20001)]


def test_input_that_the_job_does_not_read_holds_nothing_up(screens: list[Screen]) -> None:
    screen = launch(screens, "stty raw -echo; echo ready; sleep 0.3; seq 2000; exit 4")
    screen.until("ready")
    for _ in range(20):
        if select.select([], [screen.master], [], 0)[1]:
            screen.type("x" * 1000)
    screen.until("CODE 4")


def test_end_of_file_is_a_key(screens: list[Screen]) -> None:
    screen = launch(screens, "cat; echo over")
    screen.type("line\r")
    screen.until("line\r\nline\r\n")
    screen.type("\x04")
    screen.until("over")
    screen.until("CODE 0")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_signals_to_the_launcher_reach_the_job(screens: list[Screen], number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    screen = launch(screens, f"trap 'exit 9' {name}; echo ready; while :; do sleep 0.05; done")
    screen.until("ready")
    os.kill(screen.pid, number)
    screen.until(rf"CODE 9 SENT \[{number.value}\]")


def test_with_a_pipe_the_job_gets_what_the_caller_has(screens: list[Screen]) -> None:
    inner = f"{sys.executable} -c '{{}}' sh -c 'test -t 1 || echo piped; exit 6' | tr a-z A-Z"
    path = f"import sys; exec({LAUNCHER!r})"
    screens.append(
        open_screen(
            [
                "-c",
                "import os, sys; os.execvp('sh', ['sh', '-c', *sys.argv[1:]])",
                inner.replace("{}", path.replace("'", "'\\''")),
            ]
        )
    )
    screens[-1].until("PIPED")
    screens[-1].until("CODE 6")


def test_without_a_terminal_none_is_made() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(reading, 0)
        os._exit(int(terminal.usable()))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(reading)
    os.close(writing)
