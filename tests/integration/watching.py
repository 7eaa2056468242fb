"""Fills the memory of a lab host that has a watchdog: who was ended, who lives, whether SSH answers meanwhile."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.deploying import all_but, deploy, fleet, wait_for
from tests.lab import Host, Lab

HOG = "/usr/local/lib/hog.py"
EVENTS = "/var/lib/sparkfleet/watchdog/events"
STATE = "/run/sparkfleet/watchdog/state.json"
SAVED = "watched"
UNIT = "sparkfleet-watchdog"
# Connections that make an idle host's time; the slowest of so many is its p95.
IDLE = 12


def watched_fleet(lab: Lab, hosts: list[Host], path: Path, **watchdog: Any) -> Path:
    """Only what this is about: swap off, and the watchdog with settings beside those of a lab host."""
    return fleet(lab, hosts, path, {**all_but("swap", "watchdog"), "watchdog": watchdog})


def prepare(lab: Lab, host: Host, folder: Path) -> None:
    """Deploys, puts the hog there, and saves the host."""
    result = deploy(lab, watched_fleet(lab, [host], folder / "fleet.yaml"))
    assert result.rc == 0, result.output
    host.sudo(f"cat > {HOG}", input=Path(__file__).with_name("hog.py").read_text())
    host.sudo("sync; echo 3 > /proc/sys/vm/drop_caches")
    wait_for(host, f"test -s {STATE}")
    host.snapshot(SAVED)


def idle_seconds(host: Host) -> list[float]:
    """Seconds of new, unmultiplexed SSH connections to an idle host."""
    return [connection(host) for _ in range(IDLE)]


def connection(host: Host) -> float:
    """Seconds from connecting anew to the answer of a command. Raises CommandError where there is none in 60 s."""
    began = time.monotonic()
    host.run("true", fresh=True)
    return time.monotonic() - began


def p95(seconds: list[float]) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * 0.95))]


@dataclass
class Watch:
    """What is seen from outside while a host is in trouble."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def ratio(self, idle: list[float]) -> float:
        return p95(self.seconds) / p95(idle)


@contextmanager
def connecting(host: Host) -> Iterator[Watch]:
    """Connects anew again and again, until the block ends, three times at least."""
    watch, over = Watch(), threading.Event()

    def work() -> None:
        while not over.is_set() or len(watch.seconds) + len(watch.failures) < 3:
            try:
                watch.seconds.append(connection(host))
            except Exception as error:
                watch.failures.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()


def job(host: Host, name: str, user: str, arguments: str, slice_: str = "training.slice", properties: str = "") -> None:
    """Starts the hog as a job of a user: a transient service of the slice. `properties`: options of systemd-run."""
    host.console_run(
        f"systemd-run --quiet --unit={name} --slice={slice_} --uid={user} {properties}"
        f" /usr/bin/python3 {HOG} {arguments}"
    )


def active(host: Host, *names: str) -> list[str]:
    """`active`, `inactive` or `failed` for each unit."""
    return host.console_run(f"systemctl is-active {' '.join(names)}", check=False).stdout.split()


def holds(host: Host, name: str, mebibytes: int, seconds: float = 90.0) -> None:
    """Waits until a job holds that much."""
    path = f"/sys/fs/cgroup/training.slice/{name}.service/memory.current"
    until(host, f"[ $(cat {path}) -ge {mebibytes << 20} ]", seconds)


def ended(host: Host, name: str, seconds: float = 120.0) -> None:
    """Waits at the console until a unit has ended."""
    until(host, f"! systemctl is-active -q {name}", seconds)


def until(host: Host, condition: str, seconds: float = 120.0) -> None:
    """Waits at the console, which needs no SSH, until a shell condition holds."""
    script = f"for i in $(seq {int(seconds / 0.5)}); do if {condition}; then exit 0; fi; sleep 0.5; done; exit 1"
    done = host.console_run(script, check=False, timeout=seconds * 3 + 60)
    assert done.rc == 0, f"never came: {condition}\n{journal(host)}"


def journal(host: Host) -> str:
    return host.console_run(f"journalctl -b --no-pager -t sparkfleet-watchdog -u {UNIT} | tail -20", check=False).stdout


def events(host: Host) -> list[dict[str, Any]]:
    """All post-mortems, the earliest first."""
    code = f"import glob, json; [print(json.dumps(json.load(open(f)))) for f in sorted(glob.glob('{EVENTS}/*.json'))]"
    text = host.console_run(f'python3 -c "{code}"').stdout
    return [json.loads(line) for line in text.splitlines()]


def victims(host: Host) -> list[str]:
    """The cgroups that were signalled, each once, in order."""
    return list(dict.fromkeys(e["victim"]["cgroup"] for e in events(host) if e["event"] in ("term", "kill")))


def killed_by_the_kernel(host: Host) -> str:
    """Lines of the kernel's log about its own OOM killer."""
    return host.console_run("journalctl -k --no-pager -g 'oom-kill|Out of memory|oom_reaper'", check=False).stdout


def denied(host: Host) -> str:
    """What the hardened unit was not allowed to do, as the kernel and the daemon itself say it."""
    kernel = host.console_run(
        "journalctl -k -t kernel --no-pager -g 'SECCOMP|apparmor=.DENIED|audit: type=1326'", check=False
    ).stdout
    lines = [line for line in kernel.splitlines() if not line.startswith("-- ")]
    failed = json.loads(host.console_run(f"cat {STATE}").stdout)["failed"]
    return "\n".join([*lines, *([failed] if failed else [])])


def well(host: Host, watch: Watch, idle: list[float], owner: str = "alice", other: str = "bob") -> None:
    """What must be true after every trouble: SSH answered throughout, no kernel's kill, the owner told, nobody else."""
    print(
        f"new SSH connections: {len(watch.seconds)}, p95 {p95(watch.seconds):.2f} s, idle {p95(idle):.2f} s, ", end=""
    )
    print(f"ratio {watch.ratio(idle):.2f}")
    assert watch.failures == []
    assert watch.ratio(idle) <= 3
    assert "kernel:" not in killed_by_the_kernel(host)
    assert denied(host) == ""
    told = host.run("spark-why", user=owner).stdout
    assert "memory watchdog:" in told
    assert "SIG" in told
    assert "ended nothing of yours" in host.run("spark-why", user=other).stdout
    assert (readable_by(host, owner) > 0, readable_by(host, other)) == (True, 0)


def readable_by(host: Host, user: str) -> int:
    """How many post-mortems a user can read."""
    command = f"n=0; for f in {EVENTS}/*.json; do cat $f >/dev/null 2>&1 && n=$((n+1)); done; echo $n"
    return int(host.run(command, user=user).stdout)


def ssh_lines(host: Host, user: str, line: str) -> subprocess.CompletedProcess[str]:
    """Leaves a command behind in a session of a user's own, as `nohup … &` does."""
    ssh, *words = host.client.words(user)
    return subprocess.run(
        [ssh, "-o", "ControlPath=none", *words, line], capture_output=True, text=True, timeout=60, check=True
    )
