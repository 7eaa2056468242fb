"""Changes that could lock everybody out: made only with the way back armed, and kept only when proved.

`Guarded` plans its parts like any other resources. Before the first of them changes anything, the host is made to take
the change back by itself: by a timer, and at boot. The controller then proves that logins work and sends `GuardStep`s:
`restart`, and over a *new* connection `confirm`. A dead controller, a cut network, a power cut: each ends with the host
as it was. See docs/ssh.md.
"""

from __future__ import annotations

import importlib
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sparkhost import rollback, sshd
from sparkhost.files import backup_of, make_directories, write_atomic
from sparkhost.pid1 import run
from sparkhost.resource import Change, Context, Failed, Refused, Resource, from_json
from sparkhost.rollback import TIMER

# Not below /etc/systemd/system: it comes and goes, and that directory's time says when drop-ins there went away.
BOOT_UNIT = Path("/usr/local/lib/systemd/system/sparkfleet-rollback-boot.service")
BOOT_LINK = BOOT_UNIT.parent / "sysinit.target.wants" / BOOT_UNIT.name
# What the copy on the host needs.
PARTS = ("", ".bounded", ".diff", ".files", ".pid1", ".resource", ".rollback")
MODULES = tuple(f"sparkhost{part}" for part in PARTS)


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

    def plan(self, context: Context) -> Sequence[Change]:
        armed = rollback.read()
        ours = armed is not None and armed.token == self.token
        changes: list[Change] = []
        if armed and not ours:
            changes.append(Change("ssh", "take back an earlier change that was never proved, then make it again"))
        inner = Context([*context.pending])
        for part in self.parts():
            found = part.plan(inner)
            changes += found
            inner.pending += found
        if not ours and (reason := self._restart_reason(inner)):
            sshd.check_read_configuration()
            changes.append(Change("ssh.service", f"restart, {reason}; live sessions stay"))
        return changes

    def _restart_reason(self, context: Context) -> str:
        """Why sshd has to be started anew, or ""."""
        pending = sorted({change.what for change in context.pending} & set(self.restart_for))
        if pending and rollback.is_active("ssh.service"):
            return f"for {', '.join(pending)}"
        return sshd.stale_listener(self.restart_for)

    def apply(self) -> None:
        with rollback.locked():
            rollback.take_back("a later deploy found that it had never been proved")
            pop_report()  # the plan has said so
            armed = self._arm()
            try:
                for part in self.parts():
                    make(part)
                sshd.check_configuration()
                rollback.set_stage(armed, "changed")
            except BaseException as error:
                report = rollback.take_back(" ".join(str(error).split()) or type(error).__name__)
                pop_report()
                if rollback.INCOMPLETE in report:
                    raise Failed(report) from error
                raise

    def _arm(self) -> rollback.Armed:
        """From here on the host undoes what follows, unless it is proved. Nothing has changed yet."""
        paths = [Path(path) for part in self.parts() for path in touches(part)]
        ours = [never_there(path) for path in (BOOT_UNIT, BOOT_LINK)]
        entries = [rollback.saved(path) for path in dict.fromkeys([*paths, *map(backup_of, paths)])]
        active = [unit for unit in ("ssh.service", "ssh.socket") if rollback.is_active(unit)]
        program = install_program()
        for unit in (f"{TIMER}.timer", f"{TIMER}.service"):  # of an earlier change
            subprocess.run(["systemctl", "stop", unit], capture_output=True, timeout=90, check=False)
        run(
            *("systemd-run", "--quiet", "--collect", f"--unit={TIMER}", f"--on-active={self.confirm_within:.0f}"),
            *("--timer-property=AccuracySec=1s", *program, "timer"),
        )
        make_directories(BOOT_LINK.parent)
        write_atomic(BOOT_UNIT, boot_unit(program).encode(), 0o644)
        BOOT_LINK.unlink(missing_ok=True)
        BOOT_LINK.symlink_to(BOOT_UNIT)
        armed = rollback.Armed(self.token, "changing", time.time(), active, [*entries, *ours])
        rollback.write(armed)
        return armed


def never_there(path: Path) -> dict[str, Any]:
    """The entry of a path of the guard's own: one that a killed run left behind does not belong to the host."""
    path.unlink(missing_ok=True)
    return rollback.saved(path)


def touches(part: Resource) -> list[str]:
    """Every path that a part may change."""
    own = getattr(part, "touches", None)
    if own is not None:
        return list(own())
    path = getattr(part, "path", None)
    return [path] if path else []


def make(part: Resource) -> None:
    """Applies one part, and looks whether it took."""
    if not part.plan(Context()):
        return
    part.apply()
    if left := part.plan(Context()):
        raise Failed(f"{left[0].what}: still differs after the change: {left[0].summary}")


def program_directory() -> Path:
    """Where the copy of `rollback` lies while a change is armed."""
    return rollback.DIRECTORY / "program"


def install_program() -> list[str]:
    """Puts the copy of `rollback` on the host; returns the command that runs it."""
    directory = program_directory()
    make_directories(directory / "sparkhost")
    for name in MODULES:
        module = importlib.import_module(name)
        # From the request or from a disk: both kinds of loaders have the source.
        source = module.__loader__.get_source(name)  # type: ignore[union-attr]
        leaf = "__init__" if name == "sparkhost" else name.rpartition(".")[2]
        write_atomic(directory / "sparkhost" / f"{leaf}.py", source.encode(), 0o644)
    main = directory / "take_back.py"
    path = f"sys.path.insert(0, {str(directory)!r})"
    code = f"import sys\n\n{path}\nfrom sparkhost.rollback import main\n\nsys.exit(main())\n"
    write_atomic(main, code.encode(), 0o644)
    # Not one character that needs quoting: systemd 252 escapes `;` in a transient unit's file, and does not understand
    # that when a daemon-reload, such as that of the very change, has it read the file again.
    return ["/usr/bin/python3", "-I", "-S", "-B", str(main)]


def boot_unit(program: Sequence[str]) -> str:
    return f"""\
# managed by sparkfleet (measure: ssh). Here only while a change to SSH is not proved yet; see docs/ssh.md.
[Unit]
Description=Take back a change to SSH that was never proved
ConditionPathExists={rollback.armed_file()}
DefaultDependencies=no
RequiresMountsFor={rollback.DIRECTORY} /etc /opt /usr
After=local-fs.target
Before=ssh.service ssh.socket sockets.target shutdown.target

[Service]
Type=oneshot
ExecStart={" ".join(program)} boot
"""


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

    def plan(self, context: Context) -> Sequence[Change]:
        if (self.token, self.step) in self.done:
            return []
        if self._mine() is None:
            if self.step == "take_back":
                return []
            raise Failed(f"the host does not wait for this proof any more: {last_report() or 'it was never armed'}")
        return [Change("ssh", self.step)]

    def _mine(self) -> rollback.Armed | None:
        armed = rollback.read()
        return armed if armed and armed.token == self.token else None

    def apply(self) -> None:
        with rollback.locked():
            armed = self._mine()
            if armed is None:
                raise Failed(f"the host has just taken the change back: {last_report()}")
            match self.step:
                case "restart":
                    self._restart(armed)
                case "confirm":
                    self._confirm(armed)
                case "take_back":
                    report = rollback.take_back(self.reason)
                    pop_report()
                    if rollback.INCOMPLETE in report:
                        raise Failed(report)
                case _:
                    raise Failed(f"unknown step of a proof: {self.step!r}")
        self.done.add((self.token, self.step))

    def _restart(self, armed: rollback.Armed) -> None:
        changed = [e for e in armed.entries if e["path"] in self.restart_for and rollback.differs(e)]
        if not (changed and rollback.is_active("ssh.service")) and not sshd.stale_listener(self.restart_for):
            return
        armed = rollback.set_stage(armed, "restarting")
        try:
            run("systemctl", "restart", "ssh.service")
        except Failed as error:
            report = rollback.take_back(str(error))
            pop_report()
            raise Failed(report) from error
        rollback.set_stage(armed, "restarted")

    def _confirm(self, armed: rollback.Armed) -> None:
        if self.local:
            check_greeting()
        rollback.free_sessions()
        # Only our own unit and link: the rest is the proved change.
        own = [entry for entry in armed.entries if entry["path"] in (str(BOOT_UNIT), str(BOOT_LINK))]
        rollback.forget()
        # Nothing runs it any more: the timer is stopped.
        shutil.rmtree(program_directory(), ignore_errors=True)
        if problems := rollback.restore(own):
            raise Failed(f"proved and kept, but {'; '.join(problems)}")


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
        return rollback.report_file().read_text().strip()
    except FileNotFoundError:
        return ""


def pop_report() -> list[str]:
    """The report of a change that the host has taken back by itself, once."""
    report = last_report()
    if report:
        rollback.report_file().unlink()
    return [report] if report else []


def waits_for_proof() -> bool:
    """Whether a change is armed on this host."""
    return rollback.read() is not None
