"""The daemon as a process: real victims, real signals; only /proc/meminfo is what the test says.

Its /proc is a directory with a meminfo of ours and links to the victims' real entries, so that no memory needs to be
filled and nothing else on this machine can be chosen.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sparkhost.watchdog import terminals
from sparkhost.watchdog.model import MIB
from sparkhost.watchdog.process import Processes

ROOT = Path(__file__).resolve().parents[2]
SLEEP = "import time; kept = bytearray(b'x') * ({mib} << 20); print(flush=True); time.sleep(600)"
IGNORES = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the configuration must be root's")


def until(condition: Callable[[], Any]) -> Any:
    """Waits for a condition, 20 s at most; what it was in the end."""
    end = time.monotonic() + 20
    while not (value := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
    return value


class Host:
    """A directory that stands for a host, and the daemon that watches it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config, self.state, self.run = folder / "watchdog.toml", folder / "state", folder / "run"
        (folder / "proc").mkdir()
        self.cgroups = folder / "cgroup"
        self.cgroups.mkdir()
        self.children: list[subprocess.Popen[str]] = []
        self.available(8000)
        self.set()

    def set(self, **values: float | str) -> None:
        """Writes the configuration: thresholds small enough to fall below, and what the test wants otherwise."""
        base: dict[str, float | str] = {"term_below": "1000MiB", "kill_below": "500MiB", "smallest_victim": "16MiB"}
        merged = {**base, "recovery_wait": 0.5, "grace": 30.0, **values}
        self.config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in merged.items()))
        self.config.chmod(0o644)

    def available(self, mib: int) -> None:
        """What /proc/meminfo says from now on; written in one call, in place, as the daemon holds it open."""
        sizes = {"MemTotal": 16000, "MemFree": mib, "MemAvailable": mib}
        text = "".join(f"{name}: {size * 1024:8} kB\n" for name, size in sizes.items())
        descriptor = os.open(self.folder / "proc" / "meminfo", os.O_WRONLY | os.O_CREAT)
        os.pwrite(descriptor, text.encode(), 0)
        os.close(descriptor)

    def start(self, *command: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT / "files/host",
            start_new_session=True,
        )
        self.children.append(child)
        return child

    def victim(self, code: str, mib: int) -> subprocess.Popen[str]:
        child = self.start(sys.executable, "-c", code.format(mib=mib))
        assert child.stdout is not None
        child.stdout.readline()
        (self.folder / "proc" / str(child.pid)).symlink_to(f"/proc/{child.pid}")
        return child

    def command(self, *arguments: str) -> list[str]:
        where = ["--config", self.config, "--proc-root", self.folder / "proc", "--cgroup-root", self.cgroups]
        places = ["--state-dir", self.state, "--run-dir", self.run, "--gpu-file", self.folder / "gpu.json"]
        return [sys.executable, "-m", "sparkhost.watchdog", *map(str, [*where, *places]), *arguments]

    def daemon(self, *arguments: str) -> subprocess.Popen[str]:
        child = self.start(*self.command("run", *arguments))
        until(lambda: (self.run / "state.json").exists() or child.poll() is not None)
        assert child.poll() is None
        return child

    def events(self) -> list[dict[str, Any]]:
        files = sorted((self.state / "events").glob("*.json")) if self.state.exists() else []
        return [json.loads(path.read_text()) for path in files]

    def event(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = until(lambda: next((e for e in self.events() if e["event"] == kind), None))
        return found


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    for child in made.children:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        child.communicate(timeout=20)


def test_the_larger_one_is_asked_to_end_and_nothing_else(host: Host) -> None:
    small, large = host.victim(SLEEP, 20), host.victim(SLEEP, 60)
    daemon = host.daemon()
    host.available(900)
    assert large.wait(20) == -signal.SIGTERM
    host.available(8000)
    event = host.event("term")
    assert event["victim"]["roots"][0]["pid"] == large.pid
    assert event["victim"]["anonymous"] >= 60 * MIB
    assert event["seconds_from_look_to_signal"] < 2
    assert event["gpu_note"] == "there are no figures of the GPU sampler"
    assert host.event("landed")["helped"] is True
    assert small.poll() is None
    assert daemon.poll() is None


def test_a_fast_fall_is_not_held_against_the_next_one(host: Host) -> None:
    """The first is asked to end before the threshold; MemAvailable stays above it, and nobody else is asked."""
    small, large = host.victim(SLEEP, 20), host.victim(SLEEP, 60)
    host.daemon()
    host.available(1100)
    assert large.wait(20) == -signal.SIGTERM
    assert "falls so fast" in host.event("term")["reason"]
    assert host.event("landed")["helped"] is True
    host.available(900)
    assert small.wait(20) == -signal.SIGTERM, "now it is its turn"
    reasons = [event["reason"] for event in host.events() if event["event"] == "term"]
    assert len(reasons) == 2
    assert "falls" not in reasons[1]


def test_gpu_memory_decides_where_it_is_the_hosts(host: Host) -> None:
    cuda, rss = host.victim(SLEEP, 20), host.victim(SLEEP, 60)
    device = {"unified": True, "processes": {str(cuda.pid): 10 * 60 * MIB}}
    sample = {"boottime": time.clock_gettime(time.CLOCK_BOOTTIME), "error": None, "devices": [device]}
    (host.folder / "gpu.json").write_text(json.dumps(sample))
    host.set(gpu_stale_after=600)
    host.daemon()
    host.available(900)
    assert cuda.wait(20) == -signal.SIGTERM
    assert host.event("term")["gpu_note"] == ""
    assert rss.poll() is None


def test_who_ignores_term_is_killed_when_grace_is_over_or_memory_shorter(host: Host) -> None:
    stubborn = host.victim(IGNORES, 60)
    host.daemon()
    host.available(900)
    host.event("term")
    assert stubborn.poll() is None
    host.available(400)
    assert stubborn.wait(20) == -signal.SIGKILL
    assert host.event("kill")["reason"] == "MemAvailable fell below kill_below during the grace period"


def test_killing_in_vain_is_said_and_not_gone_on_with(host: Host) -> None:
    """MemAvailable stays low whoever ends: after three, the others are left alone for a while."""
    host.set(recovery_wait=30.0)
    victims = [host.victim(IGNORES, size) for size in (80, 60, 40, 20)]
    host.daemon()
    host.available(400)
    for victim in victims[:3]:
        assert victim.wait(20) == -signal.SIGKILL
    until(lambda: len([e for e in host.events() if e["event"] == "landed"]) == 3)
    with pytest.raises(subprocess.TimeoutExpired):
        victims[3].wait(1)


def test_a_dry_run_tells_and_signals_nobody(host: Host) -> None:
    victim = host.victim(SLEEP, 60)
    host.daemon("--dry-run")
    host.available(400)
    assert host.event("kill")["dry_run"] is True
    assert victim.poll() is None


def test_a_teller_that_hangs_holds_nobody_up_and_one_that_died_is_replaced(host: Host) -> None:
    first, second = host.victim(SLEEP, 60), host.victim(SLEEP, 40)
    daemon = host.daemon()
    (teller,) = (p.pid for p in Processes(Path("/proc")).table() if p.parent == daemon.pid)
    os.kill(teller, signal.SIGSTOP)
    host.available(900)
    assert first.wait(20) == -signal.SIGTERM
    assert host.events() == []
    host.available(8000)
    os.kill(teller, signal.SIGCONT)
    host.event("term")
    os.kill(teller, signal.SIGKILL)
    host.available(900)
    assert second.wait(20) == -signal.SIGTERM
    assert daemon.poll() is None


def test_the_teller_is_within_the_kernels_reach_and_ends_with_the_watchdog(host: Host) -> None:
    daemon = host.daemon()
    (teller,) = (p.pid for p in Processes(Path("/proc")).table() if p.parent == daemon.pid)
    assert Path(f"/proc/{teller}/oom_score_adj").read_text() == "0\n"
    daemon.kill()
    until(lambda: Processes(Path("/proc")).start_of(teller) is None)


def test_a_bad_file_is_refused_in_one_line_and_does_not_replace_a_good_one(host: Host) -> None:
    daemon = host.daemon()
    host.set(term_below_="1GiB")
    refused = subprocess.run(
        host.command("run"), capture_output=True, text=True, timeout=60, check=False, cwd=ROOT / "files/host"
    )
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert f"{host.config}: term_below_: unknown key" in refused.stderr
    victim = host.victim(SLEEP, 60)
    daemon.send_signal(signal.SIGHUP)
    host.available(900)
    assert victim.wait(20) == -signal.SIGTERM
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(20) == 0
    assert daemon.stderr is not None
    assert "kept the old configuration" in daemon.stderr.read()


def test_a_recorded_trace_is_replayed_under_another_policy(host: Host) -> None:
    victim = host.victim(SLEEP, 60)
    trace = host.folder / "trace"
    host.set(fastest_fill="64MiB")
    host.daemon("--record", str(trace))
    host.available(900)
    assert victim.wait(20) == -signal.SIGTERM
    until(lambda: trace.exists() and '"Signal"' in trace.read_text())
    replay = host.command("replay", str(trace))
    same = subprocess.run(replay, capture_output=True, text=True, check=True, cwd=ROOT / "files/host")
    assert "Signal python" in same.stdout
    host.set(term_below="600MiB", fastest_fill="64MiB")
    lower = subprocess.run(replay, capture_output=True, text=True, check=True, cwd=ROOT / "files/host")
    assert "Signal" not in lower.stdout


def test_spark_why_says_it_in_plain_words(host: Host) -> None:
    victim = host.victim(SLEEP, 60)
    host.daemon()
    why = [sys.executable, "-c", "import sys; from sparkhost.watchdog.why import main; sys.exit(main())"]
    where = ["--state-dir", str(host.state)]
    before = subprocess.run([*why, *where], capture_output=True, text=True, check=True, cwd=ROOT / "files/host")
    assert "ended nothing of yours" in before.stdout
    host.available(900)
    victim.wait(20)
    host.event("term")
    after = subprocess.run([*why, *where], capture_output=True, text=True, check=True, cwd=ROOT / "files/host")
    assert "asked to end (SIGTERM)" in after.stdout
    assert "MemAvailable is below term_below" in after.stdout


@pytest.fixture
def slices(host: Host) -> Iterator[Path]:
    """A training.slice in the real cgroup tree, with jobs `a` and `b`; on a machine that lets us make one."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    root = next((Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"), None)
    if root is None or (root / "training.slice").exists():
        pytest.skip("needs a cgroup v2 tree without a training.slice")
    folders = [root / "training.slice", *(root / "training.slice" / f"{name}.service" for name in "ab")]
    try:
        for folder in folders:
            folder.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make cgroups: {error}")
    host.cgroups = root
    yield folders[0]
    for child in host.children:
        child.kill()
        child.wait(20)
    until(lambda: not any((folder / "cgroup.procs").read_text() for folder in folders))
    for folder in reversed(folders):
        folder.rmdir()


def test_a_job_is_a_whole_cgroup_and_root_can_take_it_out(host: Host, slices: Path) -> None:
    """The larger job is marked as `ManagedOOMPreference=omit` marks it: the other one goes, with all its processes."""
    jobs = {}
    for name, sizes in {"a": (60, 20), "b": (20, 16)}.items():
        jobs[name] = [host.victim(IGNORES, size) for size in sizes]
        for process in jobs[name]:
            (slices / f"{name}.service" / "cgroup.procs").write_text(str(process.pid))
    os.setxattr(slices / "a.service", "user.oomd_omit", b"1")
    host.daemon()
    host.available(400)
    assert [process.wait(20) for process in jobs["b"]] == [-signal.SIGKILL] * 2
    event = host.event("kill")
    assert (event["victim"]["kind"], event["victim"]["name"], event["victim"]["processes"]) == ("job", "b.service", 2)
    assert [process.poll() for process in jobs["a"]] == [None, None]
    assert next(c for c in event["candidates"] if c["name"] == "a.service")["protected"] is True
    # A user can set the mark on a cgroup that they own: there it counts for nothing.
    os.chown(slices / "a.service", 64001, -1)
    assert [process.wait(20) for process in jobs["a"]] == [-signal.SIGKILL] * 2


def test_a_terminal_whose_flow_is_stopped_is_passed_over(tmp_path: Path) -> None:
    stopped, taking = [pty.openpty() for _ in range(2)]
    for number, (_, slave) in enumerate((stopped, taking)):
        (tmp_path / str(number)).symlink_to(os.ttyname(slave))
    termios.tcflow(stopped[1], termios.TCOOFF)
    try:
        terminals.write(tmp_path, os.geteuid(), "gone\x1b[2J")
        assert b"gone?[2J" in os.read(taking[0], 100)
        terminals.write(tmp_path, os.geteuid() + 1, "not for you")
        os.set_blocking(taking[0], False)
        with pytest.raises(BlockingIOError):
            os.read(taking[0], 100)
    finally:
        for descriptor in (*stopped, *taking):
            os.close(descriptor)
