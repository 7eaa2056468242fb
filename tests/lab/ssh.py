"""Commands on a lab host over real SSH, with the lab's own configuration, keys and known_hosts."""

from __future__ import annotations

import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.lab.errors import LabError

LOST = 255
"""ssh's own exit status: no connection, or it was lost."""


@dataclass(frozen=True)
class Completed:
    """A finished command: exit status and text output."""

    rc: int
    stdout: str
    stderr: str


class CommandError(LabError):
    """A command on a host that ended with another status than 0, or in no time; `.completed` has what it said."""

    def __init__(self, message: str, completed: Completed) -> None:
        super().__init__(message)
        self.completed = completed


def render_config(
    hosts: dict[str, int], known_hosts: Path, admin_key: Path, user_key: Path, admin: str, trainees: tuple[str, ...]
) -> str:
    """ssh_config text: `sparkN` is the admin there, `sparkN-alice` a user."""
    lines = [
        "Host *",
        "  HostName 127.0.0.1",
        f'  UserKnownHostsFile "{known_hosts}"',
        "  GlobalKnownHostsFile /dev/null",
        "  StrictHostKeyChecking yes",
        "  UpdateHostKeys no",
        "  IdentitiesOnly yes",
        "  IdentityAgent none",
        "  BatchMode yes",
        "  ConnectTimeout 30",
        "  ServerAliveInterval 15",
    ]
    for name, port in hosts.items():
        for alias, user, key in [(name, admin, admin_key), *((f"{name}-{t}", t, user_key) for t in trainees)]:
            lines += ["", f"Host {alias}", f"  Port {port}", f"  User {user}", f'  IdentityFile "{key}"']
    return "\n".join(lines) + "\n"


def banner(port: int, timeout: float = 5.0) -> bool:
    """Whether an sshd greets on 127.0.0.1:port (the forward itself accepts even where none listens)."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout) as sock:
            sock.settimeout(timeout)
            return sock.recv(8).startswith(b"SSH-")
    except OSError:
        return False


class Client:
    """SSH to one host. `masters` is a short directory for the control sockets of its shared connections."""

    def __init__(self, name: str, config: Path, masters: Path, admin: str, trainees: tuple[str, ...]) -> None:
        self.name = name
        self.config = config
        self.masters = masters
        self.admin = admin
        self.trainees = trainees

    def words(self, user: str) -> list[str]:
        """The ssh words that reach `user` on the host."""
        if user == self.admin:
            return ["ssh", "-F", str(self.config), self.name]
        if user in self.trainees:
            return ["ssh", "-F", str(self.config), f"{self.name}-{user}"]
        return ["ssh", "-F", str(self.config), "-l", user, self.name]

    def run(
        self,
        cmd: str,
        *,
        user: str,
        check: bool = True,
        timeout: float = 60.0,
        input: str | None = None,
        fresh: bool = False,
        tty: bool = False,
    ) -> Completed:
        """Run `cmd` in the user's login shell on the host. Raises CommandError on rc != 0 (with `check`) or after
        `timeout` seconds."""
        ssh, *target = self.words(user)
        options = ["-o", "ControlMaster=no"]
        if fresh:
            options += ["-o", "ControlPath=none"]
        else:
            options += ["-o", f"ControlPath={self._master(user, timeout)}"]
        if tty:
            options.append("-tt")
        try:
            done = subprocess.run(
                [ssh, *options, *target, "--", cmd],
                input=(input or "").encode(),
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            said = Completed(124, _text(late.stdout), _text(late.stderr))
            raise CommandError(f"{self.name}: no end after {timeout:g} s: {_short(cmd)}", said) from late
        result = Completed(done.returncode, _text(done.stdout), _text(done.stderr))
        if check and result.rc:
            what = (result.stderr.strip() or result.stdout.strip()).splitlines()
            raise CommandError(f"{self.name}: rc {result.rc}: {_short(cmd)}: {(what or ['no output'])[-1]}", result)
        return result

    def _master(self, user: str, timeout: float) -> Path:
        """The control socket of the shared connection of `user`, opened where there is none."""
        path = self.masters / user
        if path.exists() and self._control("check", user, path) == 0:
            return path
        path.unlink(missing_ok=True)
        self.masters.mkdir(parents=True, exist_ok=True)
        ssh, *target = self.words(user)
        options = ["-o", "ControlMaster=yes", "-o", f"ControlPath={path}", "-o", "ControlPersist=600"]
        try:
            # Its errors stay unseen here: where it fails, the command connects for itself and reports them.
            subprocess.run(
                [ssh, *options, "-N", "-f", *target],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            said = Completed(124, "", "")
            raise CommandError(f"{self.name}: no SSH session for {user} after {timeout:g} s", said) from late
        return path

    def _control(self, order: str, user: str, path: Path) -> int:
        ssh, *target = self.words(user)
        done = subprocess.run(
            [ssh, "-o", f"ControlPath={path}", "-O", order, *target],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )
        return done.returncode

    def disconnect(self) -> None:
        """End all shared connections to the host."""
        if not self.masters.is_dir():
            return
        for path in self.masters.iterdir():
            self._control("exit", path.name, path)
            until = time.monotonic() + 5
            while path.exists() and time.monotonic() < until:
                time.sleep(0.02)
            path.unlink(missing_ok=True)


def _text(data: bytes | str | None) -> str:
    return data if isinstance(data, str) else (data or b"").decode(errors="replace")


def _short(cmd: str) -> str:
    line = " ".join(cmd.split())
    return line if len(line) <= 120 else line[:117] + "..."
