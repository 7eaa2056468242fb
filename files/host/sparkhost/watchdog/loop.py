"""The loop: look, decide, act, hand over what there is to tell. It waits for nothing but the next look.

How it works. `step` takes one look at MemAvailable and asks `decide` what to do, carries that out, notes in the samples
what is then known (state.py), and asks again, until the answer is to wait. All that a decision rests on is in
`samples`; beside it the loop only knows whom it hunts (act.py) and what it has frozen (freezer.py). Whatever goes wrong
in a step costs that step: the samples begin anew, what was frozen goes on, and the next look comes. A watchdog that
ends for a mistake of ours is none.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparkhost.watchdog import state
from sparkhost.watchdog.act import Executioner, Hunt, lineage
from sparkhost.watchdog.cgroup import Cgroups
from sparkhost.watchdog.config import Config
from sparkhost.watchdog.decide import decide
from sparkhost.watchdog.freezer import Freezer
from sparkhost.watchdog.gpu import GpuCache, GpuView
from sparkhost.watchdog.meminfo import Memory
from sparkhost.watchdog.model import (
    Action,
    Candidate,
    DropCache,
    Freeze,
    Helpless,
    Land,
    Look,
    Policy,
    Samples,
    Scan,
    Signal,
    Thaw,
    Wait,
)
from sparkhost.watchdog.pauses import Pauses
from sparkhost.watchdog.people import People
from sparkhost.watchdog.process import Processes
from sparkhost.watchdog.report import event, signalled, told_grounds
from sparkhost.watchdog.signs import Signs, Teller
from sparkhost.watchdog.survey import Survey
from sparkhost.watchdog.work import candidates, place_of

MOST_STEPS = 12  # decisions in a row that each lead to the next one at once; more would be an error of ours
COMPLAIN_EVERY = 10.0  # seconds between two equal complaints
STOP = {signal.SIGTERM, signal.SIGINT}
ASKED = {*STOP, signal.SIGHUP}


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
        freezer: Freezer | None = None,
        people: People | None = None,
    ) -> None:
        """`freezer`: without one, nothing is frozen; a dry run only says what would be. `people`: see `use`."""
        self.config = config
        self.teller = teller
        self.dry_run = dry_run
        self.record = record
        self.memory = Memory(proc)
        self.processes = Processes(proc)
        self.cgroups = Cgroups(cgroup_root)
        self.signs = Signs()
        self.survey = Survey(self.processes, self.cgroups, self.signs.beat)
        self.gpu_file = gpu_file
        self.gpu = GpuCache(gpu_file, config.gpu_memory, config.gpu_stale_after)
        self.never = frozenset((*lineage(self.processes, os.getpid()), *never))
        self.executioner = Executioner(self.processes, self.cgroups, self.never)
        self.pauses = Pauses(None if dry_run else freezer, pretend=dry_run)
        self.people = people or People()
        self.samples = Samples(Look(0.0, 0, 0, 0))
        self.view = GpuView({})
        self.hunt: Hunt | None = None
        self.looks = self.signals = self.mistakes = 0
        self.refused = ""
        """What is wrong with the configuration file, while an older one is in force; "" where it is the file's."""
        self._told = dict.fromkeys(("complaint", "mistake"), -COMPLAIN_EVERY)

    @property
    def policy(self) -> Policy:
        """What is in force: without a freezer there is no brake."""
        policy = self.config.policy
        return policy if self.pauses.can_freeze else replace(policy, brake="off")

    def use(self, config: Config, people: People) -> None:
        """Takes another configuration from the next look on, and who the people of this host are by now."""
        self.config, self.people, self.refused = config, people, ""
        self.gpu = GpuCache(self.gpu_file, config.gpu_memory, config.gpu_stale_after)

    def list_candidates(self) -> tuple[Candidate, ...]:
        """Lists all units of work as they are now."""
        self.view = self.gpu.view()
        table = self.survey.table(self.view.bytes)
        charges = self.survey.charges(table)
        places = {place_of(process.cgroup).cgroup for process in table}
        return candidates(
            table,
            self.view.bytes,
            charges,
            self.config.preferences,
            never=self.never,
            omitted={cgroup for cgroup in places if self.cgroups.marked(cgroup, "omit")},
            avoided={cgroup for cgroup in places if self.cgroups.marked(cgroup, "avoid")},
            spared=self.people.spared,
            ranges=self.people.ranges,
            above=self.config.policy.system_unit_above,
        )

    def step(self) -> float:
        """One look and all that follows from it. Returns the seconds until the next one. Never raises."""
        pause = self.config.policy.near
        try:
            pause = self._step()
        except Exception:
            self.mistakes += 1
            self._begin_anew(traceback.format_exc())
        with suppress(Exception):  # what is told or read ahead is worth less than the next look
            self.signs.tell(self, pause)
            pause = self.survey.tour(pause)
        return pause

    def _step(self) -> float:
        policy = self.policy
        look = self.memory.look()
        self.looks += 1
        gone = False
        if self.samples.flight is not None and self.hunt is not None:
            self.executioner.press(self.hunt) if not self.dry_run else None
            gone = self.samples.flight.gone is None and not self._alive()
        self.samples = state.with_look(self.samples, look, policy, gone=gone)
        for _ in range(MOST_STEPS):
            action = decide(self.samples, policy)
            self._record(action)
            wait = self._do(action)
            if wait is not None:
                return wait
        return policy.near

    def _begin_anew(self, trouble: str) -> None:
        """After a mistake of ours: nobody stays frozen, and what may have led to it is forgotten."""
        look, self.samples, self.hunt = self.samples.look, Samples(self.samples.look), None
        with suppress(Exception):
            self.pauses.end()
        if look.time - self._told["mistake"] >= COMPLAIN_EVERY:
            self._told["mistake"] = look.time
            text = f"a mistake of ours, the watchdog goes on: {trouble.strip().splitlines()[-1]}"
            with suppress(Exception):
                self._tell("helpless", reason=text, traceback=trouble[-4000:])

    def _alive(self) -> bool:
        """Whether the victim still has processes. A dry run's victim is taken to be gone: it was never asked."""
        return not self.dry_run and self.hunt is not None and self.executioner.is_alive(self.hunt)

    def _do(self, action: Action) -> float | None:
        """Carries out an action; None where the next decision is due at once."""
        look = self.samples.look
        match action:
            case Wait():
                return action.seconds
            case Scan():
                self._scan()
            case Signal():
                self._signal(action)
            case Freeze():
                self._freeze(action)
            case Thaw():
                self._thaw(action)
            case Land():
                self._land(action)
            case DropCache():
                self.samples = replace(self.samples, dropped=look.time)
                self.teller.tell({"do": "drop_page_cache"})
            case Helpless():
                if look.time - self._told["complaint"] >= COMPLAIN_EVERY:
                    self._told["complaint"] = look.time
                    self._tell("helpless", reason=action.reason)
                return action.seconds
        return None

    def _scan(self) -> None:
        found = self.list_candidates()
        known = self.view.note == "" or self.config.gpu_memory == "never"
        self.samples = state.after_scan(self.samples, found, self.policy, gpu_age=self.view.age, gpu_known=known)

    def _signal(self, action: Signal) -> None:
        """The signal first; everything that tells of it afterwards."""
        if self.hunt is None or self.hunt.victim != action.victim:
            self.hunt = Hunt(action.victim)
        self.hunt.stage = action.stage
        reached = 0 if self.dry_run else self.executioner.press(self.hunt)
        done, look = time.monotonic(), self.samples.look
        self.samples = state.after_signal(self.samples, action, done)
        self.signals += 1
        self._tell(
            action.stage.lower(),
            victim=action.victim,
            reason=action.reason,
            grounds=told_grounds(action),
            what=signalled(action, self.dry_run),
            processes_reached=reached,
            seconds_from_look_to_signal=round(done - look.time, 6),
        )

    def _freeze(self, action: Freeze) -> None:
        """What could not be frozen (it is gone, or somebody else's doing) is not tried again."""
        now = time.monotonic()
        done = self.pauses.begin(action.units, self.samples.candidates or (), now)
        self.samples = state.after_freeze(self.samples, replace(action, units=done), now)
        left_out = set(action.units) - set(done)
        self.samples = replace(self.samples, released=self.samples.released | left_out)
        if done:
            self._tell("paused", reason=action.reason, paused=self.pauses.told(done, now))

    def _thaw(self, action: Thaw) -> None:
        now = time.monotonic()
        ended = self.pauses.told(action.units, now)
        self.pauses.end(action.units)
        self.samples = state.after_thaw(self.samples, action, now)
        self._tell("resumed", reason=action.reason, paused=ended)

    def _land(self, action: Land) -> None:
        flight = self.samples.flight
        if flight is None:
            return
        self.samples = state.after_land(self.samples, action, dry=self.dry_run)
        gone, futile = flight.gone is not None, self.samples.futile
        self._tell("landed", victim=flight.victim, gone=gone, helped=action.helped, futile=futile)
        self.memory.forget()
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

    def _accepted(self) -> None:
        """Has the configuration in force kept for the next start, unless it is the kept one already."""
        if not self.refused:
            self.teller.tell({"do": "accepted", "text": self.config.text})

    def run(self, reload: Callable[[], tuple[Config, People] | str]) -> None:
        """Goes on until SIGTERM or SIGINT; SIGHUP asks `reload` for another configuration, or why there is none."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)
        self._accepted()
        self.signs.supervisor.tell("READY=1", "STATUS=Watching MemAvailable")
        try:
            while True:
                asked = signal.sigtimedwait(ASKED, self.step())
                if asked is None:
                    continue
                if asked.si_signo in STOP:
                    self.signs.supervisor.tell("STOPPING=1")
                    return
                self._reload(reload)
        finally:
            self.pauses.end()

    def _reload(self, reload: Callable[[], tuple[Config, People] | str]) -> None:
        loaded = reload()
        if isinstance(loaded, str):
            self.refused = loaded
        else:
            self.use(*loaded)
            self._accepted()
        self.signs.ask()
