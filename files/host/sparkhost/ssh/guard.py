"""Changes that could lock everybody out: made only with the way back armed, and kept only when proved.

How it works: `Guarded` walks over the steps of its parts like any other resource. Before the first of
them is done, the host is made to take the change back by itself: by a timer, and at boot. The
controller then proves that logins work and sends `GuardStep`s: `restart`, and over a *new* connection
`confirm`. A dead controller, a cut network, a power cut: each ends with the host as it was. What an
earlier run has left is taken back first; as that moves the ground, the parts are looked at again
then. See docs/ssh.md.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from sparkhost.base.files import backup_of
from sparkhost.base.pid1 import run
from sparkhost.base.resource import Context, Failed, Refused, Resource, Step, Troubles, from_json, nothing, shown
from sparkhost.ssh import rollback, sshd, unproved
from sparkhost.ssh.arming import arm
from sparkhost.ssh.rollback import TIMER


@dataclass(frozen=True)
class Guarded(Resource):
    """Resources that are changed together, under guard.

    `token`: names this run's change; steps with another token do nothing to it. `resources`: the parts, as requests.
    `confirm_within`: seconds until the host takes the change back. `trial_login`: whether the controller tries a login
    before sshd is restarted, and `oom_score_adjust` what that sshd is started with, as the one to come will be.
    `restart_for`: files that sshd must have been started after.
    """

    kind: ClassVar[str] = "guarded"
    is_basis: ClassVar[bool] = True
    token: str
    resources: list[dict[str, Any]]
    confirm_within: float
    trial_login: bool
    oom_score_adjust: int
    restart_for: list[str]

    def parts(self) -> list[Resource]:
        return [from_json(part) for part in self.resources]

    def units(self) -> Sequence[str]:
        return ("ssh.service", "ssh.socket", *(unit for part in self.parts() for unit in part.units()))

    def hold(self) -> contextlib.AbstractContextManager[object]:
        return unproved.locked()

    def steps(self, context: Context) -> Iterator[Step]:
        check_no_older()
        armed = unproved.read()
        ours = armed is not None and armed.waits and armed.token == self.token
        inner = Context([*context.pending])
        found: list[Step] = []
        for part in self.parts():
            more = [*part.steps(inner)]
            found += more
            inner.pending += shown(more)
        clear = partial(settle, "a later deploy found that it had never been proved")
        if armed and not (armed.waits and is_of_run(armed.token, self.token)):
            says = "take back an earlier change that was never proved, then make it again"
            yield Step("ssh", says, clear, again=True)
        elif unproved.ended():
            yield Step("ssh", "remove what an earlier change has left", clear, again=True)
        elif ours and found:
            yield Step("ssh", "", clear, again=True)
        yield from found
        if not ours and (reason := self._restart_reason(inner)):
            sshd.check_read_configuration()
            # Done by a step of the proof, once a new login has worked.
            yield Step("ssh.service", f"restart, {reason}; live sessions stay", nothing)

    def _restart_reason(self, context: Context) -> str:
        """Why sshd has to be started anew, or ""."""
        pending = context.changes_of(self.restart_for)
        if pending and rollback.is_active("ssh.service"):
            return f"for {', '.join(pending)}"
        return sshd.stale_listener(self.restart_for)

    def carry_out(self, steps: Sequence[Step], troubles: Troubles) -> None:
        """Does the steps with the way back armed, and takes them back where one fails."""
        if not steps or steps[0].again:
            super().carry_out(steps, troubles)  # which comes back here with what is left to do
            return
        paths = [Path(path) for part in self.parts() for path in part.touches()]
        armed = arm(self.token, [*paths, *map(backup_of, paths)], self.confirm_within)
        try:
            super().carry_out(steps, troubles)
            for part in self.parts():
                if left := part.plan(Context()):
                    raise Failed(f"{left[0].what}: still differs after the change: {left[0].summary}")
            sshd.check_configuration()
            unproved.set_stage(armed, "changed")
        except BaseException as error:
            settle(" ".join(str(error).split()) or type(error).__name__, error)
            raise


def is_of_run(token: str, ours: str) -> bool:
    """Whether a change is one of the same run, which proves each before it makes the next. Tokens are `RUN.MEASURE`."""
    return token.partition(".")[0] == ours.partition(".")[0]


def settle(reason: str, cause: BaseException | None = None) -> None:
    """Takes back what is armed, if anything. The plan, or who is told the reason, has said so.

    Raises:
        Failed: not all of it could be taken back. The host goes on trying; nothing else is to change until then.
    """
    result = rollback.take_back(reason)
    if not result.done:
        raise Failed(result.report) from cause
    pop_report()


def check_no_older() -> None:
    """Refuses where an earlier version's change waits: only its own timer can take that back."""
    if (unproved.DIRECTORY / "armed.json").exists():
        raise Refused(
            "a change to SSH of an earlier sparkfleet was never proved: run `systemctl start "
            f"{TIMER}.service`, which takes it back, then deploy again"
        )


@dataclass(frozen=True)
class GuardStep(Resource):
    """One step of the proof, on the change with this token: `restart`, `confirm`, `take_back`.

    `local`: there is no second connection (`@local`), so `confirm` looks for sshd's greeting itself.
    """

    kind: ClassVar[str] = "guard_step"
    done: ClassVar[set[tuple[str, str]]] = set()
    token: str
    step: str
    restart_for: list[str]
    reason: str = ""
    local: bool = False

    def steps(self, context: Context) -> Iterator[Step]:
        if (self.token, self.step) in self.done:
            return
        if self._mine():
            yield Step("ssh", self.step, self._do)
        elif self.step != "take_back":
            raise Failed(f"the host does not wait for this proof any more: {last_report() or 'it was never armed'}")

    def _mine(self) -> unproved.Armed | None:
        """This change, as long as it waits for its proof."""
        armed = unproved.read()
        return armed if armed and armed.waits and armed.token == self.token else None

    def _do(self) -> None:
        with unproved.locked():
            armed = self._mine()
            if armed is None:
                raise Failed(f"the host has just taken the change back: {last_report()}")
            match self.step:
                case "restart":
                    self._restart(armed)
                case "confirm":
                    self._confirm(armed)
                case "take_back":
                    settle(self.reason)
                case _:
                    raise Failed(f"unknown step of a proof: {self.step!r}")
        self.done.add((self.token, self.step))

    def _restart(self, armed: unproved.Armed) -> None:
        changed = [e for e in armed.entries if str(e.path) in self.restart_for and unproved.differs(e)]
        if not (changed and rollback.is_active("ssh.service")) and not sshd.stale_listener(self.restart_for):
            return
        armed = unproved.set_stage(armed, "restarting")
        try:
            run("systemctl", "restart", "ssh.service")
        except Failed as error:
            result = rollback.take_back(str(error))
            if result.done:
                pop_report()
            raise Failed(result.report) from error
        unproved.set_stage(armed, "restarted")

    def _confirm(self, armed: unproved.Armed) -> None:
        if self.local:
            check_greeting()
        rollback.free_sessions()
        # First on disk, then proved: a power cut must not leave half of it without a way back.
        unproved.sync(armed.entries)
        unproved.move(unproved.ARMED, unproved.ENDED)
        try:
            rollback.clean_up()
        except OSError as error:
            raise Failed(f"proved and kept, but what it needed is still there: {error}") from error


def check_greeting() -> None:
    """Looks for sshd's greeting on a port that its configuration names.

    Raises:
        Refused: nobody greets there.
    """
    port = int(sshd.configuration().get("port", ["22"])[0])
    try:
        with socket.create_connection(("localhost", port), timeout=30) as connection:
            connection.settimeout(30)
            if connection.recv(4) == b"SSH-":
                return
    except OSError as error:
        raise Refused(f"no sshd answers on port {port} of this host: {error}") from error
    raise Refused(f"something other than sshd answers on port {port} of this host")


def last_report() -> str:
    """What the last taking back said, or "". It stays until `pop_report`."""
    try:
        return rollback.report_file().read_text(errors="replace").strip()
    except OSError:
        return ""  # there is none; or one that cannot be read, which must not end a deploy


def pop_report() -> list[str]:
    """The report of a change that the host has taken back by itself, once."""
    report = last_report()
    with contextlib.suppress(OSError):  # on a read-only file system it is told again
        rollback.report_file().unlink(missing_ok=True)
    return [report] if report else []


def waits_for_proof() -> bool:
    """Whether a change is armed on this host."""
    armed = unproved.read()
    return armed is not None and armed.waits
