"""The host's key: fetched over the way that ssh will use, compared with the pin, pinned.

ssh itself fetches it, so that a jump host is no obstacle, as it is to ssh-keyscan. It is told to refuse every key that
is not pinned, and has a KnownHostsCommand that pins nothing and only writes down which key was offered under which name
(ssh_config(5), %H %t %K). It ends before it would log in.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparkfleet.enrol.ssh import Route, call, config_word, settings_of
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.settings.problems import escaped
from sparkfleet.temporary import temporary_directory

RECORD = 'printf \'%s\\n\' "$*" >>"${0%/*}/keys"\n'
FILES = {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa", "ssh-dss": "dsa"}


@dataclass(frozen=True)
class HostKey:
    """A host's public key."""

    kind: str
    """As in known_hosts, such as ssh-ed25519."""
    data: str
    """Base64."""

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it."""
        digest = hashlib.sha256(base64.b64decode(self.data)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    @property
    def file(self) -> str:
        """Where its public half lies on the host, unless sshd_config says otherwise."""
        kind = FILES.get(self.kind, "ecdsa" if self.kind.startswith("ecdsa-") else "*")
        return f"/etc/ssh/ssh_host_{kind}_key.pub"


@dataclass(frozen=True)
class Offer:
    """The key that a host offered, and the names under which it is looked up."""

    key: HostKey
    names: tuple[str, ...]
    """ssh's name (HostKeyAlias included) first, then that of paramiko, where it differs."""


@dataclass(frozen=True)
class Pin:
    """A line of a known_hosts file that is about a name."""

    line: int
    key: HostKey
    marker: str = ""
    """`@revoked` or `@cert-authority`."""


def fetch(route: Route) -> Offer:
    """The key that the host offers at the end of this route.

    Raises:
        CommandFailed: nothing offered one (unreachable).
    """
    with temporary_directory() as folder:
        record = Path(folder) / "record"
        record.write_text(RECORD)
        # A pinned key is accepted, and then `none` does not log in anywhere that asks for something.
        asking = route.with_options(
            KnownHostsCommand=f"/bin/sh {config_word(record)} %I %H %t %K",
            PreferredAuthentications="none",
        )
        answer = asking.run("exit")
        offered = record_of((Path(folder) / "keys").read_text() if (Path(folder) / "keys").exists() else "")
    if "known_hosts_command" in answer.stderr.lower() or "knownhostscommand" in answer.stderr.lower():
        raise CommandFailed(f"OpenSSH 8.5 or later is needed here: {answer.reason}", ExitCode.BAD_CONFIGURATION)
    if offered is None:
        raise CommandFailed(
            f"{route.name}: no host key could be read: {answer.reason} (try `{route.where()}` by hand)",
            ExitCode.UNREACHABLE,
        )
    name, key = offered
    return Offer(key, (name, *(other for other in paramiko_names(route) if other != name)))


def record_of(text: str) -> tuple[str, HostKey] | None:
    """The name that was looked up, and the key, from what RECORD wrote: `REASON NAME KIND DATA` a line."""
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) == 4 and words[0] == "HOSTNAME" and re.fullmatch(r"[A-Za-z0-9+/]+=*", words[3]):
            return words[1], HostKey(words[2], words[3])
    return None


def paramiko_names(route: Route) -> tuple[str, ...]:
    """The name that pyinfra's paramiko looks up: it knows no HostKeyAlias, and does not lower the case."""
    settings = settings_of(route.address, route.port, route.user)
    host, port = settings.get("hostname", [route.address])[0], settings.get("port", ["22"])[0]
    if host == route.address.lower():
        host = route.address
    return (host if port == "22" else f"[{host}]:{port}",)


def pins(known_hosts: Path, name: str) -> list[Pin]:
    """The lines about a name, hashed ones and patterns included. Raises CommandFailed where the file is unreadable."""
    if not known_hosts.exists():
        return []
    try:
        lines = known_hosts.read_bytes().decode(errors="replace").split("\n")
    except OSError as error:
        raise CommandFailed(f"{known_hosts} cannot be read: {error.strerror}", ExitCode.BAD_CONFIGURATION) from error
    answer = call(["ssh-keygen", "-F", name, "-f", str(known_hosts)], b"", 30.0, name)
    found = []
    for number in re.findall(r"^# Host .* found: line (\d+)", answer.stdout, re.MULTILINE):
        words = lines[int(number) - 1].split()
        marker = words.pop(0) if words[0].startswith("@") else ""
        if len(words) >= 3:
            found.append(Pin(int(number), HostKey(words[1], words[2]), marker))
    return found


def unpinned(known_hosts: Path, offer: Offer) -> tuple[str, ...]:
    """The names under which the offered key is still to be pinned; none of them where it is pinned already.

    Raises:
        CommandFailed: another key is pinned, or this one revoked.
    """
    missing = []
    for name in offer.names:
        found = pins(known_hosts, name)
        for pin in found:
            if pin.marker == "@revoked" and pin.key == offer.key:
                raise CommandFailed(
                    f"{known_hosts}:{pin.line}: the key that {name} offers ({offer.key.fingerprint}) is revoked",
                    ExitCode.UNREACHABLE,
                )
        plain = [pin for pin in found if not pin.marker]
        if not plain:
            missing.append(name)
        elif all(pin.key != offer.key for pin in plain):
            pin = next((pin for pin in plain if pin.key.kind == offer.key.kind), plain[0])
            raise CommandFailed(
                f"{known_hosts}:{pin.line}: another key is pinned for {name}: {fingerprint_of(pin.key)}, and the host "
                f"offers {offer.key.fingerprint}. Somebody may stand between you and the host. Where it was installed "
                f"anew, compare at its console, then remove the line: ssh-keygen -R '{name}' -f {known_hosts}",
                ExitCode.UNREACHABLE,
            )
    return tuple(missing)


def lines_with(known_hosts: Path, key: HostKey) -> list[int]:
    """The lines, about whatever host, that have this very key."""
    if not known_hosts.exists():
        return []
    lines = known_hosts.read_bytes().decode(errors="replace").split("\n")
    return [number for number, line in enumerate(lines, 1) if key.data in line.split() and line[0] not in "#@"]


def fingerprint_of(key: HostKey) -> str:
    """A pinned key's fingerprint; the file may hold anything."""
    try:
        return key.fingerprint
    except ValueError:
        return f"{escaped(key.kind)} that cannot be read"


def pin(known_hosts: Path, names: Sequence[str], key: HostKey) -> None:
    """Adds one line for these names, whole or not at all. A new file has mode 0600, an old one keeps its own.

    Raises:
        CommandFailed: the file cannot be written.
    """
    line = f"{','.join(names)} {key.kind} {key.data}\n".encode()
    try:
        known_hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(known_hosts, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            append(descriptor, line, size)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CommandFailed(f"{known_hosts} cannot be written: {error.strerror}", ExitCode.BAD_CONFIGURATION) from error


def append(descriptor: int, line: bytes, size: int) -> None:
    """Writes a line at the end of a file of `size` bytes, and takes a part of it back. Raises OSError."""
    written = False
    try:
        written = os.write(descriptor, line) == len(line)
        if written:
            os.fsync(descriptor)
    finally:
        if not written:
            os.ftruncate(descriptor, size)
    if not written:
        raise OSError(None, "no space left for a line")


def normal_fingerprint(text: str) -> str:
    """A fingerprint as a person gives it, with or without `SHA256:` and padding. Raises ValueError for others."""
    value = text.strip().removeprefix("SHA256:").rstrip("=")
    if not re.fullmatch(r"[A-Za-z0-9+/]{43}", value):
        raise ValueError(text)
    return f"SHA256:{value}"
