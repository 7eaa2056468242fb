"""Signals to real processes of this machine: all of a victim, nobody else, no later owner of a number."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sparkhost.watchdog.act import Executioner, Hunt, lineage
from sparkhost.watchdog.cgroup import Cgroups
from sparkhost.watchdog.model import Candidate, Member
from tests.unit.victims import PROC, made_cgroups, started, unused, victim_of
from tests.unit.watchdog_host import until

SLEEP = "print(flush=True); import time; time.sleep(600)"
TREE = """
import os, signal, sys, time
{before}
for _ in range(2):
    if not os.fork():
        os.setsid()
        if os.fork():
            time.sleep(600)
        time.sleep(600)
print(flush=True)
time.sleep(600)
"""


def executioner(root: Path = Path("/sys/fs/cgroup")) -> Executioner:
    return Executioner(PROC, Cgroups(root), list(lineage(PROC, os.getpid())))


def test_term_reaches_every_descendant_whatever_its_session_and_kill_is_not_needed() -> None:
    with started(SLEEP) as bystander, started(TREE.format(before="")) as child:
        hunt, act = Hunt(victim_of(child.pid)), executioner()
        until(lambda: act.alive(hunt) == 5)
        assert act.press(hunt) == 5
        assert child.wait(20) == -signal.SIGTERM
        until(lambda: act.alive(hunt) == 0)
        assert act.press(hunt) == 0
        assert bystander.poll() is None


def test_who_ignores_term_is_killed_with_children_that_came_later() -> None:
    code = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os.fork())
print(flush=True)
while True: time.sleep(600)
"""
    with started(code) as child:
        hunt, act = Hunt(victim_of(child.pid)), executioner()
        act.press(hunt)
        until(lambda: act.alive(hunt) >= 2)
        hunt.stage = "KILL"
        act.press(hunt)
        assert child.wait(20) == -signal.SIGKILL
        until(lambda: act.press(hunt) == 0 and act.alive(hunt) == 0)


def test_orphans_are_still_known() -> None:
    """The parent ends, its children do not: they are remembered, though they hang on another by then."""
    with started(TREE.format(before="signal.signal(signal.SIGTERM, signal.SIG_IGN)")) as child:
        hunt, act = Hunt(victim_of(child.pid)), executioner()
        until(lambda: act.alive(hunt) == 5)
        act.press(hunt)
        os.kill(child.pid, signal.SIGKILL)
        child.wait(20)
        assert act.alive(hunt) == 4
        hunt.stage = "KILL"
        act.press(hunt)
        until(lambda: act.alive(hunt) == 0)


def test_a_stopped_one_can_obey() -> None:
    with started(SLEEP) as child:
        child.send_signal(signal.SIGSTOP)
        executioner().press(Hunt(victim_of(child.pid)))
        assert child.wait(20) == -signal.SIGTERM


def test_alone_spares_the_children() -> None:
    with started(TREE.format(before="")) as child:
        act = executioner()
        everybody = Hunt(victim_of(child.pid))
        until(lambda: act.alive(everybody) == 5)
        children = act.members(everybody)[1:]
        act.press(Hunt(victim_of(child.pid, alone=True)))
        assert child.wait(20) == -signal.SIGTERM
        assert [PROC.start_of(member.pid) for member in children] == [member.start for member in children]


def test_a_number_that_was_given_away_anew_is_not_signalled() -> None:
    with started(SLEEP) as child:
        real = victim_of(child.pid)
        other = Candidate("k", "n", "process", real.cgroup, (Member(child.pid, real.roots[0].start + 1),))
        act = executioner()
        assert act.press(Hunt(other)) == 0
        assert act.press(Hunt(other, "KILL")) == 0
        assert child.poll() is None


def test_the_watchdog_spares_itself_and_what_it_came_from() -> None:
    act = executioner()
    everything = Candidate("k", "n", "process", "/", (Member(1, PROC.start_of(1) or 0),))
    assert {1, os.getpid(), os.getppid()}.isdisjoint(member.pid for member in act.members(Hunt(everything)))


@pytest.mark.parametrize("stage", ["TERM", "KILL"])
def test_a_whole_cgroup_with_those_below_it(stage: str) -> None:
    name = unused()
    with made_cgroups(f"{name}/inner") as root, started(TREE.format(before="")) as child:
        act = executioner(root)
        whole = Hunt(victim_of(child.pid))
        until(lambda: act.alive(whole) == 5)
        tree = act.members(whole)
        for number, member in enumerate(tree):
            inside = root / name[1:] / ("inner" if number % 2 else ".")
            (inside / "cgroup.procs").write_text(str(member.pid))
        hunt = Hunt(Candidate("k", "n", "job", name), stage)  # type: ignore[arg-type]
        until(lambda: act.alive(hunt) == 5)
        act.press(hunt)
        child.wait(20)
        until(lambda: act.alive(hunt) == 0)


THREAD_LEFT = """
import ctypes, threading, time
kept = bytearray(b'x') * (64 << 20)
threading.Thread(target=time.sleep, args=(600,)).start()
print(flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_first_thread_has_ended_is_seen_with_its_memory_and_ended() -> None:
    """Its state is that of a zombie, and its own files in /proc show no memory."""
    with started(THREAD_LEFT) as child:
        until(lambda: b") Z " in PROC.read(child.pid, "stat"))
        process = PROC.process(child.pid)
        assert process is not None
        assert process.anonymous >= 64 << 20
        hunt = Hunt(victim_of(child.pid))
        executioner = Executioner(PROC, Cgroups(Path("/nonexistent")), ())
        assert executioner.press(hunt) == 1
        assert child.wait(20) == -signal.SIGTERM
        assert executioner.alive(hunt) == 0
