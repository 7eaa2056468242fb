"""The observer on a host: what it reads, that it outlives whatever it finds there, and who shows what it wrote."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkfleet.settings import WatchdogSettings
from sparkhost.base.units import GIB
from sparkhost.launcher import cli
from sparkhost.observer import look, told
from sparkhost.observer.alarms import Alarm
from sparkhost.observer.main import Observer
from sparkhost.watchdog import floors, metrics, why
from sparkhost.watchdog.alive import absence
from tests.unit.watchdog_host import made_host, until

ROOT = Path(__file__).resolve().parents[2]
UNIFIED = next(
    (p for p in map(Path, ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")) if (p / "cgroup.procs").exists()), None
)
ENGINE = "/user.slice/user-1001.slice/session-7.scope"


def meminfo(free: float) -> str:
    sizes = {"MemTotal": 121.6, "MemFree": free, "MemAvailable": free + 8, "Cached": 8, "AnonPages": 9, "Slab": 2}
    return "".join(f"{name}: {int(size * 2**20):8} kB\n" for name, size in sizes.items())


class Host:
    """A directory that stands for a host."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroups, self.sample = folder / "proc", folder / "cgroup", folder / "sample.json"
        (self.cgroups / "system.slice").mkdir(parents=True)
        (self.cgroups / "system.slice" / "memory.stat").write_text("kernel 100\nslab 40\n")
        self.proc.mkdir()
        (self.proc / "zoneinfo").write_text("  cpu: 0\n    count: 0\n")
        (self.proc / "meminfo").write_text(meminfo(100))
        self.gpu({})
        self.observer = Observer(self.proc, self.cgroups, str(self.sample), ask=dict)
        self.now = 1000.0

    def gpu(self, processes: dict[int, int], error: str | None = None, unified: bool = True) -> None:
        """`unified`: False where more is held than the machine has that the test runs on."""
        device = {"name": "NVIDIA GB10", "unified": unified, "processes": processes}
        value = {"boottime": time.clock_gettime(time.CLOCK_BOOTTIME), "error": error, "devices": [device]}
        self.sample.write_text(json.dumps(value))

    def process(self, pid: int, name: str, parent: int, cgroup: str) -> None:
        (self.proc / str(pid)).mkdir(exist_ok=True)
        stat = f"{pid} ({name}) S {parent} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 0 9 0"
        (self.proc / str(pid) / "stat").write_text(stat)
        (self.proc / str(pid) / "cgroup").write_text(f"0::{cgroup}\n")

    def looks(self, number: int) -> list[Alarm]:
        """So many looks, 10 s apart; the alarms that hold after the last."""
        held: list[Alarm] = []
        for _ in range(number):
            held, _, _ = self.observer.look(self.now)
            self.now += 10
        return held


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def kinds(alarms: list[Alarm]) -> list[str]:
    return [alarm.kind for alarm in alarms]


def test_memory_that_does_not_come_back_after_the_last_program_is_told_after_a_minute(host: Host) -> None:
    assert host.looks(10) == []
    (host.proc / "meminfo").write_text(meminfo(67))
    assert host.looks(6) == []
    (told_,) = host.looks(1)
    assert told_.text.startswith("35.6 GiB of memory are held by nobody")
    assert "reboot this host when it is idle" in told_.remedy
    (host.proc / "meminfo").write_text(meminfo(100))
    assert host.looks(1) == []


def test_nothing_is_lost_while_a_program_is_on_a_gpu_or_nobody_knows(host: Host) -> None:
    """Memory that the driver manages for a program may be in no figure of its own."""
    (host.proc / "meminfo").write_text(meminfo(67))
    host.gpu({77: 1})
    assert host.looks(20) == []
    assert host.observer.figures["unaccounted"] > 30 * GIB
    host.gpu({77: 1 << 60})
    assert host.looks(20) == []  # a figure that cannot be says nothing of the rest
    host.gpu({}, "nvmlInit_v2 returned 18")
    assert host.looks(20) == []
    host.sample.unlink()
    assert host.looks(20) == []
    assert "unaccounted" not in host.observer.figures
    assert "gpu" in host.observer.problems


def test_an_engine_that_was_left_behind_is_told_by_its_number(host: Host) -> None:
    host.gpu({41022: 104277 << 20, 41023: 5}, unified=False)
    host.process(41022, "VLLM::EngineCor", 1, ENGINE)
    host.process(41023, "VLLM::Worker_TP", 1, ENGINE)
    assert host.looks(6) == []
    (alarm,) = host.looks(1)
    assert alarm.text.startswith("VLLM::EngineCor (process 41022) holds 101.8 GiB of GPU memory")
    host.process(41022, "VLLM::EngineCor", 900, ENGINE)
    host.process(900, "vllm", 1, ENGINE)
    assert host.looks(8) == []
    host.process(900, "systemd", 1, "/user.slice/user-1001.slice/user@1001.service/init.scope")
    assert kinds(host.looks(8)) == ["orphan"]


BROKEN: list[tuple[str, Any]] = [
    ("proc/meminfo", None),
    ("proc/meminfo", b""),
    ("proc/meminfo", b"\xff" * 2**20),
    ("proc/meminfo", b"MemTotal: x kB\nMemFree: 1\n"),
    ("proc/zoneinfo", None),
    ("proc/zoneinfo", b"count: " + b"9" * 5000),
    ("cgroup/system.slice/memory.stat", b"kernel x\n\n\n"),
    ("cgroup/system.slice/memory.stat", None),
    ("sample.json", b"{"),
    ("sample.json", b"[" * 10**5),
    ("proc/41022/stat", b"41022 (x"),
    ("proc/41022/cgroup", None),
    ("proc/41022", None),
]


@pytest.mark.parametrize(("name", "content"), BROKEN)
def test_what_is_broken_costs_only_its_own_part(host: Host, tmp_path: Path, name: str, content: bytes | None) -> None:
    """A container that starts for ever is told whatever else is broken, and the state can be read."""
    host.gpu({41022: 104277 << 20}, unified=False)
    host.process(41022, "VLLM::EngineCor", 1, ENGINE)
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    elif path.is_dir():
        subprocess.run(["rm", "-r", str(path)], check=True)
    else:
        path.unlink()
    container = host.cgroups / "system.slice" / f"docker-{'ab' * 32}.scope"
    others = [tmp_path / f"other-{number}" for number in range(5)]
    for other in others:
        other.mkdir()  # all at the same time, so that no two have one number
    for other in others:
        other.rename(container)
        held = host.looks(1)
        container.rename(other)
    assert "restarts" in kinds(held)
    state = tmp_path / "state.json"
    state.write_bytes(host.observer.state(held))
    assert told.read(str(state)).kinds.count("restarts") == 1


def test_a_question_that_systemd_does_not_answer_is_a_problem_and_asked_again(host: Host) -> None:
    asked = []

    def ask() -> dict[str, int]:
        asked.append(host.now)
        raise subprocess.TimeoutExpired("systemctl", 20)

    host.observer.ask = ask
    host.looks(1)
    assert asked == []
    host.looks(61)
    assert asked == [1010.0, 1310.0, 1610.0]
    host.now = asked[-1] + 300
    host.looks(1)
    assert "systemd" in host.observer.problems


@pytest.mark.skipif(UNIFIED is None or os.geteuid() != 0, reason="needs a cgroup v2 tree and root")
def test_a_container_that_was_started_again_has_another_number() -> None:
    assert UNIFIED is not None
    slice_ = UNIFIED / f"observer-test-{os.getpid()}.slice"
    places = [slice_ / f"docker-{'0a' * 32}.scope", slice_ / "docker" / ("0b" * 32)]
    try:
        for place in places:
            place.mkdir(parents=True)
        (places[0] / f"docker-{'0c' * 32}.scope").mkdir()  # inside a container: its own business
        before = look.containers(UNIFIED)
        places[0].joinpath(f"docker-{'0c' * 32}.scope").rmdir()
        places[0].rmdir()
        places[0].mkdir()
        after = look.containers(UNIFIED)
        names = ["container 0a0a0a0a0a0a", "container 0b0b0b0b0b0b"]
        assert all(name in before and name in after for name in names)
        assert "container 0c0c0c0c0c0c" not in before
        assert before[names[0]] != after[names[0]]
        assert before[names[1]] == after[names[1]]
    finally:
        for path in sorted(slice_.rglob("*/"), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
        slice_.rmdir()


def test_what_users_make_below_their_slice_is_no_container(tmp_path: Path) -> None:
    (tmp_path / "user.slice" / "user-1.slice" / f"docker-{'0a' * 32}.scope").mkdir(parents=True)
    (tmp_path / "a.slice" / "user.slice" / f"docker-{'0b' * 32}.scope").mkdir(parents=True)
    assert list(look.containers(tmp_path)) == ["container 0b0b0b0b0b0b"]


def test_a_tree_of_any_size_is_walked_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path
    for _ in range(20):
        deep /= "a"
    deep.mkdir(parents=True)
    last = tmp_path / f"docker-{'0a' * 32}.scope"
    last.mkdir()
    assert list(look.containers(tmp_path)) == ["container 0a0a0a0a0a0a"]
    monkeypatch.setattr(look, "MOST_CGROUPS", 0)
    assert look.containers(tmp_path) == {}
    monkeypatch.undo()
    last.rename(deep / last.name)
    assert look.containers(tmp_path) == {}


@contextlib.contextmanager
def running(folder: Path, log: int) -> Iterator[subprocess.Popen[str]]:
    """The observer as a process, whose kernel log is a pipe of ours that keeps records apart."""
    arguments = ["--file", folder / "run" / "state.json", "--every", "60", "--gpu-file", folder / "none"]
    arguments += ["--cgroup-root", folder, "--kernel-log", f"/proc/{os.getpid()}/fd/{log}"]
    child = subprocess.Popen(
        [sys.executable, "-m", "sparkhost.observer", *map(str, arguments)],
        cwd=ROOT / "files/host",
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate(timeout=20)


def test_a_burst_is_told_at_once_and_not_at_the_next_look(tmp_path: Path) -> None:
    reader, writer = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
    try:
        with running(tmp_path, reader) as child:
            assert child.stderr is not None
            until((tmp_path / "run" / "state.json").exists)
            now = int(time.monotonic() * 1e6)
            for number in range(3):
                os.write(writer, f"3,{number},{now + number},-;NVRM: [NV_ERR_NO_MEMORY]\n".encode())
            assert select.select([child.stderr], [], [], 20)[0], "nothing was told"
            line = child.stderr.readline()
            assert "the NVIDIA driver was refused memory 3 times in a burst" in line
            assert line.startswith("<4>sparkfleet-observer: ")
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 10**5, '{"version": 1}', '{"boottime": 1e400}', "x" * 10**6])
def test_a_broken_state_is_a_problem_and_no_warning(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    assert told.read(str(path)).problem
    assert told.warnings(str(path)) == []
    assert list(metrics.of_observer(str(path))) == []
    path.unlink()
    os.mkfifo(path)
    assert told.read(str(path)).problem
    path.unlink()
    path.symlink_to("/dev/zero")
    assert told.read(str(path)).problem


def test_what_holds_is_shown_until_it_is_old(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    alarm = Alarm("restarts", "a", "a.service was started\x1b again 9 times", "see its journal")
    path.write_bytes(host.observer.state([alarm]))
    assert told.warnings(str(path)) == ["warning: a.service was started? again 9 times: see its journal"]
    text = metrics.text(metrics.of_observer(str(path)))
    for kind in told.KINDS:
        assert f'sparkfleet_observer_warnings{{kind="{kind}"}} {int(kind == "restarts")}\n' in text
    assert told.read(str(path), stale=-1).problem
    link = tmp_path / "link.json"
    link.symlink_to(path)
    assert told.read(str(link)).problem
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "version": 2}))
    assert told.read(str(path)).problem


def test_spark_top_shows_it(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(host.observer.state([Alarm("orphan", "7", "it is left", "end it")]))
    monkeypatch.setattr(told, "PATH", str(path))
    assert cli.top([]) == 0
    assert capsys.readouterr().out.endswith("warning: it is left: end it\n")
    assert cli.top(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == ["it is left: end it"]


def test_as_many_alarms_as_can_be_fit_into_what_is_read(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(host.observer.state([Alarm("orphan", "\x1b" * 999, "é" * 999, "r" * 99)] * 32))
    assert path.stat().st_size <= told.LARGEST
    assert len(told.read(str(path)).lines) == 32


def test_spark_why_says_that_no_watchdog_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state.json"
    good = {"boottime": time.clock_gettime(time.CLOCK_BOOTTIME), "pid": os.getpid(), "dry_run": False}
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    for content, says in (
        (None, "no memory watchdog runs on this host: nothing ends a job"),
        ("{", "is not the memory watchdog's"),
        (json.dumps({**good, "pid": child.pid}), "no memory watchdog runs on this host (its last word is 0 s old)"),
        (json.dumps({**good, "boottime": good["boottime"] - 90}), "has said nothing for 90 s"),
        (json.dumps({**good, "dry_run": True}), "only tells what it would do"),
        (json.dumps(good), ""),
    ):
        if content is not None:
            state.write_text(content)
        assert says in absence(state)
        assert bool(absence(state)) == bool(says)
        arguments = ["--state-dir", str(tmp_path), "--alive", str(state), "--observed", str(tmp_path / "none")]
        assert why.main(arguments) == 0
        assert says in capsys.readouterr().out


def test_a_watchdog_that_runs_is_seen_and_one_that_was_killed_is_missed(tmp_path: Path) -> None:
    with made_host(tmp_path) as host:
        daemon = host.daemon()
        assert absence(host.run / "state.json") == ""
        daemon.kill()
        daemon.wait()
        assert absence(host.run / "state.json").startswith("no memory watchdog runs on this host (its last word is")


def test_the_refusal_of_a_host_that_lives_below_the_floor_names_what_fits() -> None:
    assert WatchdogSettings(profile="serving").floors == floors.SERVING
    four = floors.fitting(3990 * 2**20)
    assert four == (
        "set watchdog.profile to serving (1024MiB, 512MiB), or watchdog.term_below to 1995MiB and kill_below to 997MiB"
    )
    assert floors.fitting(1700 * 2**20) == "set watchdog.term_below to 850MiB and kill_below to 425MiB"
