"""sshd: is its configuration sound, what would a restart bring into force, and is its protection effective?"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sparkhost.files import MANAGED, File, NoFile
from sparkhost.resource import Change, Context, Failed, Refused, Resource
from sparkhost.systemd import RELOAD, changed_at, daemon_reload, run, unit_property, units_loaded_at

SSHD = "/usr/sbin/sshd"
CGROUPS = Path("/sys/fs/cgroup")
UNIT_DIRECTORIES = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
CONTROL = Path("/run/systemd/system.control")
MIB = 2**20
# Seconds that the kernel's value may lag behind a daemon-reload.
SETTLE = 5.0


def check_configuration() -> None:
    """`sshd -t`.

    Raises:
        Refused: with sshd's own line. Nothing may be brought into force then.
    """
    _sshd("-t")


def configuration() -> dict[str, list[str]]:
    """What `sshd -T` says is in force for the files on disk: keyword in lower case → values.

    Raises:
        Refused: with sshd's own line.
    """
    found: dict[str, list[str]] = {}
    for line in _sshd("-T").splitlines():
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword, []).append(value)
    return found


def _sshd(option: str) -> str:
    # ssh.service makes this directory when it starts (RuntimeDirectory=sshd); without it sshd checks nothing.
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    result = subprocess.run([SSHD, option], capture_output=True, text=True, timeout=60, check=False)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
        raise Refused(
            f"sshd -t fails, so the next restart of sshd would lock everybody out: {lines[0].strip()}: "
            "nothing was changed; mend it and deploy again"
        )
    return result.stdout


def show(unit: str, *properties: str) -> dict[str, str]:
    """Properties of a unit as PID 1 has them."""
    output = run("systemctl", "show", "-p", ",".join(properties), "--", unit)
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


@dataclass(frozen=True)
class SshdReady(Resource):
    """Changes nothing: refuses where a restart of sshd would bring something else into force than our change.

    `hook`: whether sessions are to be kept killable by PAM.
    """

    kind: ClassVar[str] = "sshd_ready"
    hook: bool

    def plan(self, context: Context) -> Sequence[Change]:
        if not os.access(SSHD, os.X_OK):
            raise Refused("there is no sshd on this host: install openssh-server, or set ssh.state to unmanaged")
        states = {unit: show(unit, "ActiveState")["ActiveState"] for unit in ("ssh.service", "ssh.socket")}
        if not {"active", "reloading", "activating"} & set(states.values()):
            raise Refused("neither ssh.service nor ssh.socket is active: start the one that this host uses first")
        check_configuration()
        found = configuration()
        if self.hook and found.get("usepam") != ["yes"]:
            raise Refused(
                "sshd has UsePAM no: sessions could not be kept killable, so OOMScoreAdjust=-1000 is not put in force; "
                "set UsePAM yes in sshd_config, restart sshd, and deploy again"
            )
        if changed := unread_units():
            raise Refused(
                f"{changed[0]} was changed, but systemd has not read it yet: a reload now would put it in force "
                "together with ours: run `systemctl daemon-reload && systemctl restart ssh` yourself, then deploy again"
            )
        if states["ssh.service"] == "active" and states["ssh.socket"] != "active":
            check_ports(found, int(show("ssh.service", "MainPID")["MainPID"]))
        return []

    def apply(self) -> None:
        """Nothing to do: `plan` finds no changes, it only refuses."""


def unread_units() -> list[str]:
    """Files of ssh.service that are not ours and not what PID 1 has read (compare NeedDaemonReload=)."""
    found = show("ssh.service", "Names", "FragmentPath", "DropInPaths")
    # /lib is a link to /usr/lib, and either may be named.
    known = {Path(path).resolve() for path in [found["FragmentPath"], *found["DropInPaths"].split()]}
    on_disk: dict[str, Path] = {}
    for directory in map(Path, UNIT_DIRECTORIES):
        for name in found["Names"].split():
            for path in (directory / f"{name}.d").glob("*.conf"):
                on_disk.setdefault(path.name, path)  # one of the same name hides those of later directories
    loaded = units_loaded_at()
    changed = {path for path in known if path.is_file() and path.stat().st_mtime_ns // 1000 > loaded}
    unread = ({path.resolve() for path in on_disk.values()} - known) | changed
    return sorted(str(path) for path in unread if path.is_file() and MANAGED not in path.read_text(errors="replace"))


def check_ports(found: dict[str, list[str]], pid: int) -> None:
    """Refuses where a restart would move sshd to another port than the one that people use now."""
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    if any(argument.startswith(("-p", "-o", "-f")) for argument in arguments[1:]):
        return  # its options decide, and `sshd -T` does not know them
    now, then = listening_ports(pid), {int(port) for port in found.get("port", [])}
    if now and not now & then:
        raise Refused(
            f"sshd listens on port {', '.join(map(str, sorted(now)))}, but its configuration says "
            f"{', '.join(map(str, sorted(then)))}: a restart would move it; restart it yourself, then deploy again"
        )


def listening_ports(pid: int) -> set[int]:
    """The TCP ports on which a process listens (proc_pid_net(5): state 0A)."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        if match := re.fullmatch(r"socket:\[(\d+)\]", str(descriptor.readlink())):
            sockets.add(match[1])
    ports = set()
    for table in ("tcp", "tcp6"):
        path = Path(f"/proc/{pid}/net/{table}")
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def stale_listener(files: Iterable[str]) -> str:
    """Why the running sshd does not have its unit's settings yet, or "" (also where none is running)."""
    present = [path for path in map(Path, files) if path.is_file()]
    properties = show("ssh.service", "ActiveState", "MainPID")
    if not present or properties["ActiveState"] != "active":
        return ""
    started = started_at("ssh.service")
    if newer := [path for path in present if changed_at(path) > started]:
        return f"it was started before {newer[0]} changed"
    value = Path(f"/proc/{properties['MainPID']}/oom_score_adj").read_text().strip()
    return "" if value == "-1000" else f"its oom_score_adj is {value}"


def started_at(unit: str) -> int:
    """When a service's main process was started, in microseconds since the epoch."""
    return int(unit_property(unit, "Service", "ExecMainStartTimestamp").split()[1])


@dataclass(frozen=True)
class PerConnectionFile(File):
    """A drop-in for ssh@.service, on hosts whose ssh.socket starts one per connection (Accept=yes)."""

    kind: ClassVar[str] = "per_connection_file"

    def plan(self, context: Context) -> Sequence[Change]:
        return super().plan(context) if show("ssh.socket", "Accept").get("Accept") == "yes" else []


@dataclass(frozen=True)
class NoProgram(NoFile):
    """A program of ours below /opt/sparkfleet that must not be there, nor its directories once they are empty."""

    kind: ClassVar[str] = "no_program"

    def apply(self) -> None:
        super().apply()
        for directory in list(Path(self.path).parents)[:2]:
            try:
                directory.rmdir()
            except OSError:
                return  # other measures have their programs there


@dataclass(frozen=True)
class Protection(Resource):
    """A unit's protection, as PID 1 and the kernel have it: the files alone prove nothing.

    `memory_min`: bytes. `oom_score_adjust`: None where the unit has none (a slice).
    """

    kind: ClassVar[str] = "protection"
    unit: str
    drop_in: str
    memory_min: int
    oom_score_adjust: int | None

    def plan(self, context: Context) -> Sequence[Change]:
        if any(change.what == self.drop_in or change.what == RELOAD for change in context.pending):
            return []  # a dry run has neither written the drop-in nor reloaded
        found = show(self.unit, "LoadState", "OOMScoreAdjust", "MemoryMin", "DropInPaths", "ControlGroup")
        if found["LoadState"] != "loaded":
            raise Refused(f"ssh.protect: there is no unit {self.unit} on this host: correct its name, or leave it out")
        wanted = {"MemoryMin": str(self.memory_min)}
        if self.oom_score_adjust is not None:
            wanted["OOMScoreAdjust"] = str(self.oom_score_adjust)
        for name, value in wanted.items():
            if found.get(name) != value:
                self._refuse_overrides(name, found)
                return [Change(self.unit, f"read its files again: {name} is {found.get(name)} at run time")]
        self._check_kernel(found["ControlGroup"])
        return []

    def _refuse_overrides(self, name: str, found: dict[str, str]) -> None:
        """Somebody else's file that has the last word is their wish: it is named, not deleted."""
        drop_ins = found["DropInPaths"].split()
        if self.drop_in not in drop_ins:
            raise Refused(f"systemd does not read {self.drop_in} for {self.unit}: see `systemctl cat {self.unit}`")
        for path in drop_ins[drop_ins.index(self.drop_in) + 1 :]:
            if re.search(rf"^\s*{name}\s*=", Path(path).read_text(errors="replace"), re.MULTILINE):
                raise Refused(
                    f"{self.unit} has {name}={found.get(name)}: {path} overrides {self.drop_in}: remove that line and "
                    "run systemctl daemon-reload, or set ssh.state to unmanaged"
                )

    def _check_kernel(self, cgroup: str) -> None:
        """memory.min all the way up: an ancestor that has less takes the protection away."""
        if not cgroup or not (CGROUPS / "cgroup.controllers").exists():
            return  # not running, or cgroup v1, which has no memory.min
        until = time.monotonic() + SETTLE
        while short := short_of(cgroup, self.memory_min):
            if time.monotonic() > until:
                where, value = short
                raise Refused(
                    f"{self.unit} is not protected: {where} grants {value // MIB} MiB of memory.min, "
                    f"{self.memory_min // MIB} MiB are needed: give it MemoryMin={self.memory_min // MIB}M"
                )
            time.sleep(0.1)

    def apply(self) -> None:
        # `systemctl set-property --runtime` leaves files there; they go with the next boot anyway.
        for path in (CONTROL / f"{self.unit}.d").glob("*-MemoryMin.conf"):
            path.unlink()
        daemon_reload()


def short_of(cgroup: str, needed: int) -> tuple[str, int] | None:
    """The first cgroup from the root down that grants less than `needed` bytes, with what it grants; or None.

    Raises:
        Failed: a cgroup of the path has no memory controller.
    """
    path = CGROUPS
    for name in cgroup.strip("/").split("/"):
        path /= name
        try:
            text = (path / "memory.min").read_text().strip()
        except FileNotFoundError as error:
            raise Failed(f"{path} has no memory.min: the memory controller is off there") from error
        if text != "max" and int(text) < needed:
            return name, int(text)
    return None
