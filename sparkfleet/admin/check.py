"""`sparkfleet check`: what this machine, and the hosts, lack for a deploy; each a line with the next step."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from packaging.version import InvalidVersion, Version

from sparkfleet import child
from sparkfleet.admin.asking import on_all
from sparkfleet.audit.collect import target_of
from sparkfleet.enrol import probe
from sparkfleet.enrol.ssh import Route
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.selection import limited
from sparkfleet.settings import Fleet, FleetError, FleetHost, load_fleet
from sparkfleet.settings.problems import escaped
from sparkfleet.site import chosen_fleet_file
from sparkfleet.sudo_password import PASSWORD_COMMAND
from sparkfleet.terminal import has_terminal
from sparkfleet.version import release
from sparkfleet.wheel_cache import cache

TEXT = """\
Says what this machine lacks: ssh, a fleet file, keys, pins of host keys, a place for wheels; and then, unless --here is
given, what each host lacks: a way in, sudo, Python, the right machine and system. Nothing is changed, here or there."""
EPILOG = """\
exit code: 4 where this machine lacks something, else 3 where a host was not reached, else 1 where a host lacks
something, else 0. A warning (!) is no failure."""
OLDEST_UV = Version("0.4.27")
"""The first that knows dependency groups (uv's CHANGELOG, 0.4.27); an older one ignores them without a word."""
SECONDS = 20.0
FREE = 256 * 1024 * 1024
"""Bytes; the wheels of uv and of our own programs. A stack's are some 6 GiB, and come when a host needs them."""
SYSTEMS = ("Ubuntu 24.04", "Debian GNU/Linux 12", "Debian GNU/Linux 13", "DGX OS")


@dataclass(frozen=True)
class Found:
    """One thing that was looked at. `code`: CLEAN where it is so; `warning`: it may be meant so."""

    text: str
    code: ExitCode = ExitCode.CLEAN
    warning: bool = False

    def line(self) -> str:
        return f"{'!' if self.warning else '-' if self.code else '+'} {self.text}"


bad = partial(Found, code=ExitCode.BAD_CONFIGURATION)
warn = partial(Found, warning=True)


def add_arguments(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser(
        "check", help="say what this machine and the hosts lack", description=TEXT, epilog=EPILOG
    )
    parser.add_argument("--fleet", type=Path, metavar="FILE", help="fleet file (default: $FLEET)")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="HOST", help="a host, group or glob; again for more"
    )
    parser.add_argument("--here", action="store_true", help="this machine only: no host is asked")
    parser.set_defaults(run=check)


def check(arguments: argparse.Namespace) -> ExitCode:
    """Looks, and prints a line for each thing. Raises CommandFailed for a limit that fits no host."""
    found = [*programs(), *places()]
    fleet, about = fleet_found(arguments.fleet)
    hosts = limited(fleet, arguments.limit) if fleet else []
    found += [*about, *(one for host in hosts for one in of_host(host))]
    if fleet:
        found += pins(fleet)
    print(f"this machine (sparkfleet {release()}):")
    print("\n".join(f"  {one.line()}" for one in found))
    code = max(one.code for one in found)
    if fleet is None or arguments.here:
        return code
    routes = [route for host in hosts if (route := target_of(host, fleet.known_hosts).route)]
    for route, lines in zip(routes, on_all(routes, host_found), strict=True):
        print(f"{route.name}:")
        print("\n".join(f"  {one.line()}" for one in lines))
        code = max(code, *(one.code for one in lines))
    return code


def programs() -> Iterator[Found]:
    """Programs that are called."""
    yield Found(f"Python {sys.version.split()[0]}")
    if shutil.which("ssh"):
        yield Found("ssh")
    else:
        yield bad("there is no ssh: apt install openssh-client")
    if shutil.which("uv"):
        yield uv()


def uv() -> Found:
    """uv, where it is there: what a site's project is run by."""
    try:
        said = child.run(["uv", "--version"], child.Limits(SECONDS)).stdout.decode(errors="replace")
        version = Version(said.split()[1])
    except (OSError, child.OutOfBounds, IndexError, InvalidVersion):
        return warn("uv does not say its version: `uv --version`")
    if version < OLDEST_UV:
        return bad(f"uv {version} is too old for a site's project, {OLDEST_UV} or later is needed: uv self update")
    return Found(f"uv {version}")


def places() -> Iterator[Found]:
    """Where this machine keeps things."""
    place = cache()
    there = next(path for path in (place, *place.parents) if path.exists())
    if not os.access(there, os.W_OK):
        yield bad(f"{escaped(str(place))} cannot be written: wheels are kept there: chown it, or set XDG_CACHE_HOME")
    elif shutil.disk_usage(there).free < FREE:
        yield bad(f"{escaped(str(there))} has less than {FREE // 2**20} MiB free: wheels are kept there")
    else:
        yield Found(f"wheels are kept in {escaped(str(place))}")
    if not os.environ.get(PASSWORD_COMMAND) and not has_terminal():
        yield warn(f"no terminal to ask for a sudo password on: set ${PASSWORD_COMMAND}, where hosts want one")


def fleet_found(named: Path | None) -> tuple[Fleet | None, list[Found]]:
    """Reads the fleet file, and says what is wrong with it."""
    try:
        path = chosen_fleet_file(named)
        if path is None:
            text = "no fleet file: `sparkfleet init my-lab` writes one; or name it with --fleet, or in $FLEET"
            return None, [bad(text)]
        fleet = load_fleet(path)
    except FleetError as error:
        return None, [bad(line) for line in error.lines]
    return fleet, [Found(f"{escaped(str(path))}: {len(fleet.hosts)} hosts")]


def of_host(host: FleetHost) -> Iterator[Found]:
    """What this machine needs for a host."""
    key = host.ssh_key
    if key is None:
        return
    if not key.exists() and ".lab" in key.parts:
        yield bad(
            f"{host.name}: the lab's key is not there: the lab is not up: `make demo`, or `python -m tests.lab up`"
        )
    elif not key.exists():
        yield bad(
            f"{host.name}: there is no key {escaped(str(key))}: name another one (ssh_key), or make it: "
            f"ssh-keygen -t ed25519 -f {escaped(str(key))}, and `sparkfleet enrol {host.name}` installs it"
        )
    elif not os.access(key, os.R_OK):
        yield bad(f"{host.name}: the key {escaped(str(key))} cannot be read")
    elif key.suffix != ".pub" and key.stat().st_mode & 0o077:
        yield bad(f"{host.name}: ssh takes no key that others can read: chmod 600 {escaped(str(key))}")


def pins(fleet: Fleet) -> Iterator[Found]:
    """The file of host keys."""
    path = fleet.known_hosts.expanduser()
    if path.exists():
        yield Found(f"host keys are pinned in {escaped(str(path))}")
    else:
        yield bad(f"there is no {escaped(str(path))}, so every host is refused: `sparkfleet enrol HOST` pins its key")


def host_found(route: Route) -> list[Found]:
    """What one host lacks."""
    try:
        answer, seen = probe.look(route, None)
        if seen is None:
            text = f"lets nobody in ({answer.reason}): `sparkfleet enrol {route.name}` installs your key"
            return [Found(text, ExitCode.UNREACHABLE)]
        probe.check(route.name, seen)
    except CommandFailed as error:
        return [Found(with_step(route, str(error).removeprefix(f"{route.name}: ")), error.code)]
    return [*machine(seen), Found(f"Python {seen.one('python')}; sudo: {sudo(seen)}")]


def with_step(route: Route, reason: str) -> str:
    """A reason that ssh gives, with the next step."""
    if re.search(r"host key is known|Host key verification failed", reason):
        return f"{reason}: not pinned, or another key: `sparkfleet enrol {route.name}` shows it, and pins it"
    return reason


def sudo(seen: probe.Seen) -> str:
    return "root" if seen.root else "without a password" if seen.sudo == "free" else "with a password"


def machine(seen: probe.Seen) -> Iterator[Found]:
    """Whether it is a Spark, with a system that this is tried on."""
    name = " ".join(seen.one("os").split())
    if not name.startswith(SYSTEMS):
        text = f"{name or 'an unknown system'}: not one of {', '.join(SYSTEMS)}: `sparkfleet drift` first"
        yield warn(text)
    if seen.one("arch") != "aarch64" or not any("GB10" in gpu for gpu in seen.values.get("gpu", ())):
        text = f"no DGX Spark by its GPU and architecture ({seen.machine()}): a deploy would treat it as one"
        yield warn(text)
    else:
        yield Found(seen.machine())
