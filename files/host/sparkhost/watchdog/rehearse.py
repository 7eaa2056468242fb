"""Goes all of the way to a signal once, with a child of our own as the victim: what it touches stays in memory then."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from sparkhost.watchdog.act import Executioner, Hunt
from sparkhost.watchdog.decide import decide
from sparkhost.watchdog.loop import Watchdog
from sparkhost.watchdog.model import Candidate, Flight, Look, Member, Samples, Signal
from sparkhost.watchdog.process import Processes
from sparkhost.watchdog.report import event, signalled
from sparkhost.watchdog.trace import encode


class Few(Processes):
    """A table of a few: the rehearsal takes as long on a host with 50,000 processes as on one with 50."""

    def __init__(self, proc: Path, pids: Iterable[int]) -> None:
        super().__init__(proc)
        self.pids = tuple(pids)

    def numbers(self) -> Iterator[int]:
        yield from self.pids


NO_CGROUP = "/sparkfleet-rehearses-with-a-cgroup-that-is-not-there"


def rehearse(watchdog: Watchdog) -> None:
    """Before memory is locked. Tells nobody, and changes nothing of what the watchdog remembers."""
    listed = watchdog.list_candidates()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # so that it is there for the second signal as well
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        while True:
            signal.pause()
    try:
        start = watchdog.processes.start_of(child)
        cgroup = watchdog.processes.cgroup_of(child)
        if start is not None and cgroup is not None:
            root = Member(child, start)
            few = Few(Path(watchdog.processes.proc), (os.getpid(), child))
            victim = Candidate("rehearsal", "rehearsal", "process", cgroup, (root,), anonymous=1 << 30)
            pretend(watchdog, Executioner(few, watchdog.cgroups, watchdog.never), victim, listed)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def pretend(watchdog: Watchdog, executioner: Executioner, victim: Candidate, listed: tuple[Candidate, ...]) -> None:
    """Decides that the victim ends, signals it in all ways, and makes the record that would be told."""
    policy = watchdog.config.policy
    look = watchdog.memory.look()
    short = replace(look, available=policy.term_below - 1, slope=-1.5e9, stall=0.3)
    low = replace(look, available=policy.kill_below - 1)
    for now in (short, low):
        action = decide(Samples(now, (*listed, victim)), policy)
        wanted = signalled(action, False) if isinstance(action, Signal) else ""
        record = event("rehearsal", now, policy, victim=victim, candidates=listed, time=time.time(), what=wanted)
        json.dumps(record, default=encode).encode()
    hunt = Hunt(victim)
    for stage in ("TERM", "KILL"):
        hunt.stage = "TERM" if stage == "TERM" else "KILL"
        executioner.press(hunt)
        executioner.alive(hunt)
        for available in (low.available, look.available):
            flying(
                watchdog, Flight(victim, hunt.stage, look.time - 99, low.available), replace(look, available=available)
            )
    whole = Hunt(replace(victim, roots=(), cgroup=NO_CGROUP), "KILL")
    executioner.press(whole)
    executioner.alive(whole)
    descriptor = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    os.write(descriptor, b"1")  # as cgroup.kill is written to
    os.close(descriptor)


def flying(watchdog: Watchdog, flight: Flight, look: Look) -> None:
    for gone in (None, look.time - 99):
        decide(Samples(look, (flight.victim,), replace(flight, gone=gone)), watchdog.config.policy)
