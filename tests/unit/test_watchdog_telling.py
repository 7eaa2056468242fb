"""Telling: who may read a post-mortem, what journald gets, and that nothing told can act on a terminal or wait."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sparkhost.watchdog import journal, postmortem
from sparkhost.watchdog.model import GIB, Candidate, Look, Policy
from sparkhost.watchdog.pipe import MOST_WAITING, Pipe
from sparkhost.watchdog.report import event, explain, headline
from sparkhost.watchdog.teller import Teller

NAME = "x\x1b[2J\nPRIORITY=0\u202e"


def record(owner: int = 1000, **more: Any) -> dict[str, Any]:
    victim = Candidate("k", NAME, "job", "/training.slice/a.service", owner=owner, gpu=60 * GIB, anonymous=GIB)
    look = Look(5.0, 120 * GIB, 12 * GIB, GIB, slope=-4.0 * GIB)
    made = event("term", look, Policy(), victim=victim, candidates=[victim], reason="it is so", time=1000.0, **more)
    return json.loads(json.dumps(made))  # type: ignore[no-any-return]


def teller(folder: Path, **more: Any) -> Teller:
    for name in ("state", "run", "pts"):
        (folder / name).mkdir(exist_ok=True)
    places = {"terminals_dir": folder / "pts", "journal_socket": str(folder / "journal")}
    return Teller(folder / "state", folder / "run", **{**places, **more})


def read_as(user: int, path: Path) -> bool:
    """Whether a process of that user can read a file."""
    code = f"import os, sys; os.setgroups([]); os.setgid({user}); os.setuid({user}); open(sys.argv[1]).read()"
    return not subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=False).returncode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
@pytest.mark.parametrize("lists", [True, False])
def test_a_post_mortem_is_read_by_its_owner_and_nobody_else(lists: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With access lists, and on a file system that has none (an unknown attribute is refused in the same way)."""
    folder = Path("/var/tmp") / f"sparkfleet-test-{os.getpid()}"
    folder.mkdir(mode=0o755)
    try:
        if not lists:
            monkeypatch.setattr(postmortem, "ACL", "system.no_such_list")
        postmortem.keep(folder, record(owner=64001))
        (path,) = (folder / "events").iterdir()
        assert read_as(64001, path)
        assert read_as(64001, folder / "notices" / "64001")
        assert not read_as(64002, path)
        assert not path.stat().st_mode & stat.S_IWGRP
        assert path.stat().st_uid == (0 if lists else 64001)
    finally:
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()


def test_post_mortems_are_bounded_in_number(tmp_path: Path) -> None:
    for number in range(postmortem.KEPT + 5):
        postmortem.keep(tmp_path, {**record(owner=0), "time": float(number)})
    names = sorted(path.name for path in (tmp_path / "events").iterdir())
    assert len(names) == postmortem.KEPT
    assert names[0].startswith(f"{5000:015d}")
    assert next(postmortem.readable(tmp_path))["time"] == postmortem.KEPT + 4


def test_what_a_user_called_a_process_acts_on_no_terminal() -> None:
    for line in (headline(record()), *explain(record())):
        assert line.isprintable()
    assert "60.0 GiB on the GPU" in "\n".join(explain(record()))


def parsed(data: bytes) -> dict[str, str]:
    """The fields of a datagram, by the protocol's own rules."""
    fields = {}
    while data:
        line, _, data = data.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
        else:
            name, length = line, int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + length], data[8 + length + 1 :]
        fields[name.decode()] = value.decode()
    return fields


def test_journald_gets_every_number_and_no_field_by_a_name_with_a_newline(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "journal"))
        teller(tmp_path).event(record())
        fields = parsed(receiver.recv(1 << 18))
    assert fields["PRIORITY"] == "4"
    assert fields["SPARKFLEET_VICTIM_NAME"] == NAME
    assert fields["SPARKFLEET_AVAILABLE"] == str(12 * GIB)
    assert json.loads(fields["SPARKFLEET_RECORD"])["policy"] == asdict(Policy())


def test_a_journald_that_is_stopped_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "journal"))
        made = teller(tmp_path)
        began = time.monotonic()
        for _ in range(1000):  # far more than a socket's queue takes (net.unix.max_dgram_qlen)
            made._try("journal", lambda: journal.send(made.journal_socket, "x", record()))
            if made._failed:
                break
        assert made._failed
        assert time.monotonic() - began < 60


def test_a_full_disk_does_not_keep_journald_from_its_record(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "journal"))
        made = teller(tmp_path)
        made.state_dir = Path("/dev/full")
        made.event(record())
        assert parsed(receiver.recv(1 << 18))["SPARKFLEET_EVENT"] == "term"
        assert made._failed.startswith("post-mortem: ")


def test_metrics_are_of_the_exporters_format(tmp_path: Path) -> None:
    made = teller(tmp_path, textfile=str(tmp_path))
    made.event(record())
    made.state({"looks": 7, "look": asdict(Look(1, 2, 3, 4)), "lost": 0})
    lines = (tmp_path / "sparkfleet-watchdog.prom").read_text().splitlines()
    assert 'sparkfleet_watchdog_events_total{kind="term"} 1' in lines
    assert "sparkfleet_watchdog_looks_total 7" in lines
    for line in lines:
        assert line.startswith("#") or (len(line.split(" ")) == 2 and float(line.split(" ")[1]) >= 0)


def test_a_teller_that_never_reads_costs_no_time_and_no_growing_memory() -> None:
    pipe = Pipe(lambda source: time.sleep(600))
    try:
        began = time.monotonic()
        for _ in range(5 * MOST_WAITING):
            pipe.tell({"event": "x" * 4096})
        assert time.monotonic() - began < 10
        assert len(pipe._waiting) == MOST_WAITING
        assert pipe.lost > 0
    finally:
        pipe.close()
        os.kill(pipe.child, 9)
        os.waitpid(pipe.child, 0)


def test_a_teller_that_has_ended_is_started_anew_and_gets_what_waited(tmp_path: Path) -> None:
    def once(source: socket.socket) -> None:
        with (tmp_path / "got").open("ab") as file:
            file.write(source.recv(1 << 16) + b"\n")

    pipe = Pipe(once)
    try:
        for number in range(3):
            pipe.tell({"number": number})
            end = time.monotonic() + 20
            while not os.waitid(os.P_PID, pipe.child, os.WEXITED | os.WNOWAIT | os.WNOHANG) and time.monotonic() < end:
                time.sleep(0.01)
            pipe.tend()
        assert [json.loads(line)["number"] for line in (tmp_path / "got").read_text().splitlines()] == [0, 1, 2]
    finally:
        pipe.close()
        os.waitpid(pipe.child, 0)
