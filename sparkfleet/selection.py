"""Which hosts a command is about: the fleet file, and `--limit`."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.settings import Fleet, FleetHost, load_fleet
from sparkfleet.settings.explain import suggestion
from sparkfleet.settings.problems import escaped, show
from sparkfleet.site import chosen_fleet_file


def chosen_fleet(named: Path | None) -> tuple[Path, Fleet]:
    """The fleet file that was named, else `$FLEET`'s, else the current project's, read.

    Raises:
        CommandFailed: none of them is there.
        FleetError: the fleet file has mistakes.
    """
    path = chosen_fleet_file(named)
    if path is None:
        raise CommandFailed(
            "which fleet file? name it with --fleet, or set $FLEET; `sparkfleet init my-lab` writes one",
            ExitCode.BAD_CONFIGURATION,
        )
    return path.expanduser().absolute(), load_fleet(path)


def limited(fleet: Fleet, limits: Sequence[str]) -> list[FleetHost]:
    """The hosts that the limits name, in the fleet's order; all without limits.

    Raises:
        CommandFailed: one of them fits no host.
    """
    if not limits:
        return list(fleet.hosts)
    meant: set[str] = set()
    for limit in limits:
        fits = {host.name for host in fleet.hosts if limit in host.groups or fnmatchcase(host.name, limit)}
        if not fits:
            known = ", ".join([*fleet.groups, *(host.name for host in fleet.hosts)][:20])
            raise CommandFailed(
                f"--limit {show(limit)} fits no host or group: there are {known}", ExitCode.BAD_CONFIGURATION
            )
        meant |= fits
    return [host for host in fleet.hosts if host.name in meant]


def known_host(fleet: Fleet, name: str, path: Path) -> FleetHost:
    """The host of a name. Raises CommandFailed where there is none."""
    for host in fleet.hosts:
        if host.name == name:
            return host
    near = suggestion(name, [host.name for host in fleet.hosts][:20])
    raise CommandFailed(f"{escaped(str(path))} has no host {show(name)}: {near}", ExitCode.BAD_CONFIGURATION)
