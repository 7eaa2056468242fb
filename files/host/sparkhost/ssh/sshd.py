"""sshd: is its configuration sound, and would a restart bring anything into force but our own change?"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sparkhost.base import bounded
from sparkhost.base.files import MANAGED
from sparkhost.base.pid1 import show, time_of, units_loaded_at
from sparkhost.base.resource import Check, Context, Refused
from sparkhost.base.systemd import CONTROL, changed_at

SSHD = "/usr/sbin/sshd"
CONFIGURATION = Path("/etc/ssh/sshd_config")
# What ssh.service gets its options from (EnvironmentFile=); read when it is started, not when it is reloaded.
DEFAULTS = Path("/etc/default/ssh")
# ssh.service makes it when it starts (RuntimeDirectory=sshd); without it sshd checks nothing.
RUN = Path("/run/sshd")
UNIT_DIRECTORIES = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


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
    RUN.mkdir(mode=0o755, exist_ok=True)
    result = bounded.call([SSHD, option], seconds=60)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
        raise Refused(
            f"sshd -t fails, so the next restart of sshd would lock everybody out: {lines[0].strip()}: "
            "nothing was changed; mend it and deploy again"
        )
    return result.stdout


@dataclass(frozen=True)
class SshdReady(Check):
    """Refuses where a restart of sshd would bring something else into force than our change.

    `hook`: whether sessions are to be kept killable by PAM.
    """

    kind: ClassVar[str] = "sshd_ready"
    hook: bool

    def check(self, context: Context) -> None:
        check_ready(self.hook)


@functools.cache
def check_ready(hook: bool) -> None:
    """See `SshdReady`. Looks once a request: what changes meanwhile is ours, and is tried by `check_configuration`."""
    if not os.access(SSHD, os.X_OK):
        raise Refused("there is no sshd on this host: install openssh-server, or set ssh.state to unmanaged")
    service = show("ssh.service", "ActiveState", "MainPID", "Names", "FragmentPath", "DropInPaths")
    socket = show("ssh.socket", "ActiveState")["ActiveState"]
    if not {"active", "reloading", "activating"} & {service["ActiveState"], socket}:
        raise Refused("neither ssh.service nor ssh.socket is active: start the one that this host uses first")
    found = configuration()
    if hook and found.get("usepam") != ["yes"]:
        raise Refused(
            "sshd has UsePAM no: sessions could not be kept killable, so OOMScoreAdjust=-1000 is not put in force; "
            "set UsePAM yes in sshd_config, restart sshd, and deploy again"
        )
    if changed := unread_units(service):
        raise Refused(
            f"{changed[0]} was changed, but systemd has not read it yet: a reload now would put it in force "
            "together with ours: run `systemctl daemon-reload && systemctl restart ssh` yourself, then deploy again"
        )
    if service["ActiveState"] == "active" and socket != "active":
        check_ports(found, int(service["MainPID"]))


def unread_units(found: dict[str, str]) -> list[str]:
    """Files of ssh.service, whose properties are `found`, that are not ours and not what PID 1 has read."""
    # /lib is a link to /usr/lib, and either may be named.
    known = {Path(path).resolve() for path in [found["FragmentPath"], *found["DropInPaths"].split()]}
    on_disk: dict[str, Path] = {}
    for directory in map(Path, UNIT_DIRECTORIES):
        for name in found["Names"].split():
            for path in (directory / f"{name}.d").glob("*.conf"):
                on_disk.setdefault(path.name, path)  # one of the same name hides those of later directories
    loaded = units_loaded_at()
    changed = {path for path in known if path.is_file() and path.stat().st_mtime_ns // 1000 > loaded}
    unread = {path for path in ({path.resolve() for path in on_disk.values()} - known) | changed if path.is_file()}
    # What `systemctl set-property` writes is in force at once, without a reload.
    told = {path for path in unread if any(path.is_relative_to(directory) for directory in CONTROL)}
    return sorted(str(path) for path in unread - told if MANAGED not in bounded.read_text(path))


def check_ports(found: dict[str, list[str]], pid: int) -> None:
    """Refuses where a restart would move sshd to another port than the one that people use now."""
    arguments = bounded.read(Path(f"/proc/{pid}/cmdline")).decode(errors="replace").split("\0")
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
        for line in bounded.read_text(path, bounded.LARGEST_TABLE).splitlines()[1:] if path.exists() else []:
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
    value = bounded.read_text(Path(f"/proc/{properties['MainPID']}/oom_score_adj")).strip()
    return "" if value == "-1000" else f"its oom_score_adj is {value}"


def started_at(unit: str) -> int:
    """When a service's main process was started, in microseconds since the epoch."""
    return time_of(unit, "ExecMainStartTimestamp")


def configuration_files(path: Path = CONFIGURATION, depth: int = 16) -> Iterator[Path]:
    """sshd_config and whatever it includes, and the directories in which included files come and go.

    Relative names are below /etc/ssh, and Include may stand in a Match block (sshd_config(5)); sshd itself stops at a
    depth of 16.
    """
    yield path
    if not path.is_file() or not depth:
        return
    for line in bounded.read_text(path).splitlines():
        words = line.replace("=", " ", 1).replace('"', " ").split()
        if [word.lower() for word in words[:1]] != ["include"]:
            continue
        for pattern in words[1:]:
            wanted = CONFIGURATION.parent / pattern
            if wanted.parent.is_dir():
                yield wanted.parent
            for found in sorted(Path("/").glob(str(wanted).lstrip("/"))):
                yield from configuration_files(found, depth - 1)


def check_read_configuration() -> None:
    """Refuses where sshd has not read its configuration as it is on disk: a restart would put that in force with ours.

    Then it could not be told which of the two locked people out, and taking ours back would not let them in again.
    """
    if show("ssh.service", "ActiveState")["ActiveState"] != "active":
        return  # whatever starts it next reads all of it
    # A reload is a change of state as well (reloading, and back).
    read = time_of("ssh.service", "StateChangeTimestamp")
    newer = sorted((path for path in configuration_files() if changed_at(path) > read), key=Path.is_dir)
    if DEFAULTS.exists() and changed_at(DEFAULTS) > started_at("ssh.service"):
        newer.append(DEFAULTS)
    if newer:
        raise Refused(
            f"{newer[0]} was changed after sshd read it, and a restart would put that in force together with ours: "
            "run `sshd -t && systemctl restart ssh` yourself, see that a new login works, then deploy again"
        )
