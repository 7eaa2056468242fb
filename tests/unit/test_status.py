"""`sparkfleet status` and `watch` against hosts that stream, break off and lie (tests/doubles/status_host.py)."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.enrol.ssh import Route
from sparkfleet.status import program, shape, stream
from sparkfleet.status.stream import Link, Streams
from tests.doubles import sshd, status_host
from tests.doubles.status_host import GIB, Host

CLI = (sys.executable, "-m", "sparkfleet.cli")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
EVIL = "\x1b[31m<img src=x onerror=pwned=1>[red]\u202e"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as one:
        yield one


def fleet(stack: ExitStack, folder: Path, **commands: sshd.Command) -> Path:
    """A fleet file of such hosts."""
    ports = {n: stack.enter_context(sshd.serving(c, kind=status_host.Server)) for n, c in commands.items()}
    return sshd.fleet_of(folder, ports)


def called(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "COLUMNS": "200"}
    return subprocess.run([*CLI, *words], env=env, capture_output=True, text=True, timeout=120, check=False)


def told(path: Path, home: Path, *more: str) -> tuple[int, dict[str, Any]]:
    """Exit code, and by host what `status --json` says."""
    done = called("status", "--json", "--fleet", str(path), *more, home=home)
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert document["version"] == 1
    return done.returncode, {host["name"]: host for host in document["hosts"]}


def test_a_calm_host_is_told_as_it_says(stack: ExitStack, tmp_path: Path) -> None:
    host = Host()
    code, hosts = told(fleet(stack, tmp_path, spark1=host.command), tmp_path)
    assert code == 0
    spark = hosts["spark1"]
    assert (spark["link"], spark["needs"], spark["problem"]) == ("up", [], "")
    for key, value in status_host.says().items():
        if key not in ("v", "at"):
            assert spark["host"][key] == value, key


def test_bad_hosts_cost_their_own_line_only(stack: ExitStack, tmp_path: Path) -> None:
    calm, killed = Host(), Host(status_host.says(kill=status_host.kill(EVIL, EVIL), warnings=[EVIL]))
    path = fleet(
        stack,
        tmp_path,
        calm=calm.command,
        endless=status_host.endless_line,
        fast=status_host.endless_lines,
        killed=killed.command,
        nonsense=status_host.nonsense,
    )
    code, hosts = told(path, tmp_path, "--timeout", "20")
    assert code == 3
    # Whether more than its first line was heard before all others had answered is a matter of time.
    assert hosts.pop("fast")["link"] in ("up", "broken")
    assert {name: host["link"] for name, host in hosts.items()} == {
        "calm": "up",
        "killed": "up",
        "endless": "broken",
        "nonsense": "broken",
    }
    # The host that needs nobody is last.
    assert list(hosts)[-1] == "calm"
    text = json.dumps(hosts, ensure_ascii=False)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b[31m<img src=x" in hosts["killed"]["host"]["kill"]["name"]
    shown = called("status", "--fleet", str(path), "--timeout", "20", home=tmp_path)
    assert shown.returncode == 3
    assert all(char.isprintable() or char == "\n" for char in shown.stdout)
    # Text in square brackets is no markup.
    assert "[red]" in shown.stdout


def test_a_host_that_is_not_there_is_gone_and_says_why(tmp_path: Path) -> None:
    with sshd.silent() as port:
        path = sshd.fleet_of(tmp_path, {"gone": port, "refuses": 1})
        code, hosts = told(path, tmp_path, "--timeout", "3")
    assert code == 3
    assert hosts["gone"]["needs"][0] == {
        "level": "act",
        "kind": "gone",
        "text": "is gone: no answer within 3 s",
    }
    assert "refused" in hosts["refuses"]["problem"]


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not within its time"
        time.sleep(0.02)


def route(folder: Path, port: int) -> Route:
    sshd.fleet_of(folder, {"h": port})
    return Route("h", "127.0.0.1", port, "admin", folder / "known_hosts", folder / "key")


def test_changes_come_within_a_line_and_silence_is_late_then_gone(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LATE", 0.6)
    monkeypatch.setattr(stream, "GONE", 1.5)
    host = Host()
    port = stack.enter_context(sshd.serving(host.command, kind=status_host.Server))
    streams = stack.enter_context(Streams([route(tmp_path, port)]))
    until(lambda: streams.heard()["h"].link is Link.UP)
    began = time.monotonic()
    host.say(kill=status_host.kill(), reboot="for linux-image-nvidia")
    until(lambda: bool((says := streams.heard()["h"].says) and says.kill and says.reboot))
    assert time.monotonic() - began < 2
    says = streams.heard()["h"].says
    assert says is not None
    assert says.memory.total == 120 * GIB, "what a line does not name stays"
    host.silent.set()
    until(lambda: streams.heard()["h"].link is Link.LATE)
    until(lambda: streams.heard()["h"].link is Link.GONE)
    assert streams.heard()["h"].says == says, "what it said last stays to be seen"
    until(lambda: streams.connections["h"].process is None)
    host.silent.clear()
    until(lambda: streams.heard()["h"].link is Link.UP)
    assert host.connections == 2, "the first connection was given up, and one made again"


def test_no_ssh_is_left_when_it_ends(stack: ExitStack, tmp_path: Path) -> None:
    host = Host()
    port = stack.enter_context(sshd.serving(host.command, kind=status_host.Server))
    with Streams([route(tmp_path, port)]) as streams:
        until(lambda: streams.heard()["h"].link is Link.UP)
        process = streams.connections["h"].process
        assert process is not None
    assert process.returncode is not None


def test_the_program_runs_from_one_line_on_any_shell_and_ends_with_its_input() -> None:
    for shell in ("sh", "bash"):
        process = subprocess.Popen([shell, "-c", program.command()], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin
        assert process.stdout
        process.stdin.write(program.source())
        process.stdin.flush()
        first = shape.merged(None, process.stdout.readline())
        second = shape.merged(first, process.stdout.readline())
        assert second.memory.total == first.memory.total > 0
        assert second.at > first.at
        process.stdin.close()
        assert process.wait(5) == 0
        process.stdout.close()
    assert not set("'\\!\n") & set(program.command().removeprefix("sh -c '").removesuffix("'"))


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b'{"v":2}',
        b'{"v":1,"memory":{"total":-1}}',
        b'{"v":1,"memory":{"total":1e99}}',
        b'{"v":1,"temperature":NaN}',
        b'{"v":1,"jobs":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"v":1,"events":[{"at":1,"event":"kill","why":[' + b'"x",' * 40 + b'"x"]}]}',
        b'{"v":1,"owners":[{"owner":1}]}',
        b'{"v":1,"up":"' + b"9" * 5000 + b'"}',
    ],
)
def test_what_cannot_be_is_refused_in_one_line(line: bytes) -> None:
    with pytest.raises(shape.NotAStatus) as found:
        shape.merged(None, line)
    assert str(found.value).isprintable()
    assert len(str(found.value)) < 300


class Terminal:
    """`sparkfleet watch` on a pseudoterminal."""

    def __init__(self, path: Path, home: Path) -> None:
        self.main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 180, 0, 0))
        self.before = termios.tcgetattr(side)
        env = {**os.environ, "HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "TERM": "xterm-256color"}
        words = [*CLI, "watch", "--fleet", str(path)]
        self.process = subprocess.Popen(words, stdin=side, stdout=side, stderr=side, env=env, start_new_session=True)
        self.side = side
        self.said = ""

    def until(self, pattern: str, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not re.search(pattern, COLOURS.sub("", self.said), re.DOTALL):
            if time.monotonic() > end:
                pytest.fail(f"{pattern}: {' '.join(COLOURS.sub('', self.said).split())[-1500:]}")
            if select.select([self.main], [], [], 0.2)[0]:
                self.said += os.read(self.main, 65536).decode(errors="replace")

    def press(self, keys: str) -> None:
        self.said = ""
        os.write(self.main, keys.encode())


def test_the_live_terminal(stack: ExitStack, tmp_path: Path) -> None:
    event = status_host.kill("train.py")
    hostile = {**event, "text": EVIL}
    calm, killed = Host(), Host(status_host.says(kill=event, events=[hostile], warnings=[EVIL]))
    path = fleet(stack, tmp_path, calm=calm.command, killed=killed.command)
    terminal = Terminal(path, tmp_path)
    terminal.until(r"● killed.*was killed.*● calm")
    terminal.press("\r")
    terminal.until(r"sft.*60\.0 GiB.*<img src=x.*Esc back")
    terminal.until(r"asks\s+below\s+16\.0\s+GiB")  # wherever the line is broken
    terminal.press("w")
    terminal.until(r"shares its memory with the GPU")
    terminal.press("l")
    terminal.until(r"l again")
    terminal.press("\x1b")
    time.sleep(0.1)
    terminal.press("\x1b")
    terminal.until(r"● calm")
    assert "\x1b[31m<img" not in terminal.said
    assert "\u202e" not in terminal.said
    calm.say(memory={**calm.state["memory"], "available": 3 * GIB})
    terminal.until(r"memory is short: 3\.0 GiB")
    terminal.press("q")
    assert terminal.process.wait(20) == 0
    assert termios.tcgetattr(terminal.side)[3] == terminal.before[3], "the terminal is as it was"


def test_watch_without_a_terminal_names_the_other_ways(stack: ExitStack, tmp_path: Path) -> None:
    done = called("watch", "--fleet", str(fleet(stack, tmp_path, a=Host().command)), home=tmp_path)
    assert done.returncode == 4
    assert "watch --web" in done.stderr


def test_hosts_that_are_off_do_not_keep_the_others_waiting(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "AT_ONCE", 2)
    monkeypatch.setattr(stream, "STARTING", 0.5)
    ports = {f"off{at}": stack.enter_context(sshd.silent()) for at in range(6)}
    ports["on"] = stack.enter_context(sshd.serving(Host().command, kind=status_host.Server))
    sshd.fleet_of(tmp_path, ports)
    pins, key = tmp_path / "known_hosts", tmp_path / "key"
    streams = stack.enter_context(
        Streams([Route(name, "127.0.0.1", port, "admin", pins, key) for name, port in ports.items()])
    )
    until(lambda: streams.heard()["on"].link is Link.UP, 15)
    assert streams.heard()["off0"].link is Link.ASKED


def test_a_host_that_says_too_much_is_broken_and_left_alone(stack: ExitStack, tmp_path: Path) -> None:
    port = stack.enter_context(sshd.serving(status_host.endless_lines, kind=status_host.Server))
    streams = stack.enter_context(Streams([route(tmp_path, port)]))
    until(lambda: streams.heard()["h"].link is Link.BROKEN)
    assert streams.heard()["h"].problem == "it says more than 3 lines a second"
    assert streams.connections["h"].process is None
    assert streams.connections["h"].due > time.monotonic() + 30
