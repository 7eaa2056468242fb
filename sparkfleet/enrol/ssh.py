"""The way to a host: the system's own ssh, so that aliases, ProxyJump, IPv6 and agents work as its user expects.

Host keys are checked strictly against one file, the fleet's, as a deploy does it; what ssh_config says about
known_hosts files does not count for the host (it does for jump hosts). Every connection is a new one.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from sparkfleet import child
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.settings.problems import escaped
from sparkfleet.terminal import terminal_kept

LOST = 255
"""ssh's own exit status; a command on the host has the others."""
BATCH_SECONDS = 180.0
"""Most that a connection without a person may take: an emulated host needs 2 s for one, a slow sudo some more."""

OPTIONS = {
    "StrictHostKeyChecking": "yes",
    "GlobalKnownHostsFile": "none",
    "VerifyHostKeyDNS": "no",  # a signed SSHFP record would do without the pin
    "NoHostAuthenticationForLocalhost": "no",  # a forwarded port on loopback is another host
    "UpdateHostKeys": "no",  # what nobody has confirmed is not pinned
    "CheckHostIP": "no",
    # A certificate would be checked by its CA; pyinfra's paramiko knows plain keys only.
    "HostKeyAlgorithms": "-*-cert-v01@openssh.com",
    "ControlMaster": "no",
    "ControlPath": "none",
    "RemoteCommand": "none",
    "PermitLocalCommand": "no",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "RequestTTY": "no",
    "LogLevel": "ERROR",
}


@dataclass(frozen=True)
class Answer:
    """What ssh came back with."""

    rc: int
    stdout: str
    stderr: str

    @property
    def lost(self) -> bool:
        """No session came about, or it broke off."""
        return self.rc == LOST

    @property
    def denied(self) -> bool:
        """The host answered, and let nobody in (a jump host that does so is followed by a closed connection)."""
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        return self.lost and bool(lines) and "Permission denied (" in lines[-1]

    @property
    def reason(self) -> str:
        """What was said on stderr, as one line."""
        lines = [escaped(line.strip()) for line in self.stderr.splitlines() if line.strip()]
        return "; ".join(lines[-3:]) or f"ssh ended with {self.rc} and said nothing"


@dataclass(frozen=True)
class Route:
    """How a host is reached."""

    name: str
    """The host as messages name it."""
    address: str
    port: int | None = None
    user: str | None = None
    known_hosts: Path = Path("~/.ssh/known_hosts")
    identity: Path | None = None
    """A private key, or a public one whose private key the agent has."""
    options: tuple[tuple[str, str], ...] = field(default=())
    """Further options of this connection."""

    def where(self) -> str:
        """The words for `ssh` by hand."""
        port = f"-p {self.port} " if self.port else ""
        return f"ssh {port}{self.user + '@' if self.user else ''}{self.address}"

    def with_options(self, **options: str) -> Route:
        return replace(self, options=(*self.options, *options.items()))

    def words(self) -> list[str]:
        """The command line up to the address."""
        given = {**OPTIONS, "UserKnownHostsFile": config_word(self.known_hosts), **dict(self.options)}
        if self.identity:
            given["IdentitiesOnly"] = "yes"
        words = ["ssh", "-T"]
        for key, value in given.items():
            words += ["-o", f"{key}={value}"]
        if self.identity:
            words += ["-i", str(self.identity)]
        if self.port:
            words += ["-p", str(self.port)]
        if self.user:
            words += ["-l", self.user]
        return [*words, "--", self.address]

    def run(self, command: str, data: bytes = b"", *, person: bool = False) -> Answer:
        """Runs a command in the user's login shell on the host, with `data` on its standard input.

        `person`: somebody sits at the terminal, and ssh may ask for a password there (never on standard input).

        Raises:
            CommandFailed: there is no ssh, or no end after `BATCH_SECONDS` without a person.
        """
        route = self if person else self.with_options(BatchMode="yes")
        return call([*route.words(), command], data, None if person else BATCH_SECONDS, self.name)

    def script(self, name: str, payload: str = "", *, person: bool = False) -> Answer:
        """Runs a script of `sparkfleet/enrol/host/` with sh, whatever the login shell is, `payload` on its input."""
        source = (files("sparkfleet.enrol") / "host" / name).read_bytes()
        # No newline, quote, backslash or exclamation mark inside: the quotes mean the same to sh, csh and fish.
        # dd reads not one byte more than the script; what follows stays for the script to read.
        command = f"sh -c 'eval \"$(dd bs=1 count={len(source)} 2>/dev/null)\"'"
        return self.run(command, source + payload.encode(), person=person)


def config_word(path: Path) -> str:
    """A path as one word of an ssh_config option, in which % and ${ } would be expanded.

    Raises:
        CommandFailed: it cannot be written there.
    """
    text = str(path)
    if "${" in text or not text.isprintable():
        raise CommandFailed(f"ssh cannot be told of a file of this name: {escaped(text)}", ExitCode.BAD_CONFIGURATION)
    quoted = text.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


def settings_of(address: str, port: int | None = None, user: str | None = None) -> dict[str, list[str]]:
    """What ssh makes of an address: every setting of `ssh -G` by its name in lower case.

    Raises:
        CommandFailed: ssh_config has a mistake, or there is no ssh.
    """
    words = ["ssh", "-G", *(["-p", str(port)] if port else []), *(["-l", user] if user else []), "--", address]
    answer = call(words, b"", 30.0, address)
    if answer.rc:
        raise CommandFailed(f"ssh refuses its own configuration: {answer.reason}", ExitCode.BAD_CONFIGURATION)
    found: dict[str, list[str]] = {}
    for line in answer.stdout.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key.lower(), []).append(value)
    return found


def call(words: list[str], data: bytes, seconds: float | None, name: str) -> Answer:
    """Runs a program of OpenSSH. Raises CommandFailed where it is not installed, after `seconds`, or where it
    says more than 1 MiB."""
    try:
        with terminal_kept():
            # Without a limit of time a person sits there, whom ssh may ask.
            done = child.run(words, child.Limits(seconds), data, terminal=seconds is None)
    except FileNotFoundError as error:
        raise CommandFailed(
            f"there is no {words[0]}: install OpenSSH's client (apt install openssh-client)", ExitCode.BAD_CONFIGURATION
        ) from error
    except child.OutOfBounds as error:
        raise CommandFailed(f"{name}: {error}", ExitCode.UNREACHABLE) from error
    if done.rc == -signal.SIGINT:
        raise KeyboardInterrupt
    return Answer(done.rc, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
