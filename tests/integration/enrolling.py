"""An admin at a terminal, who runs the real `sparkfleet enrol` against lab hosts."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.deploying import ESCAPE, ROOT, SPARKFLEET
from tests.lab import Host, Lab
from tests.lab.cache import directory as cache_directory

SAME = "Is it the same?"
PASSWORD = "correct horse"
"""Of the users that are made here."""

FREE = "ALL=(ALL:ALL) NOPASSWD: ALL"
ASKS = "ALL=(ALL:ALL) ALL"
"""What sudoers says of a user."""

Answers = Sequence[tuple[str, str]]
"""What is asked (a part of it), and what the admin types, in order."""


@dataclass(frozen=True)
class Said:
    """How a command ended, and what the terminal showed."""

    rc: int
    output: str


def converse(command: Sequence[str | Path], environment: Mapping[str, str], answers: Answers, seconds: float) -> Said:
    """Runs a command on a terminal of its own. Raises AssertionError where it asks something else, or nothing."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command], cwd=ROOT, env=environment, stdin=side, stdout=side, stderr=side
    )
    os.close(side)
    output, read, left, until = "", 0, list(answers), time.monotonic() + seconds
    try:
        while select.select([main], [], [], max(0.0, until - time.monotonic()))[0]:
            try:
                chunk = os.read(main, 65536)
            except OSError:  # the last process has closed the terminal
                break
            output += chunk.decode(errors="replace")
            if left and left[0][0] in output[read:]:
                read = len(output)
                os.write(main, f"{left.pop(0)[1]}\n".encode())
        else:
            raise AssertionError(f"no end after {seconds:g} s; not asked so far: {left}; shown:\n{output}")
    finally:
        os.close(main)  # hangs up: whatever still waits on the terminal ends
        process.wait()
    assert not left, f"never asked: {left}; shown:\n{output}"
    return Said(process.returncode, ESCAPE.sub("", output).replace("\r\n", "\n"))


@dataclass
class Desk:
    """An admin's desk: a home directory with an ssh_config, and a folder with a fleet file.

    The ssh_config, keys and agent of whoever runs the tests do not count.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # ssh takes the home directory from the user database, whatever $HOME is; -F is the only other way.
        wrapper = self.folder / "bin" / "ssh"
        wrapper.parent.mkdir(parents=True)
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {shlex.quote(str(self.config))} "$@"\n')
        wrapper.chmod(0o755)
        self.home.mkdir()
        self.config.parent.mkdir(mode=0o700)
        self.configure("")
        kept = {
            key: value
            for key, value in os.environ.items()
            if key not in ("SSH_AUTH_SOCK", "FLEET", "SPARKFLEET_SUDO_PASSWORD_COMMAND")
        }
        self.environment = {
            **kept,
            "HOME": str(self.home),
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(cache_directory().parent),
            "FLEET": str(self.fleet),
            **self.environment,
        }

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def config(self) -> Path:
        return self.home / ".ssh" / "config"

    @property
    def key(self) -> Path:
        return self.home / ".ssh" / "id_ed25519"

    @property
    def fleet(self) -> Path:
        return self.folder / "fleet.yaml"

    @property
    def known_hosts(self) -> Path:
        """Where a new fleet file has the pins."""
        return self.folder / "fleet.known_hosts"

    @property
    def public(self) -> str:
        """The key's line in authorized_keys."""
        return self.key.with_name(f"{self.key.name}.pub").read_text()

    def make_key(self) -> None:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "an admin", "-f", self.key], check=True)

    def configure(self, text: str) -> None:
        """Writes the ssh_config. The key is named in it, as ssh would look for it in the home of the user database."""
        self.config.write_text(f"IdentityFile {self.key}\n{text}")

    def configure_jump(self, lab: Lab, jump: Host, host: Host, user: str) -> None:
        """The host is reached through another one only: from there, 10.0.2.2 is this machine."""
        self.configure(
            f"Host gate\n  HostName 127.0.0.1\n  Port {jump.port}\n  User admin\n  IdentityFile {lab.admin_key}\n"
            f"  UserKnownHostsFile {lab.known_hosts}\n  StrictHostKeyChecking yes\n"
            f"Host {host.name}\n  HostName 10.0.2.2\n  Port {host.port}\n  User {user}\n  ProxyJump gate\n"
        )

    def enrol(self, *arguments: str | Path, answers: Answers = (), seconds: float = 240.0) -> Said:
        said = converse([SPARKFLEET, "enrol", *arguments], self.environment, answers, seconds)
        assert "Traceback" not in said.output, said.output
        return said

    def written(self) -> dict[str, str]:
        """The files that enrolment may write here, by name, with their content."""
        paths = [path for path in self.folder.iterdir() if path.is_file()]
        return {path.name: path.read_text() for path in paths}

    @contextmanager
    def agent(self, *keys: Path) -> Iterator[None]:
        """An agent with these keys, whose private files are then gone."""
        sock = Path(tempfile.gettempdir()) / f"agent-{os.getpid()}"
        process = subprocess.Popen(["ssh-agent", "-D", "-a", sock], stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            process.stdout.readline()  # it listens by then
            self.environment["SSH_AUTH_SOCK"] = str(sock)
            for key in keys:
                subprocess.run(["ssh-add", "-q", key], env=self.environment, check=True)
                key.unlink()
            yield
        finally:
            self.environment.pop("SSH_AUTH_SOCK", None)
            process.terminate()
            process.wait()
            sock.unlink(missing_ok=True)


def add_user(host: Host, name: str, *, sudo: str) -> None:
    """A user of a factory host: a password and no key. `sudo`: what sudoers says about the user, or nothing."""
    host.sudo(f"useradd --create-home --shell /bin/bash {name} && chpasswd", input=f"{name}:{PASSWORD}\n")
    if sudo:
        host.sudo(f"umask 227; cat >/etc/sudoers.d/{name}", input=f"{name} {sudo}\n")


def give_key(host: Host, name: str, public: str) -> None:
    """Puts a public key into the user's authorized_keys."""
    host.sudo(f"install -d -m 700 -o {name} -g {name} ~{name}/.ssh && cat >>~{name}/.ssh/authorized_keys", input=public)


def fingerprint(host: Host) -> str:
    """What an admin reads at the host's own console."""
    return host.console_run("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").stdout.split()[1]


@dataclass(frozen=True)
class Traces:
    """What an enrolment could have left on a host: time and content of files."""

    system: str
    user: str


def traces(host: Host, user: str) -> Traces:
    """Every file of /etc, /opt and /usr/local, and those of the user."""
    find = "-xdev -type f -printf '%p %T@ %m %u\\n'"
    system = host.console_run(f"find /etc /opt /usr/local {find} | grep -v __pycache__ | sort").stdout
    return Traces(system, host.console_run(f"find ~{user} {find} | sort").stdout)


class Forwarder:
    """Passes connections to an address of this machine on to a lab host; `to` may change."""

    def __init__(self, address: str, to: Host) -> None:
        self.to = to
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._server = socket.create_server((address, 0), family=family)
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:  # closed
                return
            far = socket.create_connection(("127.0.0.1", self.to.port))
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=_copy, args=(source, target), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
