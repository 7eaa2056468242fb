"""The loop: look, decide, act, hand over what there is to tell. It waits for nothing but the next look."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from sparkhost.watchdog.act import Executioner, Hunt, lineage
from sparkhost.watchdog.cgroup import Cgroups
from sparkhost.watchdog.config import Config
from sparkhost.watchdog.decide import decide
from sparkhost.watchdog.gpu import GpuCache, GpuView
from sparkhost.watchdog.meminfo import Memory
from sparkhost.watchdog.model import (
    Action,
    Candidate,
    DropCache,
    Flight,
    Helpless,
    Land,
    Look,
    Samples,
    Scan,
    Signal,
    Wait,
)
from sparkhost.watchdog.process import Processes
from sparkhost.watchdog.report import event, signalled
from sparkhost.watchdog.survive import Supervisor
from sparkhost.watchdog.work import candidates, place_of, whole_units

# A decision that leads to the next one at once: land, list, signal. More in a row would be an error of ours.
MOST_STEPS = 8
# Seconds between two signs of life to systemd, between two states handed to the teller, and two equal complaints.
ALIVE_EVERY, STATE_EVERY, COMPLAIN_EVERY = 1.0, 15.0, 10.0
STOP = {signal.SIGTERM, signal.SIGINT}
ASKED = {*STOP, signal.SIGHUP}


class Teller(Protocol):
    """Where events go. Returns at once; what cannot be taken is counted by it."""

    def tell(self, message: dict[str, Any]) -> None: ...

    def tend(self) -> None:
        """For calm times: sees that somebody listens."""


class Watchdog:
    """One host's watchdog, with what it remembers from look to look."""

    def __init__(
        self,
        config: Config,
        teller: Teller,
        *,
        gpu_file: Path,
        proc: Path = Path("/proc"),
        cgroup_root: Path = Path("/sys/fs/cgroup"),
        dry_run: bool = False,
        record: bool = False,
        never: Iterable[int] = (),
    ) -> None:
        self.config = config
        self.teller = teller
        self.dry_run = dry_run
        self.record = record
        self.memory = Memory(proc)
        self.processes = Processes(proc)
        self.cgroups = Cgroups(cgroup_root)
        self.gpu_file = gpu_file
        self.gpu = GpuCache(gpu_file, config.gpu_memory, config.gpu_stale_after)
        self.never = frozenset((*lineage(self.processes, os.getpid()), *never))
        self.executioner = Executioner(self.processes, self.cgroups, self.never)
        self.supervisor = Supervisor()
        self.samples = Samples(Look(0.0, 0, 0, 0))
        self.view = GpuView({})
        self.hunt: Hunt | None = None
        self.looks = self.signals = 0
        self.refused = ""
        """What is wrong with the configuration file, while an older one is in force; "" where it is the file's."""
        self._told = {"alive": -ALIVE_EVERY, "state": -STATE_EVERY, "complaint": -COMPLAIN_EVERY}

    def use(self, config: Config) -> None:
        """Takes another configuration from the next look on."""
        self.config, self.refused = config, ""
        self.gpu = GpuCache(self.gpu_file, config.gpu_memory, config.gpu_stale_after)

    def list_candidates(self) -> tuple[Candidate, ...]:
        """Lists all units of work as they are now."""
        table = self.processes.table()
        self.view = self.gpu.view()
        units = whole_units(table)
        charges = {cgroup: charge for cgroup in units if (charge := self.cgroups.charge(cgroup))}
        places = {place_of(process.cgroup).cgroup for process in table}
        return candidates(
            table,
            self.view.bytes,
            charges,
            self.config.preferences,
            never=self.never,
            omitted={cgroup for cgroup in places if self.cgroups.marked(cgroup, "omit")},
            avoided={cgroup for cgroup in places if self.cgroups.marked(cgroup, "avoid")},
        )

    def step(self) -> float:
        """One look and all that follows from it. Returns the seconds until the next one."""
        look = self.memory.look()
        self.looks += 1
        flight = self.samples.flight
        if flight is not None and self.hunt is not None:
            self.executioner.press(self.hunt) if not self.dry_run else None
            if flight.gone is None and not self._alive():
                flight = replace(flight, gone=look.time)
        calm = look.available >= self.config.policy.term_below
        self.samples = replace(
            self.samples,
            look=look,
            flight=flight,
            candidates=None,
            spent=frozenset() if calm and flight is None else self.samples.spent,
            futile=0 if calm else self.samples.futile,
        )
        pause = self.config.policy.near
        for _ in range(MOST_STEPS):
            action = decide(self.samples, self.config.policy)
            self._record(action)
            wait = self._do(action)
            if wait is not None:
                pause = wait
                break
        self._periodically(look, pause)
        return pause

    def _alive(self) -> bool:
        """Whether the victim still has processes. A dry run's victim is taken to be gone: it was never asked."""
        return not self.dry_run and self.hunt is not None and self.executioner.alive(self.hunt) > 0

    def _do(self, action: Action) -> float | None:
        """Carries out an action; None where the next decision is due at once."""
        look = self.samples.look
        match action:
            case Wait():
                return action.seconds
            case Scan():
                self.samples = replace(self.samples, candidates=self.list_candidates())
                return None
            case Signal():
                self._signal(action)
                return self.config.policy.near
            case Land():
                self._land(action, look)
                return None
            case DropCache():
                self.samples = replace(self.samples, dropped=look.time)
                self.teller.tell({"do": "drop_page_cache"})
                return None
            case Helpless():
                if look.time - self._told["complaint"] >= COMPLAIN_EVERY:
                    self._told["complaint"] = look.time
                    self._tell("helpless", reason=action.reason)
                return action.seconds

    def _signal(self, action: Signal) -> None:
        """The signal first; everything that tells of it afterwards."""
        if self.hunt is None or self.hunt.victim != action.victim:
            self.hunt = Hunt(action.victim)
        self.hunt.stage = action.stage
        reached = 0 if self.dry_run else self.executioner.press(self.hunt)
        done = time.monotonic()
        look, flight = self.samples.look, self.samples.flight
        first = look.available if flight is None else flight.available
        self.samples = replace(self.samples, flight=Flight(action.victim, action.stage, done, first))
        self.signals += 1
        self._tell(
            action.stage.lower(),
            victim=action.victim,
            reason=action.reason,
            what=signalled(action, self.dry_run),
            processes_reached=reached,
            seconds_from_look_to_signal=round(done - look.time, 6),
        )

    def _land(self, action: Land, look: Look) -> None:
        flight = self.samples.flight
        if flight is None:
            return
        stuck = flight.gone is None and flight.stage == "KILL"
        futile = 0 if action.helped else self.samples.futile + 1
        self._tell("landed", victim=flight.victim, gone=flight.gone is not None, helped=action.helped, futile=futile)
        # A dry run's victim still holds its memory: without this it would be chosen again and again.
        spent = self.samples.spent | {flight.victim.key} if stuck or self.dry_run else self.samples.spent
        # The fall before belongs to the one that is gone: it must not be held against whoever is left.
        self.memory.forget()
        look = replace(look, slope=0.0)
        self.samples = replace(self.samples, look=look, flight=None, spent=spent, futile=futile, futile_since=look.time)
        self.hunt = None

    def _tell(self, kind: str, **more: Any) -> None:
        self.teller.tell(
            event(
                kind,
                self.samples.look,
                self.config.policy,
                candidates=self.samples.candidates or (),
                dry_run=self.dry_run,
                gpu_note=self.view.note,
                gpu_age=self.view.age,
                time=time.time(),
                **more,
            )
        )

    def _record(self, action: Action) -> None:
        if self.record:
            self.teller.tell({"do": "record", "samples": self.samples, "action": action})

    def _periodically(self, look: Look, pause: float) -> None:
        if look.time - self._told["alive"] >= ALIVE_EVERY:
            self._told["alive"] = look.time
            self.supervisor.tell("WATCHDOG=1")
        if look.time - self._told["state"] >= STATE_EVERY:
            self._told["state"] = look.time
            if look.available >= self.config.policy.term_below:
                self.teller.tend()
            self._tell_state(look, pause)

    def _tell_state(self, look: Look, pause: float) -> None:
        """What is in force, for whoever asks how it goes. `boottime`: CLOCK_BOOTTIME goes on while the host sleeps."""
        self.teller.tell(
            {
                "do": "state",
                "pid": os.getpid(),
                "boottime": time.clock_gettime(time.CLOCK_BOOTTIME),
                "look": look,
                "pause": pause,
                "looks": self.looks,
                "signals": self.signals,
                "dry_run": self.dry_run,
                "gpu_note": self.gpu.view().note,
                "policy": self.config.policy,
                "protect": self.config.preferences.protect,
                "prefer": self.config.preferences.prefer,
                "refused": self.refused,
            }
        )

    def _accepted(self) -> None:
        """Has the configuration in force kept for the next start, unless it is the kept one already."""
        if not self.refused:
            self.teller.tell({"do": "accepted", "text": self.config.text})

    def run(self, reload: Callable[[], tuple[Config | None, str]]) -> None:
        """Goes on until SIGTERM or SIGINT; SIGHUP asks `reload` for another configuration, or why there is none."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)
        self._accepted()
        self.supervisor.tell("READY=1", "STATUS=Watching MemAvailable")
        while True:
            asked = signal.sigtimedwait(ASKED, self.step())
            if asked is None:
                continue
            if asked.si_signo in STOP:
                self.supervisor.tell("STOPPING=1")
                return
            config, problem = reload()
            if config is None:
                self.refused = problem
            else:
                self.use(config)
                self._accepted()
            self._told["state"] = -STATE_EVERY  # whoever has asked wants to see what came of it
