"""On a real host the one that takes the memory is ended, and nobody who has settled: cases as data.

Each begins with the restored host and with innocents that have settled while there was plenty of memory.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import pytest

from tests.integration.watching import (
    SAVED,
    active,
    ended,
    events,
    holds,
    job,
    killed_by_the_kernel,
    prepare,
    until,
    victims,
)
from tests.lab import Host, Lab

# Longer than the watchdog's time between two entries of its ledger while memory is plentiful.
SETTLE = 15.0
CONTAINER = f"docker-{'c0ffee00' * 8}.scope"


@dataclass(frozen=True)
class Start:
    """A job: the hog with arguments, and properties of its unit."""

    name: str
    user: str
    arguments: str
    properties: str = ""
    wait_for: int = 0
    """MiB that it must hold before it goes on."""


@dataclass(frozen=True)
class Case:
    """What starts, and who may be ended."""

    settled: tuple[Start, ...]
    takers: tuple[Start, ...]
    may_end: tuple[str, ...]
    must_end: str = ""
    """Whose end is waited for; "" where nobody's is."""


LARGE = Start("large", "alice", "480", wait_for=480)


def newcomer(arguments: str, properties: str = "") -> Start:
    return Start("newcomer", "bob", arguments, properties)


def one(taker: Start, *settled: Start) -> Case:
    return Case(settled or (LARGE,), (taker,), (taker.name,), taker.name)


CASES = {
    "a newcomer ramps beside a larger one": one(newcomer("4000 slow")),
    "a newcomer as fast as it goes, which ignores SIGTERM": one(newcomer("4000 ignore")),
    "a newcomer made of many small processes": one(newcomer("4000 swarm")),
    "shared memory of a newcomer": one(newcomer("4000 slow shm")),
    "memory that no process shows": one(newcomer("4000 slow memfd")),
    "a sawtooth is innocent": one(
        newcomer("4000 slow"),
        Start("saw", "alice", "280 saw", wait_for=270),
        Start("keeps", "bob", "100", wait_for=100),
    ),
    "a job below its promise, and a newcomer without one": one(
        newcomer("4000 slow"), Start("large", "alice", "480", "-p MemoryMax=700M", wait_for=480)
    ),
    "an old job uses its promise, another had taken the rest": Case(
        (Start("promised", "alice", "120 slow", "-p MemoryMax=600M", wait_for=116),),
        (newcomer("500 slow"), Start("grows", "alice", "420 slow", "-p MemoryMax=600M")),
        ("newcomer",),
        "newcomer",
    ),
    "an old leak, and a small newcomer that crosses last": Case(
        (Start("keeps", "alice", "200", wait_for=200),),
        (Start("leak", "bob", "4000 leak", wait_for=420), Start("newcomer", "alice", "60 slow")),
        ("leak",),
        "leak",
    ),
    "two growers: the fast one": Case(
        (Start("keeps", "alice", "300", wait_for=300),),
        (Start("slow", "alice", "4000 leak"), newcomer("4000 slow")),
        ("newcomer",),
        "newcomer",
    ),
    "many units of one user": Case(
        (Start("keeps", "alice", "400", wait_for=400),),
        tuple(Start(f"part{number}", "bob", "150 slow") for number in range(8)),
        tuple(f"part{number}" for number in range(8)),
    ),
    "one that comes back": one(
        newcomer("4000 slow", "-p Restart=always -p RestartSec=1"), Start("keeps", "alice", "400", wait_for=400)
    ),
}


@pytest.fixture(scope="module")
def deployed(lab: Lab, spark1: Host, tmp_path_factory: pytest.TempPathFactory) -> Host:
    prepare(lab, spark1, tmp_path_factory.mktemp("fleet"))
    return spark1


@pytest.fixture
def host(spark1: Host, deployed: Host) -> Host:
    deployed.restore(SAVED)
    return deployed


def begin(host: Host, start: Start) -> None:
    job(host, start.name, start.user, start.arguments, properties=start.properties)
    if start.wait_for:
        holds(host, start.name, start.wait_for, 240)


def is_recovered(host: Host) -> str:
    return "awk '/MemAvailable/ {exit $2 < 262144}' /proc/meminfo"


def names_of_victims(host: Host) -> set[str]:
    """The jobs that were signalled, also those that were one victim together."""
    victims = [event["victim"] for event in events(host) if event["event"] in ("term", "kill")]
    names = [name for victim in victims for name in victim["parts"] or [victim["name"]]]
    return {name.removesuffix(".service") for name in names}


@pytest.mark.parametrize("name", CASES)
def test_who_takes_the_memory_is_ended(host: Host, name: str) -> None:
    case = CASES[name]
    for start in case.settled:
        begin(host, start)
    time.sleep(SETTLE)
    for start in case.takers:
        begin(host, start)
    if case.must_end and "Restart=always" not in case.takers[0].properties:
        ended(host, case.must_end)
    else:
        until(host, "ls /var/lib/sparkfleet/watchdog/events/*-term.json >/dev/null 2>&1")
        time.sleep(10)
    until(host, is_recovered(host))
    signalled = names_of_victims(host)
    print(json.dumps({"case": name, "victims": sorted(signalled), "events": [e["event"] for e in events(host)]}))
    assert signalled, "somebody was ended"
    assert signalled <= set(case.may_end)
    assert set(active(host, *(start.name for start in case.settled))) == {"active"}
    assert "kernel:" not in killed_by_the_kernel(host)
    frozen = host.console_run("grep -l 'frozen 1' $(find /sys/fs/cgroup -name cgroup.events)", check=False).stdout
    assert frozen == "", "everybody goes on"


def test_a_newcomer_that_dips_costs_nobody_else(host: Host) -> None:
    """Below term_below for a second, and far above kill_below. It may be ended: it would have freed it again."""
    job(host, "keeps", "alice", "300")
    holds(host, "keeps", 300)
    available = int(host.console_run("awk '/MemAvailable/ {print $2}' /proc/meminfo").stdout) // 1024
    job(host, "dips", "bob", f"{available - 244} dip")
    time.sleep(30)
    assert names_of_victims(host) <= {"dips"}
    assert active(host, "keeps") == ["active"]


def test_a_container_is_one_and_goes_whole(host: Host) -> None:
    job(host, "large", "alice", "480")
    holds(host, "large", 480)
    time.sleep(SETTLE)
    hog = "/usr/bin/python3 /usr/local/lib/hog.py"
    inside = f"sh -c '{hog} 20 & exec {hog} 4000 slow'"
    host.console_run(f"systemd-run --quiet --scope --unit={CONTAINER} {inside} >/dev/null 2>&1 &")
    until(host, f"[ -d /sys/fs/cgroup/system.slice/{CONTAINER} ]")
    until(host, f"[ ! -d /sys/fs/cgroup/system.slice/{CONTAINER} ]")
    assert victims(host) == [f"/system.slice/{CONTAINER}"]
    assert active(host, "large") == ["active"]
    assert "kernel:" not in killed_by_the_kernel(host)


@pytest.mark.parametrize("way", ["tmux", "init.scope"])
def test_work_in_a_session_is_ended_wherever_it_hides(host: Host, way: str) -> None:
    """`init.scope` of a user's own manager can be written to by that user, and protects nothing."""
    job(host, "large", "bob", "480")
    holds(host, "large", 480)
    time.sleep(SETTLE)
    host.run("tmux new-session -d -s work", user="alice")
    move = ""
    if way == "init.scope":
        scope = "/sys/fs/cgroup/user.slice/user-$(id -u).slice/user@$(id -u).service/init.scope/cgroup.procs"
        move = f"echo 0 > {scope}; "
    line = f"{move}exec python3 /usr/local/lib/hog.py 4000 slow"
    host.run(f"tmux send-keys -t work \"sh -c '{line}'; echo it ended with \\$?\" Enter", user="alice")
    until(host, "su - alice -c 'tmux capture-pane -p -t work' | grep -q 'it ended with 1[34]'", 180)
    assert {event["victim"]["owner"] for event in events(host)} == {int(host.run("id -u", user="alice").stdout)}
    assert active(host, "large") == ["active"]


@pytest.mark.parametrize("end", ["kill -s KILL", "stop", "restart"])
def test_whatever_ends_the_watchdog_nobody_stays_frozen(host: Host, end: str) -> None:
    """By the installed, hardened unit: its record names what it had stopped, and systemd runs the way back."""
    job(host, "still", "alice", "24")
    holds(host, "still", 24)
    group = "/training.slice/still.service"
    record = "/run/sparkfleet/watchdog/frozen"
    host.console_run(
        f"printf '{group}\\n' | dd of={record} conv=notrunc 2>/dev/null; echo 1 > /sys/fs/cgroup{group}/cgroup.freeze"
    )
    until(host, f"grep -q 'frozen 1' /sys/fs/cgroup{group}/cgroup.events")
    host.console_run(f"systemctl {end} sparkfleet-watchdog")
    until(host, f"grep -q 'frozen 0' /sys/fs/cgroup{group}/cgroup.events", 30)
    assert active(host, "still") == ["active"]
