"""The fleet file as a pyinfra inventory: `pyinfra @sparkfleet/my-lab.yaml deploy.py`. docs/one-measure.md

pyinfra loads every connector that is installed, for every run of its own: what only a fleet needs is imported late.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import InventoryError
from pyinfra.connectors.local import LocalConnector
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import CommandOutput

from sparkfleet.run_environment import leaving, other_settings

if TYPE_CHECKING:
    from sparkfleet.settings import Fleet, FleetHost, HostSettings


def data_of(fleet: Fleet, host: FleetHost, settings: HostSettings) -> dict[str, Any]:
    """A host's data for pyinfra: how to reach it, and `settings`, its settings as JSON values."""
    ssh = {"hostname": host.address, "port": host.port, "user": host.user, "key": host.ssh_key and str(host.ssh_key)}
    return {
        **{f"ssh_{key}": value for key, value in ssh.items() if value is not None},
        "ssh_known_hosts_file": str(fleet.known_hosts),
        "ssh_strict_host_key_checking": "yes",
        "settings": settings.model_dump(mode="json"),
    }


class FleetConnector(SSHConnector):
    """The hosts of a fleet file, with its groups and settings, over SSH. Without a name, `$FLEET`'s.

    A host whose key is not pinned is refused. A sudo password is asked for once, and goes in on
    standard input; what a host prints is read within bounds; a dead connection is given up.
    """

    @staticmethod
    def make_names_data(name: str | None = None) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        """Raises InventoryError: the file has mistakes, a line each."""
        from sparkfleet.settings import FleetError

        name = name or os.environ.get("FLEET")
        if not name:
            text = "which fleet file? set $FLEET, or write @sparkfleet/PATH, as in @sparkfleet/my-lab.yaml"
            raise InventoryError(text)
        try:
            fleet = fleet_of(Path(name).expanduser())
        except FleetError as error:
            raise InventoryError(str(error)) from error
        gone, given = leaving(), other_settings()
        for host in fleet.hosts:
            settings = host.settings.absent() if host.name in gone else host.settings
            if instead := given.get(host.name):
                settings = settings.model_validate({**settings.model_dump(mode="json"), **instead})
            yield host.name, data_of(fleet, host, settings), list(host.groups)

    def make_paramiko_kwargs(self) -> dict[str, Any]:
        """pyinfra's, with limits, and with every key that ssh_config names."""
        connection = _way().connection
        found = {**super().make_paramiko_kwargs(), **connection.login_arguments(self.data)}
        return {**found, "timeout": max(found.get("timeout", 0), connection.CONNECT_TIMEOUT)}

    def connect(self) -> None:
        """Raises ConnectError, which costs this host alone."""
        way = _way()
        way.connection.with_told_failure(SSHConnector.connect)(self)
        if self.client is not None:
            way.prepare(self.client)

    def run_shell_command(
        self, command: StringCommand, print_output: bool = False, print_input: bool = False, **arguments: Any
    ) -> tuple[bool, CommandOutput]:
        """As SSHConnector's, within bounds."""
        result: tuple[bool, CommandOutput] = _way().RUN(self, command, print_output, print_input, **arguments)
        return result


class HereConnector(LocalConnector):
    """This machine itself, as pyinfra's `@local`, with sudo's password and bounds as for a fleet's hosts."""

    def run_shell_command(
        self, command: StringCommand, print_output: bool = False, print_input: bool = False, **arguments: Any
    ) -> tuple[bool, CommandOutput]:
        """As LocalConnector's, within bounds."""
        result: tuple[bool, CommandOutput] = _way().RUN(self, command, print_output, print_input, **arguments)
        return result


@cache
def fleet_of(path: Path) -> Fleet:
    """A fleet file, read once. Raises FleetError."""
    from sparkfleet.settings import load_fleet

    return load_fleet(path)


@cache
def _way() -> ModuleType:
    from sparkfleet.own_tasks import own_tasks

    # What goes wrong with a connection is told as that host's state; paramiko's thread would print a traceback besides.
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    with own_tasks():
        from tasks.lib import way
    return way
