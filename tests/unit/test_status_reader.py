"""The reader of a host's status, on a tree of files as a Spark has them."""

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
from pathlib import Path
from typing import Any

import pytest

from sparkhost.observer import ring
from sparkhost.status import history, parts, screen
from sparkhost.status.parts import Places
from sparkhost.status.reader import LONGEST_WALK, Reader

GIB = 2**30
UID, ME = 54321, "54321"  # of nobody here
STAT = "anon {anon}\nshmem 0\nkernel_stack 0\npagetables 0\npercpu 0\nsock 0\nslab_unreclaimable 0\n"
FILES = Path(__file__).resolve().parents[2] / "files" / "host"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def cgroup(places: Places, name: str, anon: int, most: str = "max") -> None:
    write(places.cgroups / name / "memory.stat", STAT.format(anon=anon))
    write(places.cgroups / name / "memory.max", most)


def sample(places: Places, **processes: int) -> None:
    device = {"name": "NVIDIA GB10", "unified": True, "processes": processes, "clock": 2100, "most": 3003}
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    write(places.gpu, json.dumps({"version": 1, "boottime": now, "error": None, "devices": [device]}))


def event(places: Places, kind: str, at: float, **more: Any) -> None:
    """A post-mortem as the watchdog keeps it."""
    look = {"time": 1.0, "total": 120 * GIB, "available": 7 * GIB, "free": GIB, "slope": -1e9, "stall": 0.0}
    victim = {"key": "k", "name": "job 1 (\x1b[31mpython)", "owner": UID, "size": 50 * GIB, "gpu": 40 * GIB}
    victim |= {
        "anonymous": 10 * GIB,
        "shared": 0,
        "processes": 2,
        "cgroup": "/training.slice/x",
        "kind": "job",
        "promise": None,
    }
    record = {
        "event": kind,
        "time": at,
        "look": look,
        "policy": {"term_below": 16 * GIB, "kill_below": 8 * GIB},
        "victim": victim,
        "candidates": [],
        "reason": "it took what others needed",
        "dry_run": False,
        **more,
    }
    write(places.events / f"{int(at * 1000):015d}-{kind}.json", json.dumps(record))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A Spark with one job that is on the GPU, a service, and what a deploy has left."""
    one = Places(*(tmp_path / name for name in ("proc", "cgroups", "sys", "run", "etc", "state")))
    write(one.proc / "meminfo", f"MemTotal: {120 * 2**20} kB\nMemFree: {2**20} kB\nMemAvailable: {60 * 2**20} kB\n")
    job = f"spark-job-{UID}-0a1b2c3d.service"
    cgroup(one, f"training.slice/{job}", 10 * GIB, str(60 * GIB))
    cgroup(one, "system.slice/slurmd.service", 3 * GIB)
    write(one.proc / "77/cgroup", f"0::/training.slice/{job}\n")
    sample(one, **{"77": 20 * GIB})
    write(one.run / "systemd/transient" / job, f"[Unit]\nDescription=Training job sft of user {UID}\n")
    write(one.etc / "os-release", 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\n')
    deploy = {"version": "0.1.0", "at": "2026-11-20T10:00:00Z", "ended": "x", "measures": {"swap": {"result": "clean"}}}
    write(one.state / "applied.json", json.dumps({"format": 1, "measures": {}, "deploys": [deploy]}))
    for at, degrees in enumerate((41000, 63900, 999000)):
        write(one.system / f"class/thermal/thermal_zone{at}/temp", f"{degrees}\n")
    write(one.system / "class/infiniband/roce0/ports/1/state", "4: ACTIVE\n")
    write(one.system / "class/infiniband/roce0/ports/1/rate", "200 Gb/sec (4X HDR)\n")
    write(one.run / "sparkfleet/queue.json", json.dumps([["t", UID, time.clock_gettime(time.CLOCK_BOOTTIME)]]))
    return one


def test_the_first_look_says_everything_and_the_next_one_what_has_changed(places: Places) -> None:
    reader = Reader(places)
    first = reader.look()
    assert first["memory"] == {
        "total": 120 * GIB,
        "available": 60 * GIB,
        "free": GIB,
        "cpu": 40 * GIB,
        "gpu": 20 * GIB,
        "gpu_own": 0,
    }
    assert first["jobs"] == [
        {"id": "0a1b2c3d", "owner": ME, "name": "sft", "promise": 60 * GIB, "cpu": 10 * GIB, "gpu": 20 * GIB}
    ]
    assert {"owner": ME, "cpu": 10 * GIB, "gpu": 20 * GIB} in first["owners"]
    assert first["waiting"] == [{"owner": ME, "jobs": 1}]
    assert first["gpus"] == [{"name": "NVIDIA GB10", "clock": 2100, "most": 3003}]
    assert first["temperature"] == 63, "a sensor that says 999 °C is broken"
    assert first["links"] == [{"name": "roce0", "state": "active", "gbits": 200}]
    assert first["release"]["version"] == "0.1.0"
    assert first["release"]["system"] == "Ubuntu 24.04.3 LTS"
    assert first["reboot"] == ""
    assert first["kill"] is None
    assert reader.look().keys() == {"v", "at"}
    write(places.proc / "meminfo", f"MemTotal: {120 * 2**20} kB\nMemFree: 0 kB\nMemAvailable: {50 * 2**20} kB\n")
    assert reader.look().keys() == {"v", "at", "memory"}


def test_a_kill_is_seen_at_once_and_a_rehearsal_is_none(places: Places) -> None:
    reader = Reader(places)
    reader.look()
    now = time.time()
    event(places, "kill", now - 5)
    event(places, "kill", now - 1, dry_run=True)
    found = reader.look()
    assert found["kill"]["at"] == pytest.approx(now - 5)
    assert found["kill"]["owner"] == ME
    assert found["kill"]["name"] == "job 1 (?[31mpython)"
    assert [one["dry_run"] for one in found["events"]] == [True, False]
    assert any("freezes when none is left" in line for line in found["events"][0]["why"])


def test_of_many_events_and_owners_there_is_an_end(places: Places) -> None:
    for at in range(30):
        event(places, "term", 1e9 + at)
        cgroup(places, f"system.slice/docker-{at:012x}{'0' * 52}.scope", GIB)
    first = Reader(places).look()
    assert len(first["events"]) == parts.EVENTS
    assert first["events"][0]["at"] == 1e9 + 29
    assert len(first["owners"]) == parts.MOST_OWNERS + 1
    assert first["owners"][-1]["owner"] == parts.REST
    assert sum(one["cpu"] for one in first["owners"]) == 43 * GIB, "the rest is told as one, not lost"


def test_broken_files_cost_themselves(places: Places) -> None:
    for path in (places.gpu, places.watchdog, places.observer, places.state / "applied.json"):
        write(path, "[" * 100_000)
    write(places.run / "sparkfleet/queue.json", "\x00")
    write(places.events / "1-kill.json", '{"event": "kill"}')
    first = Reader(places).look()
    assert first["memory"]["gpu"] is None
    assert first["memory"]["cpu"] == 60 * GIB, "what is on the GPU is in use all the same"
    assert first["release"]["version"] == ""
    assert first["waiting"] == []
    assert first["events"] == []
    assert "not the memory watchdog's" in first["floor"]["problem"]


def test_walking_waits_until_it_is_paid_for(places: Places) -> None:
    now, spent = [0.0], [0.0]
    reader = Reader(places, clock=lambda: now[0], cpu=lambda: spent[0])

    def walked() -> bool:
        cgroup(places, "system.slice/slurmd.service", int(now[0] + 1) * GIB)
        return "owners" in reader.look()

    assert walked()
    spent[0] += 0.02  # 20 ms: worth 5 s at 0.4 %
    now[0] = 4.0
    assert not walked()
    now[0] = 5.5
    assert walked()
    spent[0] += 1.0
    now[0] += LONGEST_WALK - 1
    assert not walked()
    now[0] += 2
    assert walked(), "a figure is never older than this without a word"


def test_a_day_of_minutes_comes_once_and_then_what_is_new(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    kept = [history.Minute(time.time() - 120, 1, 2, 3)]
    monkeypatch.setattr(history, "KEEPERS", [lambda since: kept])
    reader = Reader(places, clock=lambda: now[0])
    assert reader.look()["history"] == [list(kept[0])]
    now[0] = 70.0
    assert "history" not in reader.look()
    kept.append(history.Minute(time.time() - 60, 4, 5, None))
    now[0] = 140.0
    assert reader.look()["history"] == [list(kept[1])]


def test_the_observers_ring_is_a_day(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    kept = ring.Ring(path)
    holders = (ring.Holder(7, "python", GIB, 30 * GIB), ring.Holder(8, "python", GIB, 5 * GIB))
    for at in range(3):
        sizes = {"total": 120 * GIB, "available": (60 + at) * GIB}
        for kind in (ring.SECOND, ring.MINUTE):
            kept.write(ring.Sample(1e9 + 60 * at, 1.0, "0" * 32, kind, **sizes, holders=holders))
    assert list(history.of_ring(1e9, str(path))) == [
        (1e9 + 60, 61 * GIB, 24 * GIB, 35 * GIB),
        (1e9 + 120, 62 * GIB, 23 * GIB, 35 * GIB),
    ]


def test_where_nothing_keeps_a_day_there_is_none(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEEPERS", [lambda since: history.of_ring(since, str(places.run / "none"))])
    assert history.minutes(0.0) == []
    assert "history" not in Reader(places).look()


def test_who_reads_no_more_ends_it() -> None:
    command = [sys.executable, "-c", "import sys; from sparkhost.status.main import main; sys.exit(main(0.05))"]
    for ends in ("stdin", "stdout"):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(FILES)}
        )
        assert process.stdout
        assert select.select([process.stdout], [], [], 20)[0]
        stream = getattr(process, ends)
        stream.close()
        assert process.wait(10) == 0, ends
        for other in (process.stdin, process.stdout):
            if other:
                other.close()


def test_spark_top_watches_on_a_terminal_and_leaves_it_as_it_was() -> None:
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    before = termios.tcgetattr(side)
    code = "import sys; from sparkhost.launcher.cli import top; sys.exit(top(['--watch']))"
    environment = {**os.environ, "PYTHONPATH": str(FILES), "TERM": "xterm"}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=side, stdout=side, stderr=side, env=environment)
    said = b""
    until = time.monotonic() + 30
    while said.count(b"available of") < 2 and time.monotonic() < until:
        if select.select([main], [], [], 0.5)[0]:
            said += os.read(main, 65536)
    os.write(main, b"q")
    assert process.wait(10) == 0
    said += os.read(main, 65536)
    assert said.count(b"available of") >= 2, "it is drawn again"
    assert b"q quit" in said
    assert said.endswith(b"\x1b[?25h\x1b[?1049l")
    assert termios.tcgetattr(side)[3] == before[3]
    for descriptor in (main, side):
        os.close(descriptor)


def test_the_screen_has_jobs_owners_and_events_and_nothing_scrolls(places: Places) -> None:
    event(places, "kill", time.time() - 5)
    write(places.run / "reboot-required", "")
    reader = Reader(places)
    reader.look()
    found = [text for _, text in screen.lines(reader.seen, 80, "spark1")]
    shown = "\n".join(found)
    assert re.search(rf"0a1b2c3d  sft +{ME} +60.0 GiB +30.0 GiB +10.0 GiB +20.0 GiB", shown)
    assert f"█ {ME} 30.0 GiB  ▓ root 3.0 GiB" in shown
    assert "█" * 20 + "▓" * 2 + "·" in shown, "a quarter of 80 columns, and a fortieth"
    assert "job 1 (?[31mpython) (50.0 GiB) killed" in shown
    assert "a reboot is pending" in shown
    assert f"waits: {ME} 1" in shown
    many = [("", "x" * 500)] * 500
    drawn = screen.frame(many, 80, 24)
    assert drawn.count("\r\n") == 23
    assert max(len(line) for line in re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", drawn).split("\r\n")) == 80
