"""How sparkhost is called on a host: as root, with a bound on what is read, in whoever's deploy.

Over the connection that pyinfra made, and changing nothing for the commands of others. Hosts of a fleet file
(`sparkfleet.connector`) have the same for all their commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from subprocess import PIPE, Popen
from typing import Any

from pyinfra.api.command import StringCommand
from pyinfra.api.host import Host
from pyinfra.api.output import echo
from pyinfra.connectors.base import BaseConnector
from pyinfra.connectors.local import LocalConnector
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.sshuserclient.client import SSHClient
from pyinfra.connectors.util import CommandOutput, make_unix_command_for_host, write_stdin

from tasks.lib import bounds, connection

BECOMES_ROOT = ("_sudo", "_sudo_password", "_use_sudo_login", "_doas", "_su_user", "_su_password")
"""pyinfra's arguments that say how a command becomes root; the rest of an operation's are not for sparkhost."""


@dataclass(frozen=True)
class Way:
    """How the commands of one run become root."""

    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Way:
        """The way that an operation's arguments name; `_sudo_user=root` is what `_sudo` is."""
        return cls({key: arguments[key] for key in BECOMES_ROOT if arguments.get(key)})

    def run(self, connector: BaseConnector, command: str, stdin: str | None, timeout: int) -> connection.Result:
        """Runs a command; its output is bounded.

        Raises:
            TimeoutError: no end within `timeout` seconds.
            OSError, EOFError, paramiko.SSHException: the connection is gone, or the answer has no end.
        """
        given = {**self.arguments, "_stdin": stdin, "_timeout": timeout}
        if not isinstance(connector, SSHConnector | LocalConnector):
            return connector.run_shell_command(StringCommand(command), False, False, **given)
        if isinstance(connector, SSHConnector) and connector.client is not None:
            prepare(connector.client)
        return RUN(connector, StringCommand(command), **given)

    def lacks_root(self, host: Host) -> bool:
        """Whether commands would run as another user than root, as far as can be told from here."""
        connector = host.connector
        if any(self.arguments.get(key) for key in ("_sudo", "_doas", "_su_user")):
            return False
        if isinstance(connector, SSHConnector) and connector.client is not None:
            transport = connector.client.get_transport()
            return transport is not None and transport.get_username() != "root"
        return isinstance(connector, LocalConnector) and not connection.is_root(connector)


def prepare(client: SSHClient) -> None:
    """What a connection that pyinfra made still needs: limits, and that its end is noticed."""
    connection.set_socket_options(client)
    for transport in connection.transports(client):
        bounds.limit(transport)


def run_bounded(
    connector: Any, command: StringCommand, print_output: bool = False, print_input: bool = False, **arguments: Any
) -> connection.Result:
    """As `run_shell_command` of pyinfra's SSH and local connectors, whose reader keeps whatever a host prints."""
    stdin, timeout = arguments.pop("_stdin", None), arguments.pop("_timeout", None)
    pty, good = arguments.pop("_get_pty", False), arguments.pop("_success_exit_codes", None) or (0,)
    unix = make_unix_command_for_host(connector.state, connector.host, command, **arguments)
    if print_input:
        echo(f"{connector.host.print_prefix}>>> {unix}", err=True)
    if isinstance(connector, LocalConnector):
        code, output = run_here(unix.get_raw_value(), stdin, timeout, print_output, connector.host.print_prefix)
        return code in good, output
    to, out, err = connector.client.exec_command(unix.get_raw_value(), get_pty=pty)
    if stdin:
        write_stdin(stdin, to)  # type: ignore[no-untyped-call]
    to.close()
    output = bounds.read_output(out, err, timeout, print_output, connector.host.print_prefix)
    return out.channel.recv_exit_status() in good, output


def run_here(
    words: str, stdin: str | None, timeout: int | None, print_output: bool = False, prefix: str = ""
) -> tuple[int, CommandOutput]:
    """A command of this machine's. Raises what `bounds.read_output` raises; the command is then ended."""
    with Popen(words, shell=True, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        try:
            if stdin:
                write_stdin(stdin, process.stdin)  # type: ignore[no-untyped-call]
            elif process.stdin:
                process.stdin.close()
            output = bounds.read_output(process.stdout, process.stderr, timeout, print_output, prefix)
        except BaseException:
            process.kill()
            raise
    return process.returncode, output


RUN = connection.with_sudo_on_stdin(bounds.with_time(run_bounded))
