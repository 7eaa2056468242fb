"""The rollout itself: batch after batch, until one is bad."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from sparkfleet.audit import controls as registry
from sparkfleet.audit import output
from sparkfleet.audit.collect import SECONDS, target_of
from sparkfleet.audit.command import audited
from sparkfleet.audit.model import Run
from sparkfleet.audit.password import SudoPassword
from sparkfleet.audit.waivers import Waiver
from sparkfleet.deploy.outcome import Outcome, State
from sparkfleet.deploy.run import Wanted, run
from sparkfleet.enrol.ssh import Route
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.mistakes import mistake
from sparkfleet.rollout.batches import next_batch
from sparkfleet.rollout.busy import Busy, settled
from sparkfleet.rollout.gate import Refusal, refused
from sparkfleet.rollout.reboot import JOBS_AGAIN, NO_NEW_JOBS, RootShell, need_of, reboot
from sparkfleet.rollout.state import Progress, RunState, save
from sparkfleet.settings import Fleet
from sparkfleet.settings.problems import escaped


@dataclass(frozen=True)
class Policy:
    """What was asked for; times in seconds."""

    canaries: Sequence[str]
    size: int
    busy: Busy
    wait_up_to: float
    reboot: bool
    return_within: float
    waivers: tuple[Waiver, ...] = ()
    quiet: bool = False


@dataclass
class Rollout:
    """One rollout: what it is about, and how far it has come."""

    path: Path
    fleet: Fleet
    policy: Policy
    state: RunState
    state_file: Path
    planned: dict[str, Outcome]
    """The look at every host before anything was touched."""
    reasons: dict[str, str] = field(default_factory=dict)
    code: ExitCode = ExitCode.CLEAN

    def __post_init__(self) -> None:
        self.password = SudoPassword()
        known = self.fleet.known_hosts
        self.targets = {host.name: target_of(host, known) for host in self.fleet.hosts}

    def say(self, line: str) -> None:
        print(line, file=sys.stderr if self.policy.quiet else sys.stdout, flush=True)

    def mark(self, host: str, progress: Progress, reason: str = "", code: ExitCode = ExitCode.CLEAN) -> None:
        self.state.hosts[host] = progress
        self.reasons[host] = escaped(reason)
        self.code = max(self.code, code)

    def saved(self) -> None:
        save(self.state_file, self.state)

    def routes(self, hosts: Sequence[str]) -> dict[str, Route]:
        found = {host: self.targets[host].route for host in hosts}
        return {host: route for host, route in found.items() if route is not None}

    def roll(self) -> bool:
        """Goes through all batches that are left. Whether none was bad; the state is saved before and after each.

        Raises:
            CommandFailed: the state cannot be saved; nothing is touched then.
            KeyboardInterrupt: after the deploy has ended, too.
        """
        waiting = self.waiting()
        while batch := next_batch(waiting, self.policy.canaries, self.policy.size, proved=self.proved()):
            waiting = [host for host in waiting if host not in batch]
            self.say(f"\nbatch: {', '.join(batch)}")
            good = self.batch(batch)
            self.saved()
            if not good:
                self.say("stopped: this batch is bad, and the hosts after it are as they were")
                for host in waiting:
                    self.mark(host, Progress.UNTOUCHED, code=ExitCode.FAILURE)
                return False
        return True

    def waiting(self) -> list[str]:
        """The hosts to do, in order; those that the look did not reach are left out, and told."""
        found = []
        for host in self.state.left():
            seen = self.planned[host]
            if seen.state in (State.UNREACHABLE, State.LOST):
                self.mark(host, Progress.UNREACHABLE, seen.reason, ExitCode.UNREACHABLE)
            else:
                found.append(host)
        return found

    def proved(self) -> bool:
        return Progress.DONE in self.state.hosts.values()

    def batch(self, hosts: Sequence[str]) -> bool:
        """One batch. Whether it was good: hosts in use are passed over, and make it no worse."""
        # What has nothing to change disturbs nobody.
        changing = [host for host in hosts if self.planned[host].state is not State.CLEAN]
        go, in_use, unasked = settled(self.routes(changing), self.policy.busy, self.policy.wait_up_to, self.say)
        for host, by in in_use.items():
            self.mark(host, Progress.SKIPPED, by, ExitCode.FAILURE)
        bad = {host: Refusal(why, ExitCode.UNREACHABLE) for host, why in unasked.items()}
        ready = [host for host in hosts if host in go or host not in changing]
        for host in ready:
            self.mark(host, Progress.STARTED)
        self.saved()
        if ready:
            bad |= self.deployed(ready)
        for host, refusal in bad.items():
            self.mark(host, Progress.FAILED, refusal.reason, refusal.code)
        for host in ready:
            if self.state.hosts[host] is Progress.STARTED:
                self.mark(host, Progress.DONE)
        return not bad

    def deployed(self, hosts: Sequence[str]) -> dict[str, Refusal]:
        """Deploys, audits, and reboots where that is asked for. The hosts that may not pass."""
        try:
            found = run(Wanted(hosts, self.path, dry=False, confirmed=True), quiet=self.policy.quiet)
        except CommandFailed as error:
            return {host: Refusal(f"deploy: {error}", ExitCode(error.code)) for host in hosts}
        seen = self.audit(hosts)
        bad = refused(hosts, found, seen, registry.CONTROLS)
        if self.policy.reboot:
            bad |= self.rebooted([host for host in hosts if host not in bad], seen)
        return bad

    def audit(self, hosts: Sequence[str]) -> Run:
        """All controls of these hosts, over new connections, with the waivers of today."""
        found = audited([self.targets[host] for host in hosts], registry.CONTROLS, str(self.path), SECONDS)
        return output.waived(found, self.policy.waivers)

    def at_once(self, ask: Callable[[str], str], hosts: Iterable[str]) -> dict[str, str]:
        """What each of these hosts answers, asked at the same time; what goes wrong with one is its answer."""

        def answer(host: str) -> str:
            try:
                return ask(host)
            except CommandFailed as error:
                return str(error)
            except Exception as error:
                return mistake(error)

        names = list(hosts)
        if not names:
            return {}
        with ThreadPoolExecutor(len(names)) as pool:
            return dict(zip(names, pool.map(answer, names), strict=True))

    def rebooted(self, hosts: Sequence[str], seen: Run) -> dict[str, Refusal]:
        """Reboots the hosts that ask for it, all at the same time, and audits them again."""
        needs = {host: need for host in hosts if (need := need_of(host, seen)).pending}
        bad = {host: Refusal(need.refusal, ExitCode.FAILURE) for host, need in needs.items() if need.refusal}
        routes = self.routes([host for host in needs if host not in bad])
        roots = {host: RootShell(route, self.password) for host, route in routes.items()}
        back: dict[str, str] = {}
        try:
            # Drained: what runs may end, and nothing new begins between the look at a host and its reboot.
            drained = {} if self.policy.busy is Busy.FORCE else self.at_once(lambda h: roots[h].run(NO_NEW_JOBS), roots)
            bad |= {host: Refusal(f"not rebooted: {why}", ExitCode.FAILURE) for host, why in drained.items() if why}
            routes = {host: route for host, route in routes.items() if host not in bad}
            go, in_use, unasked = settled(routes, self.policy.busy, self.policy.wait_up_to, self.say)
            bad |= {host: Refusal(why, ExitCode.UNREACHABLE) for host, why in unasked.items()}
            for host, by in in_use.items():
                self.mark(host, Progress.SKIPPED, f"deployed, and not rebooted: {by}", ExitCode.FAILURE)
            back = self.at_once(lambda host: reboot(roots[host], self.policy.return_within, self.say), go)
        finally:
            # Also after Ctrl-C: where there is no reboot, users can start jobs again.
            self.at_once(lambda host: roots[host].run(JOBS_AGAIN), [host for host in roots if back.get(host, "not")])
        bad |= {host: Refusal(why, ExitCode.UNREACHABLE) for host, why in back.items() if why}
        alive = [host for host in go if host not in bad]
        if alive:
            again = [Outcome(host, State.CLEAN, "", {}) for host in alive]
            bad |= refused(alive, again, self.audit(alive), registry.CONTROLS)
        return bad
