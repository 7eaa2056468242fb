"""The way to a host: no delayed packets, every key that ssh_config names, and a sudo password that shows nowhere.

pyinfra has no setting for these. Nothing of it is replaced: the connector of our fleets (`sparkfleet.connector`) and
the commands of measures (`tasks.lib.way`) call what is here. The changes proposed upstream: docs/upstream-pyinfra.md.
"""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gevent.lock import BoundedSemaphore
from paramiko import SSHException, Transport
from paramiko.channel import Channel
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.connectors.local import LocalConnector
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.sshuserclient.client import SSHClient, get_ssh_config
from pyinfra.connectors.util import SUDO_PASSWORD_REQUIRED_LINES, CommandOutput, OutputLine, make_unix_command

from sparkfleet.foreign import line
from sparkfleet.mistakes import mistake
from sparkfleet.sudo_password import NoSudoPassword, sudo_password
from tasks.lib import bounds, journal

# -k: a cached login would leave the password unread, and the command would then read it as its input.
# -p '': no prompt among the output. env LC_ALL=C: sudo's own messages are compared below.
SUDO_PASSWORD = ("env", "LC_ALL=C", "sudo", "-H", "-k", "-S", "-p", "''")
SUDO_PLAIN = ("env", "LC_ALL=C", "sudo", "-H", "-n")

# Seconds.
CONNECT_TIMEOUT = 20
"""At least, to the first packet; pyinfra's is 10."""
KEEPALIVE = 30
UNACKNOWLEDGED = 90
CHANNEL_TIMEOUT = 60
# From the first packet to the login; ProxyJump hosts included, each of which may take CONNECT_TIMEOUT.
CONNECT_SECONDS = 120

Result = tuple[bool, CommandOutput]
RunShellCommand = Callable[..., Result]


class SudoPassword:
    """The admin's sudo password: asked for once for all hosts, kept in this process's memory only."""

    def __init__(self) -> None:
        self._lock = BoundedSemaphore()
        self._password: str | None = None

    def get(self) -> str:
        """The password. Raises PyinfraError where it cannot be had."""
        with self._lock:
            if self._password is None:
                try:
                    self._password = sudo_password("(for every host that wants one)")
                except NoSudoPassword as problem:
                    raise PyinfraError(str(problem)) from problem
            return self._password


PASSWORD = SudoPassword()


def with_sudo_on_stdin(run_shell_command: RunShellCommand) -> RunShellCommand:
    """Wraps a connector's `run_shell_command`: under `_sudo`, a password goes in on stdin.

    Stock pyinfra puts it into the command line of `env` (PYINFRA_SUDO_PASSWORD=…), where every user of the host
    can read it in /proc/PID/cmdline.
    """

    @functools.wraps(run_shell_command)
    def wrapper(self: Any, command: StringCommand, *args: Any, **arguments: Any) -> Result:
        if arguments.get("_sudo") and not arguments.get("_sudo_user") and is_root(self):
            arguments["_sudo"] = False  # root needs no sudo, and a minimal system may not have it
        if not arguments.get("_sudo") or arguments.get("_get_pty"):
            return run_shell_command(self, command, *args, **arguments)
        stdin = arguments.pop("_stdin", None)
        data = self.host.connector_data
        if arguments.get("_sudo_password"):
            data["sudo_password"] = arguments["_sudo_password"]
        inner = as_root(command, arguments)
        if data.get("sudo_refused"):
            return refused(data["sudo_refused"])
        if not data.get("sudo_wants_password"):
            result = run_shell_command(self, StringCommand(*SUDO_PLAIN, inner), *args, _stdin=stdin, **arguments)
            # sudo -n says so before it starts anything: the command has not run, and can run again.
            if result[0] or not wants_password(result[1]):
                return result
            try:
                password = password_of(self.host)
            except PyinfraError as error:  # raised further, it would end the run for every host
                data["sudo_refused"] = str(error)
                return refused(data["sudo_refused"])
            # Tried alone first: with a wrong one sudo would take the next lines of the input for further tries.
            check = StringCommand(*SUDO_PASSWORD, "true")
            ok, output = run_shell_command(self, check, *args, _stdin=password, **arguments)
            if not ok:
                reason = " ".join(output.stderr.split()) or "no message"
                data["sudo_refused"] = f"sudo refused the password of this run: {reason}"
                return refused(data["sudo_refused"])
            data["sudo_wants_password"] = True
        text = "".join(stdin) if isinstance(stdin, list) else stdin or ""
        secret_input = f"{password_of(self.host)}\n{text}"
        return run_shell_command(self, StringCommand(*SUDO_PASSWORD, inner), *args, _stdin=secret_input, **arguments)

    return wrapper


def password_of(host: Any) -> str:
    """The sudo password of a host: what its deploy names, else the one of this run. Raises PyinfraError."""
    return str(host.connector_data.get("sudo_password") or PASSWORD.get())


def is_root(connector: SSHConnector | LocalConnector) -> bool:
    """Whether commands run as root without sudo: `pyinfra @local` as root, or `user: root` in the fleet file."""
    if isinstance(connector, LocalConnector):
        return os.geteuid() == 0
    return connector.data["ssh_user"] == "root"


def as_root(command: StringCommand, arguments: dict[str, Any]) -> StringCommand:
    """The command as sudo starts it; takes what belongs inside sudo out of `arguments`."""
    inside = {
        key: arguments.pop(key) for key in ("_env", "_chdir", "_shell_executable") if arguments.get(key) is not None
    }
    outside = ("_sudo", "_sudo_user", "_sudo_password", "_use_sudo_login", "_preserve_sudo_env")
    options = {key: arguments.pop(key, None) for key in outside}
    user = ("-u", QuoteString(options["_sudo_user"])) if options["_sudo_user"] else ()
    return StringCommand(*user, "--", make_unix_command(command, **inside))


def wants_password(output: CommandOutput) -> bool:
    return any(line.strip() in SUDO_PASSWORD_REQUIRED_LINES for line in output.stderr_lines)


def refused(reason: str) -> Result:
    return False, CommandOutput([OutputLine("stderr", reason)])


def login_arguments(data: Mapping[str, Any]) -> dict[str, Any]:
    """What paramiko's `connect` is told beside what pyinfra tells it; `data`: the connector's.

    Limits hold from the first byte on. The keys that ssh_config names are tried in turn, as ssh does: pyinfra tries the
    first one only, and paramiko gives up at one that is not there, although an agent may have it. One key alone, and a
    `CertificateFile`, are left to pyinfra; certificates beside their keys are found by paramiko.
    """
    more: dict[str, Any] = {"transport_factory": bounds.BoundedTransport}
    found = ssh_config_of(data)
    if found is None or data["ssh_key"] or "identityfile" not in found:
        return more
    names = [str(path) for name in found["identityfile"] if (path := Path(name).expanduser()).is_file()]
    if "certificatefile" in found or len(names) == 1:
        return more
    # A key that is there, if None, keeps pyinfra from taking the first.
    return {**more, "pkey": None, "key_filename": names}


def ssh_config_of(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """What ssh_config says of a host; None where there is none.

    `ProxyJump none` is no jump host (ssh_config(5)); pyinfra would connect to one of this name.
    """
    config = get_ssh_config(data["ssh_config_file"])
    if config is None:
        return None
    # Of this one file, as pyinfra keeps it: it asks it again in the middle of its own `connect`.
    if not hasattr(config.lookup, "__wrapped__"):
        config.lookup = without_jump_to_none(config.lookup)
    found: dict[str, Any] = config.lookup(data["ssh_hostname"])
    return found


def without_jump_to_none(lookup: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps the lookup in an ssh_config."""

    @functools.wraps(lookup)
    def wrapper(hostname: str) -> Any:
        found = lookup(hostname)
        if found.get("proxyjump", "").lower() == "none":
            del found["proxyjump"]
        return found

    return wrapper


def transports(client: SSHClient) -> Iterator[Transport]:
    """The connection, and those to jump hosts that it goes through."""
    transport = client.get_transport()
    while transport is not None:
        yield transport
        transport = transport.sock.get_transport() if isinstance(transport.sock, Channel) else None


def set_socket_options(client: SSHClient) -> None:
    """What pyinfra and paramiko leave at its default; on a connection that stands, whoever made it.

    TCP_NODELAY: without it each command waits for a delayed ACK (40 ms). A packet every `KEEPALIVE` seconds: the host
    knows by it that this controller lives (`sparkhost.base.deploylock`). TCP_USER_TIMEOUT: a host that is cut off or
    frozen does not acknowledge those packets, and is given up after `UNACKNOWLEDGED` seconds, not after a command's own
    limit.
    An sshd that does not begin a command is given up after `CHANNEL_TIMEOUT` seconds (paramiko: an hour).
    """
    for transport in transports(client):
        transport.set_keepalive(KEEPALIVE)
        setattr(transport, "channel_timeout", CHANNEL_TIMEOUT)  # noqa: B010 - not in its types
        # Through a ProxyCommand the transport writes to a pipe, through a jump host to a channel, without such options.
        if hasattr(transport.sock, "setsockopt"):
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
                transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED * 1000)


def is_gone(connector: Any) -> bool:
    """Whether the connection of an SSH connector has ended."""
    client = getattr(connector, "client", None)
    transport = client.get_transport() if client is not None else None
    return transport is not None and not transport.is_active()


def with_told_failure(connect: Callable[..., None]) -> Callable[..., None]:
    """Wraps the SSH connector's `connect`: a host that is not reached is noted with its reason.

    Whatever goes wrong is that host's: pyinfra goes on with the others after a ConnectError only.
    """

    @functools.wraps(connect)
    def wrapper(self: Any) -> None:
        try:
            with bounds.within(CONNECT_SECONDS):
                connect(self)
        except Exception as error:
            problem = line(unreached(error, self.host))
            journal.note(self.host.name, "unreachable", problem=problem)
            raise ConnectError(problem) from error

    return wrapper


def unreached(error: Exception, host: Any) -> str:
    """Why a host was not reached, with the next step."""
    said = " ".join(str(error).split())
    if isinstance(error, ConnectError):
        return said
    if isinstance(error, TimeoutError):
        return f"no connection within {CONNECT_SECONDS} s"
    if isinstance(error, PyinfraError):
        key = host.data.get("ssh_key")
        if key and not Path(key).expanduser().exists():
            lab = " (the lab's: `make demo` makes it)" if ".lab" in Path(key).parts else ""
            return f"there is no key {key}{lab}: name another in ssh_key of the fleet file, or enrol the host"
        return said
    if isinstance(error, SSHException | OSError | EOFError):
        return said or type(error).__name__
    return mistake(error)
