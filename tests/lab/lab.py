"""A lab: its directory, ports, keys and hosts."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

from tests.lab import secrets
from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.locks import locked
from tests.lab.profiles import ADMIN, TRAINEES, number
from tests.lab.ssh import render_config

ROOT = Path(__file__).resolve().parents[2]
BASE_PORT = 2201


class Lab:
    """Hosts that share keys and a directory. Labs with other directories and base ports run side by side.

    `directory`: default `$SPARKFLEET_LAB`, else `.lab/` in the repository. `base_port`: the SSH port of `spark1`
    on 127.0.0.1 (`spark2` has the next, ...); default `$SPARKFLEET_LAB_PORT`, else the one this lab was made
    with, else 2201. Raises LabError on a bad port, or one that differs from that of the hosts it already has.
    """

    def __init__(self, directory: Path | None = None, base_port: int | None = None, quiet: bool = False) -> None:
        self.directory = (directory or Path(os.environ.get("SPARKFLEET_LAB") or ROOT / ".lab")).resolve()
        self.quiet = quiet
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LabError(f"cannot make the lab's directory {self.directory}: {error.strerror}") from error
        self.ident = hashlib.sha256(str(self.directory).encode()).hexdigest()[:10]
        self.sockets = _private(Path(tempfile.gettempdir()) / f"sparkfleet-{os.getuid()}-{self.ident}")
        self.ssh_config = self.directory / "ssh_config"
        self.known_hosts = self.directory / "known_hosts"
        self.admin_key = self.directory / "admin_key"
        self.user_key = self.directory / "user_key"
        self.admin_password_file = self.directory / "admin_password"
        with locked(self.directory / "lab.lock"):
            self.base_port = self._port(base_port)
            secrets.key(self.admin_key, "ed25519", ADMIN)
            secrets.key(self.user_key, "ed25519", "trainee")
            self.admin_password = secrets.password(self.admin_password_file)
        self.refresh()

    def _port(self, asked: int | None) -> int:
        store = self.directory / "base_port"
        saved = int(store.read_text()) if store.exists() else None
        text = os.environ.get("SPARKFLEET_LAB_PORT", "")
        if asked is None and text:
            if not text.isdecimal():
                raise LabError(f"SPARKFLEET_LAB_PORT is {text!r}: expected a port number")
            asked = int(text)
        port = asked or saved or BASE_PORT
        if not 1024 <= port <= 65000:
            raise LabError(f"base port {port}: expected 1024 to 65000")
        if saved not in (None, port) and self.names:
            raise LabError(f"the hosts in {self.directory} use base port {saved}, not {port}: delete them first")
        store.write_text(f"{port}\n")
        return port

    @property
    def names(self) -> list[str]:
        """The hosts this lab has, running or not, by number."""
        hosts = self.directory / "hosts"
        found = [path.name for path in hosts.iterdir() if path.is_dir()] if hosts.is_dir() else []
        return sorted(found, key=number)

    def host(self, name: str) -> Host:
        """Host `name` (`spark1`, `spark2`, ...), made or not. Raises LabError on another kind of name."""
        return Host(self, name, self.base_port + number(name) - 1)

    def refresh(self, new: str | None = None) -> None:
        """Write ssh_config and known_hosts for all hosts, and for `new`, whose keys are made where needed."""
        with locked(self.directory / "lab.lock"):
            names = sorted({*self.names, *([new] if new else [])}, key=number)
            ports = {name: self.base_port + number(name) - 1 for name in names}
            pins = {port: secrets.host_keys(self.directory / "hosts" / name, name) for name, port in ports.items()}
            self._write(self.known_hosts, secrets.known_hosts(pins))
            self._write(
                self.ssh_config,
                render_config(ports, self.known_hosts, self.admin_key, self.user_key, ADMIN, TRAINEES),
            )

    @staticmethod
    def _write(path: Path, text: str) -> None:
        if path.exists() and path.read_text() == text:
            return
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(text)
        fresh.rename(path)

    def say(self, line: str) -> None:
        """Tell the person at the terminal, on stderr."""
        if not self.quiet:
            print(f"lab: {line}", file=sys.stderr)


def _private(path: Path) -> Path:
    """A directory of ours alone, with a short path, for sockets. Raises LabError where another user has it."""
    path.mkdir(mode=0o700, exist_ok=True)
    info = path.lstat()
    if info.st_uid != os.getuid() or info.st_mode & 0o077 or path.is_symlink():
        raise LabError(f"{path} belongs to somebody else or is open to others: remove it")
    if len(str(path)) > 70:
        raise LabError(f"{path} is too long for sockets: set TMPDIR to a shorter path")
    return path
