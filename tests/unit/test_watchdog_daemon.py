"""The daemon as a process: whom it ends, what it tells, what cannot hold it up."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkhost.watchdog import terminals
from sparkhost.watchdog.model import MIB
from sparkhost.watchdog.process import Processes
from tests.unit.watchdog_host import IGNORES, ROOT, SLEEP, Host, made_host, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the configuration must be root's")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with made_host(tmp_path) as made:
        yield made


def test_the_larger_one_is_asked_to_end_and_nothing_else(host: Host) -> None:
    daemon = host.daemon()
    host.gets_tight()
    small, large = host.victim(SLEEP, 20), host.victim(SLEEP, 60)
    host.available(180)
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
    host.daemon()
    host.gets_tight()
    small, large = host.victim(SLEEP, 55), host.victim(SLEEP, 70)
    host.available(210)
    assert large.wait(20) == -signal.SIGTERM
    assert "falls so fast" in host.event("term")["reason"]
    assert host.event("landed")["helped"] is True
    host.available(180)
    assert small.wait(20) == -signal.SIGTERM, "now it is its turn"
    reasons = [event["reason"] for event in host.events() if event["event"] == "term"]
    assert len(reasons) == 2
    assert "falls" not in reasons[1]


def test_gpu_memory_decides_where_it_is_the_hosts(host: Host) -> None:
    host.gets_tight()
    cuda, rss = host.victim(SLEEP, 20), host.victim(SLEEP, 60)
    device = {"unified": True, "processes": {str(cuda.pid): 10 * 60 * MIB}}
    sample = {"boottime": time.clock_gettime(time.CLOCK_BOOTTIME), "error": None, "devices": [device]}
    (host.folder / "gpu.json").write_text(json.dumps(sample))
    host.set(gpu_stale_after=600)
    host.daemon()
    host.available(180)
    assert cuda.wait(20) == -signal.SIGTERM
    assert host.event("term")["gpu_note"] == ""
    assert rss.poll() is None


def test_who_ignores_term_is_killed_when_grace_is_over_or_memory_shorter(host: Host) -> None:
    host.daemon()
    host.gets_tight()
    stubborn = host.victim(IGNORES, 60)
    host.available(195)
    host.event("term")
    assert stubborn.poll() is None
    host.available(80)
    assert stubborn.wait(20) == -signal.SIGKILL
    assert host.event("kill")["reason"] == "MemAvailable fell below kill_below during the grace period"


def test_who_was_there_while_there_was_plenty_is_not_ended_before_the_last_threshold(host: Host) -> None:
    """It has taken nothing that others needed. Below kill_below it is the host or it."""
    settled = host.victim(SLEEP, 60)
    host.daemon()
    host.available(180)
    with pytest.raises(subprocess.TimeoutExpired):
        settled.wait(2)
    host.available(80)
    assert settled.wait(20) == -signal.SIGKILL


def test_everybody_is_tried_before_killing_pauses(host: Host) -> None:
    """MemAvailable stays low whoever ends: below kill_below nobody who could be ended is left alone for that."""
    host.set(recovery_wait=0.5)
    victims = [host.victim(IGNORES, size) for size in (80, 60, 40, 20)]
    host.daemon()
    host.available(80)
    for victim in victims:
        assert victim.wait(20) == -signal.SIGKILL


def test_a_dry_run_tells_and_signals_nobody(host: Host) -> None:
    victim = host.victim(SLEEP, 60)
    host.daemon("--dry-run")
    host.available(80)
    assert host.event("kill")["dry_run"] is True
    assert victim.poll() is None


def test_a_teller_that_hangs_holds_nobody_up_and_one_that_died_is_replaced(host: Host) -> None:
    daemon = host.daemon()
    host.gets_tight()
    first, second = host.victim(SLEEP, 70), host.victim(SLEEP, 55)
    (teller,) = (p.pid for p in Processes(Path("/proc")).table() if p.parent == daemon.pid)
    os.kill(teller, signal.SIGSTOP)
    host.available(180)
    assert first.wait(20) == -signal.SIGTERM
    assert host.events() == []
    host.gets_tight()
    os.kill(teller, signal.SIGCONT)
    host.event("term")
    os.kill(teller, signal.SIGKILL)
    host.available(180)
    assert second.wait(20) == -signal.SIGTERM
    assert daemon.poll() is None


def test_the_teller_is_within_the_kernels_reach_and_ends_with_the_watchdog(host: Host) -> None:
    daemon = host.daemon()
    (teller,) = (p.pid for p in Processes(Path("/proc")).table() if p.parent == daemon.pid)
    assert Path(f"/proc/{teller}/oom_score_adj").read_text() == "0\n"
    daemon.kill()
    until(lambda: Processes(Path("/proc")).start_of(teller) is None)


def test_a_recorded_trace_is_replayed_under_another_policy(host: Host) -> None:
    trace = host.folder / "trace"
    host.set(fastest_fill="64MiB")
    host.daemon("--record", str(trace))
    host.gets_tight()
    victim = host.victim(SLEEP, 60)
    host.available(180)
    assert victim.wait(20) == -signal.SIGTERM
    until(lambda: trace.exists() and '"Signal"' in trace.read_text())
    replay = host.command("replay", str(trace))
    same = subprocess.run(replay, capture_output=True, text=True, check=True, cwd=ROOT / "files/host")
    assert "Signal python" in same.stdout
    host.set(term_below="120MiB", fastest_fill="64MiB")
    lower = subprocess.run(replay, capture_output=True, text=True, check=True, cwd=ROOT / "files/host")
    assert "Signal" not in lower.stdout


def test_spark_why_says_it_in_plain_words(host: Host) -> None:
    host.daemon()
    why = [sys.executable, "-c", "import sys; from sparkhost.watchdog.why import main; sys.exit(main())"]
    where = ["--state-dir", str(host.state)]
    before = subprocess.run([*why, *where], capture_output=True, text=True, check=True, cwd=ROOT / "files/host")
    assert "ended nothing of yours" in before.stdout
    host.gets_tight()
    victim = host.victim(SLEEP, 60)
    host.available(180)
    victim.wait(20)
    host.event("term")
    after = subprocess.run([*why, *where], capture_output=True, text=True, check=True, cwd=ROOT / "files/host")
    assert "asked to end (SIGTERM)" in after.stdout
    assert "MemAvailable is below term_below" in after.stdout
    assert "Chosen: python" in after.stdout, "and why it and nobody else"


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
