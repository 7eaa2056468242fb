"""Telling: who may read a post-mortem, what journald gets, and that nothing told can act on a terminal or wait."""

from __future__ import annotations

import json
import os
import resource
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sparkhost.watchdog import journal, postmortem
from sparkhost.watchdog.model import GIB, Candidate, Look, Member, Policy
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


def stuck(tell: Callable[[Pipe], None]) -> list[dict[str, Any]]:
    """What is told to a teller that does not read; then it does, and what it gets is given."""
    ready, go = os.pipe()
    with tempfile.TemporaryFile() as file:

        def work(source: socket.socket) -> None:
            os.read(ready, 1)
            while data := source.recv(1 << 18):
                file.write(data + b"\n")
            file.flush()

        pipe = Pipe(work)
        tell(pipe)
        os.write(go, b"x")
        end = time.monotonic() + 20
        while pipe._waiting and time.monotonic() < end:
            pipe.flush()
            time.sleep(0.01)
        pipe.close()
        os.waitpid(pipe.child, 0)
        os.close(ready)
        os.close(go)
        file.seek(0)
        return [json.loads(line) for line in file.read().splitlines()]


def told(kind: str, owner: int, number: int) -> dict[str, Any]:
    padding = "x" * 4000  # so that little fits into the socket
    return {"event": kind, "victim": {"owner": owner}, "number": number, "padding": padding}


def test_what_was_done_is_told_before_notices() -> None:
    def tell(pipe: Pipe) -> None:
        for number in range(100):  # more than fit into the socket
            pipe.tell({"do": "state", "number": number, "padding": "x" * 4000})
        for number in range(10):
            pipe.tell(told("kill", 1000, number))
        for number in range(1_000):
            pipe.tell({"do": "state", "number": number, "padding": "x" * 4000})
            pipe.tell(told("warning", 1001, number))

    got = stuck(tell)
    assert [message["number"] for message in got if message.get("event") == "kill"] == list(range(10))
    assert got[-1]["lost"] > 1_500


def test_the_events_of_one_owner_cost_no_other_owner_theirs() -> None:
    def tell(pipe: Pipe) -> None:
        for number in range(1_000):
            pipe.tell(told("term", 1000, number))
            if number % 100 == 50:
                pipe.tell(told("kill", 1001, number))
                pipe.tell(told("landed", 1002, number))

    got = stuck(tell)
    for owner in (1001, 1002):
        numbers = [message["number"] for message in got if message["victim"]["owner"] == owner]
        assert numbers == list(range(50, 1_000, 100))
    assert got[-1]["number"] == 999


def hostile(number: int) -> Candidate:
    """As large as its owner can make it: a cgroup of names that are no UTF-8, thousands of processes."""
    cgroup = "/user.slice/user-1001.slice" + "/".join("\udcff" * 250 for _ in range(15))
    roots = tuple(Member(pid, 1) for pid in range(20_000))
    one = Candidate(f"{cgroup}:{number}", "\udcff" * 300, "session", cgroup, roots, owner=1001, freezer=cgroup)
    return replace(one, parts=(one,) * 50)


def test_no_name_or_number_of_processes_keeps_an_event_from_being_told() -> None:
    victim = Candidate("k", NAME, "job", "/training.slice/a.service", owner=1000)
    made = event(
        "kill", Look(5.0, 9, 9, 9), Policy(), victim=victim, candidates=list(map(hostile, range(50))), time=1.0
    )
    own = event("kill", Look(5.0, 9, 9, 9), Policy(), victim=hostile(1), candidates=[], time=1.0)
    too_long = event("kill", Look(5.0, 9, 9, 9), Policy(), victim=victim, candidates=[victim], time=1.0)
    too_long["candidates"] = [{"name": "x" * 200_000}]

    def tell(pipe: Pipe) -> None:
        for message in (made, own, too_long):
            pipe.tell(message)

    first, second, third = stuck(tell)
    assert len(first["candidates"]) == 10
    assert second["victim"]["owner"] == 1001
    assert third["candidates"] == []
    assert third["lost"] == 0
    for message in (first, second, third):
        assert all(line.isprintable() for line in explain(message))


def test_how_many_were_left_out_is_in_the_journal_and_in_the_next_event(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "journal"))
        made = teller(tmp_path)
        made.take({**record(owner=0), "lost": 0})
        made.take({**record(owner=0), "lost": 17})
        made.take({**record(owner=0), "lost": 17})
        got = [parsed(receiver.recv(1 << 18)) for _ in range(4)]
    assert [fields["SPARKFLEET_EVENT"] for fields in got] == ["term", "left_out", "term", "term"]
    assert "17 messages were left out" in got[1]["MESSAGE"]
    assert "17 messages before this one were left out" in "\n".join(explain(json.loads(got[2]["SPARKFLEET_RECORD"])))
    assert "left_out" not in json.loads(got[3]["SPARKFLEET_RECORD"])


def test_a_message_that_is_none_costs_the_teller_that_message(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = teller(tmp_path)
    with ours, theirs:
        for data in (b"[" * 50_000, b"7", b"{}", b'{"do": "accepted"}', b"\xff"):
            ours.send(data)
        ours.send(json.dumps(record(owner=0)).encode())
        ours.shutdown(socket.SHUT_WR)
        made.serve(theirs)
    assert made.counts == {"term": 1}


def test_without_descriptors_a_new_teller_has_to_wait() -> None:
    pipe = Pipe(lambda source: None)
    os.waitid(os.P_PID, pipe.child, os.WEXITED | os.WNOWAIT)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        pipe.tend()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        gone = pipe.child
        pipe.tend()
        assert pipe.child != gone
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        pipe.close()
        os.waitpid(pipe.child, 0)
