"""The installed, hardened watchdog on a real host: the right job is ended, everybody else lives, SSH answers."""

from __future__ import annotations

import pytest

from tests.integration.watching import (
    HOG,
    SAVED,
    UNIT,
    active,
    connecting,
    ended,
    events,
    holds,
    idle_seconds,
    job,
    killed_by_the_kernel,
    prepare,
    until,
    victims,
    well,
)
from tests.lab import Host, Lab

BYSTANDERS = "alice-keeps", "bob-keeps"
# For pgrep: a pattern that is not in the command line of who asks.
RUNNING = "python3 " + HOG.replace("hog", "[h]og")


@pytest.fixture(scope="module")
def idle(lab: Lab, spark1: Host, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The host deployed and saved; how long new SSH connections take while it is idle."""
    prepare(lab, spark1, tmp_path_factory.mktemp("fleet"))
    return idle_seconds(spark1)


@pytest.fixture
def host(spark1: Host, idle: list[float]) -> Host:
    """The saved host, with a terminal of alice's, and a small job of each user."""
    spark1.restore(SAVED)
    spark1.run("tmux new-session -d -s work", user="alice")
    for name in BYSTANDERS:
        job(spark1, name, name.partition("-")[0], "24")
        holds(spark1, name, 24)
    return spark1


def nobody_else(host: Host) -> None:
    """The bystanders live, and so do tmux and its shell."""
    assert active(host, *BYSTANDERS, UNIT, "ssh.service") == ["active"] * 4
    assert host.run("tmux list-panes -a -F '#{pane_dead}'", user="alice").stdout == "0\n"


def test_a_single_hog(host: Host, idle: list[float]) -> None:
    with connecting(host) as watch:
        job(host, "hog", "alice", "4000 slow")
        ended(host, "hog")
    assert victims(host) == ["/training.slice/hog.service"]
    assert [event["event"] for event in events(host)] == ["term", "landed"]
    assert "memory watchdog: hog.service" in host.run("tmux capture-pane -p -t work", user="alice").stdout
    nobody_else(host)
    well(host, watch, idle)


def test_a_hog_as_fast_as_it_goes_that_ignores_term(host: Host, idle: list[float]) -> None:
    with connecting(host) as watch:
        job(host, "hog", "alice", "4000 ignore")
        ended(host, "hog")
    assert victims(host) == ["/training.slice/hog.service"]
    assert "kill" in [event["event"] for event in events(host)]
    nobody_else(host)
    well(host, watch, idle)


@pytest.mark.parametrize("how", ["4000 swarm", "4000 slow respawn", "4000 slow shm", "4000 slow tmpfs"])
def test_many_small_ones_ones_that_come_back_and_shared_memory(host: Host, idle: list[float], how: str) -> None:
    # By default half of the memory, which is not enough to fill it.
    host.console_run("mount -o remount,size=100% /dev/shm")
    with connecting(host) as watch:
        job(host, "hog", "alice", how)
        ended(host, "hog")
    assert victims(host) == ["/training.slice/hog.service"]
    left = host.console_run(f"pgrep -fc '{RUNNING} {how}'", check=False).stdout
    assert left == "0\n", "not one of its processes is left"
    nobody_else(host)
    well(host, watch, idle)


def test_a_reader_of_large_files_is_left_alone(host: Host, idle: list[float]) -> None:
    """Its pages are cache: MemFree falls to next to nothing, MemAvailable does not."""
    host.sudo("fallocate -l 1200M /var/tmp/large && chmod 644 /var/tmp/large")
    read = (
        "import mmap; f = open('/var/tmp/large', 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); "
        "s = [sum(m[i] for i in range(0, len(m), 4096)) for _ in range(2)]"
    )
    with connecting(host) as watch:
        host.console_run(
            "systemd-run --quiet --unit=reader -p RemainAfterExit=yes --slice=training.slice --uid=alice"
            f' /usr/bin/python3 -c "{read}"'
        )
        until(host, "[ $(systemctl show -P SubState reader) != running ]", 300)
    assert active(host, "reader") == ["active"], "it has read it all, and exited"
    assert events(host) == []
    assert watch.failures == []
    print(f"ratio {watch.ratio(idle):.2f}")
    assert "kernel:" not in killed_by_the_kernel(host)
    nobody_else(host)


def test_of_two_users_jobs_the_one_that_takes_the_memory_goes(host: Host, idle: list[float]) -> None:
    """Also when the other one, which has settled, is the larger."""
    job(host, "large", "alice", "480")
    holds(host, "large", 480)
    with connecting(host) as watch:
        job(host, "grows", "bob", "4000 slow")
        ended(host, "grows")
    assert victims(host) == ["/training.slice/grows.service"]
    assert active(host, "large") == ["active"]
    nobody_else(host)
    well(host, watch, idle, owner="bob", other="alice")


@pytest.mark.parametrize("way", ["tmux", "nohup"])
def test_a_job_started_over_ssh_goes_and_its_shell_stays(host: Host, idle: list[float], way: str) -> None:
    with connecting(host) as watch:
        if way == "tmux":
            host.run(f"tmux send-keys -t work 'python3 {HOG} 4000 slow; echo it ended with $?' Enter", user="alice")
        else:
            host.run(f"nohup python3 {HOG} 4000 slow >/dev/null 2>&1 & echo started", user="alice", fresh=True)
        until(host, f"pgrep -f '{RUNNING} 4000'")
        until(host, f"! pgrep -f '{RUNNING} 4000'")
    kinds = {event["victim"]["kind"] for event in events(host)}
    assert kinds == {"session"}
    nobody_else(host)
    if way == "tmux":
        until(host, "su - alice -c 'tmux capture-pane -p -t work' | grep -q 'it ended with 143'")
    well(host, watch, idle)
