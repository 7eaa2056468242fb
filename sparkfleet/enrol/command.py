"""The steps of an enrolment, in order. Each is a no-op where it has been done before."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparkfleet.deploy.outcome import State
from sparkfleet.deploy.report import details
from sparkfleet.enrol import fleet_file, hostkey, keys, probe, talk
from sparkfleet.enrol.fleet_text import Entry
from sparkfleet.enrol.preview import preview
from sparkfleet.enrol.ssh import Route, settings_of
from sparkfleet.enrol.talk import say
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.settings import Fleet, FleetHost, load_fleet
from sparkfleet.site import chosen_fleet_file
from sparkfleet.sudo_password import NoSudoPassword, sudo_password

DESCRIPTION = """\
Takes a host into the fleet: shows its host key for confirmation and pins it, installs your public key, checks sudo and
Python, writes the host into the fleet file, and reports what a deploy would change. Run again, it changes nothing."""


def add_arguments(commands: Any) -> None:
    """Adds the subcommand `enrol`."""
    parser = commands.add_parser("enrol", help="take a host into the fleet", description=DESCRIPTION)
    parser.add_argument("name", metavar="NAME", help="what the host is called in the fleet")
    parser.add_argument("--address", metavar="A", help="its name or address (default: NAME, also one of ssh_config)")
    parser.add_argument("--port", type=port, metavar="P", help="SSH port (default: ssh_config's, else 22)")
    parser.add_argument("--user", metavar="U", help="user to log in as (default: ssh_config's, else your own name)")
    parser.add_argument("--fleet", type=Path, metavar="FILE", help="fleet file (default: $FLEET)")
    parser.add_argument("--key", type=Path, metavar="PUBKEY", help="public key to install (default: the one ssh uses)")
    parser.add_argument("--group", action="append", default=[], metavar="G", help="group of the host; again for more")
    parser.add_argument(
        "--fingerprint", type=fingerprint, metavar="SHA256:...", help="the host key's, read at the console: do not ask"
    )
    parser.add_argument(
        "--yes", action="store_true", help="do not ask before your key is installed; never confirms a host key"
    )
    parser.set_defaults(run=enrol)


def port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a port from 1 to 65535")
    return int(text)


def fingerprint(text: str) -> str:
    try:
        return hostkey.normal_fingerprint(text)
    except ValueError as error:
        expected = "expected SHA256: and 43 characters, as `ssh-keygen -lf` prints it"
        raise argparse.ArgumentTypeError(f"got {text!r}, {expected}") from error


@dataclass(frozen=True)
class Plan:
    """What is enrolled, and where it goes."""

    fleet_file: Path
    fleet: Fleet
    host: FleetHost
    entry: Entry | None
    """What is to be written into the fleet file; None where it is there already."""
    route: Route
    key: keys.AdminKey | None
    """The key that must work; None: any that ssh has."""


def enrol(arguments: argparse.Namespace) -> ExitCode:
    """Runs the steps. Raises CommandFailed or FleetError, with one line for each thing to mend."""
    plan = planned(arguments)
    name = plan.host.name
    pinned = pin_host_key(plan, arguments.fingerprint)
    seen, installed = log_in(plan, arguments.yes or arguments.key is not None)
    say(name, f"machine: {seen.machine()}")
    probe.check(name, seen)
    say(name, f"Python {seen.one('python')}")
    password = check_sudo(plan, seen)
    if plan.entry is not None:
        change = fleet_file.draft(plan.fleet_file, name, plan.entry)  # anew: the file may have grown meanwhile
        fleet_file.write(change)
        say(name, f"fleet file: added to {plan.fleet_file}")
    elif not (pinned or installed):
        say(name, f"already enrolled in {plan.fleet_file}: nothing was changed")
        return ExitCode.CLEAN
    return report(plan, seen, password)


def planned(arguments: argparse.Namespace) -> Plan:
    """Reads the fleet file and the admin's keys, before anything is asked or changed.

    Raises:
        CommandFailed, FleetError: something in them is wrong, or the host is there with another address.
    """
    chosen = chosen_fleet_file(arguments.fleet)
    if chosen is None:
        raise CommandFailed("which fleet file? name it with --fleet, or set $FLEET", ExitCode.BAD_CONFIGURATION)
    path: Path = chosen.expanduser()
    name: str = arguments.name
    known = fleet_file.declared(path, name)
    given: dict[str, Any] = {
        "address": arguments.address if known or arguments.address != name else None,
        "port": arguments.port,
        "user": arguments.user,
        "groups": list(dict.fromkeys(arguments.group)),
    }
    given = {key: value for key, value in given.items() if value not in (None, [])}
    if known:
        refuse_another(path, name, known, given)
        fleet = load_fleet(path)
    else:
        fleet = fleet_file.draft(path, name, given).fleet
    host = next(host for host in fleet.hosts if host.name == name)
    address = host.address or host.name
    settings = settings_of(address, host.port, host.user)
    agent = keys.agent_lines(settings)
    key = None
    if arguments.key is not None:
        key = keys.named_key(arguments.key, agent)
        if not known and key.private:
            given["ssh_key"] = local_path(key.private)
            fleet = fleet_file.draft(path, name, given).fleet
    elif host.ssh_key is not None:
        key = keys.named_key(host.ssh_key, agent)
    route = Route(name, address, host.port, host.user, fleet.known_hosts, key.identity if key else None)
    return Plan(path, fleet, host, None if known else given, route, key)


def refuse_another(path: Path, name: str, known: fleet_file.Declared, given: Entry) -> None:
    """Raises CommandFailed where the fleet has another host of this name."""
    for key, value in given.items():
        has = known.entry.get(key, name if key == "address" else [] if key == "groups" else None)
        if not set(value) <= set(has) if key == "groups" else has != value:
            shown = {"groups": "groups"}.get(key, key)
            raise CommandFailed(
                f"{path}:{known.line}: {name} is in the fleet with {shown} {has or 'not set'}, not {value}: "
                "choose another name, or change it there",
                ExitCode.BAD_CONFIGURATION,
            )


def local_path(path: Path) -> str:
    """A path as it stands in a fleet file: below the home directory with ~, so that colleagues can share it."""
    absolute, home = path.absolute(), Path.home()
    return f"~/{absolute.relative_to(home)}" if absolute.is_relative_to(home) else str(absolute)


def pin_host_key(plan: Plan, given: str | None) -> bool:
    """Fetches the host's key and pins it once it is confirmed. Returns whether the file of pins was changed.

    Raises:
        CommandFailed: the host is not reached, another key is pinned or given, or this one is not confirmed.
    """
    name, known_hosts = plan.host.name, plan.fleet.known_hosts
    offer = hostkey.fetch(plan.route)
    key = offer.key
    missing = hostkey.unpinned(known_hosts, offer)
    if given is not None:
        talk.compare(name, key, given)
    if offer.names[0] not in missing:
        say(name, f"host key: {key.kind} {key.fingerprint}, as pinned in {known_hosts}")
    else:
        say(name, f"host key of {offer.names[0]}: {key.kind} {key.fingerprint}")
        for line in hostkey.lines_with(known_hosts, key):
            say(
                name,
                f"  line {line} of {known_hosts} has the very same key: the same machine by another name, or "
                "machines that share a key, which then anyone of them can pose as (ssh-keygen -A makes new ones)",
            )
        if given is None:
            say(name, f"  compare it at the machine's own console: ssh-keygen -lf {key.file}")
            talk.confirm_host_key(name, key)
    if missing:
        hostkey.pin(known_hosts, missing, key)
        say(name, f"host key: pinned in {known_hosts} for {', '.join(missing)}")
    return bool(missing)


def log_in(plan: Plan, may_install: bool) -> tuple[probe.Seen, bool]:
    """Logs in with the key, after it was installed where needed. Returns what was seen, and whether it was installed.

    Raises:
        CommandFailed: no login with the key came about.
    """
    name, key = plan.host.name, plan.key
    _, seen = probe.look(plan.route, key.data if key else None)
    if seen and (key is None or seen.key_present):
        say(name, f"login: the key works for {seen.one('user')}")
        return seen, False
    route = plan.route
    if key is None:
        settings = settings_of(route.address, route.port, route.user)
        key = keys.usual_key(settings, keys.agent_lines(settings))
        if not may_install:
            talk.confirm_install(name, str(key))
    hints = install(route, key, logged_in=seen is not None)
    say(name, f"key: {key} is in authorized_keys")
    answer, seen = probe.look(replace(route, identity=key.identity), key.data)
    if seen is None:
        why = (
            "the home directory can be written by others: chmod go-w ~"
            if "open-home" in hints
            else ("see `journalctl -u ssh` there, and PubkeyAuthentication and AuthorizedKeysFile in its sshd_config")
        )
        raise CommandFailed(f"{name}: the key is installed, yet refused ({answer.reason}): {why}", ExitCode.UNREACHABLE)
    say(name, f"login: the key works for {seen.one('user')}")
    return seen, True


def install(route: Route, key: keys.AdminKey, *, logged_in: bool) -> set[str]:
    """Puts the key into authorized_keys, over a login that works, or one with a password that ssh asks for.

    Returns what the script found: `present`, `installed`, `open-home`.

    Raises:
        CommandFailed: there is no such login, or the file cannot be written.
    """
    if logged_in:
        answer = route.script("install_key.sh", f"{key.line}\n")
    else:
        say(route.name, f"key: installing {key}; ssh now asks for the password of the login")
        by_password = replace(route, identity=None).with_options(
            PreferredAuthentications="keyboard-interactive,password", PubkeyAuthentication="no"
        )
        answer = by_password.script("install_key.sh", f"{key.line}\n", person=True)
    if answer.lost:
        raise CommandFailed(
            f"{route.name}: no login to install the key with: {answer.reason} (try `{route.where()}` by hand, or put "
            "the public key into ~/.ssh/authorized_keys at the console)",
            ExitCode.UNREACHABLE,
        )
    found = set(probe.values_of(answer.stdout))
    if answer.rc or not found & {"present", "installed"}:
        raise CommandFailed(f"{route.name}: the key cannot be put into authorized_keys: {answer.reason}")
    return found


def check_sudo(plan: Plan, seen: probe.Seen) -> str | None:
    """The sudo password, tried, where one is needed. Raises CommandFailed where sudo is not to be had."""
    name, user = plan.host.name, seen.one("user")
    if seen.sudo == "free":
        say(name, "sudo: not needed, the login is root" if seen.root else "sudo: without a password")
        return None
    try:
        password = sudo_password(f"on {name}")
    except NoSudoPassword as problem:
        raise CommandFailed(f"{name}: {problem}", ExitCode.BAD_CONFIGURATION) from problem
    probe.try_sudo(plan.route, user, password)
    say(name, "sudo: with a password, which is right")
    return password


def report(plan: Plan, seen: probe.Seen, password: str | None) -> ExitCode:
    """Tells who uses the host and what a deploy would change. Raises CommandFailed where a dry run fails."""
    name = plan.host.name
    users = list(seen.in_use())
    say(name, f"{'in use' if users else 'not in use'}: {seen.state()}")
    for line in (*users, *seen.traits()):
        say(name, f"  {line}")
    say(name, "asking a dry run what a deploy would change; nothing is changed")
    by_hand = f"FLEET={plan.fleet_file} sparkfleet"
    try:
        found = preview(plan.fleet_file, name, password)
        if found.state in (State.UNREACHABLE, State.LOST, State.UNFINISHED):
            raise CommandFailed(found.reason)
    except CommandFailed as error:
        text = f"{name} is enrolled, but the dry run failed: {error} (by hand: {by_hand} drift --limit {name})"
        raise CommandFailed(text, error.code) from error
    lines = details(found, diff=True)
    say(name, "a deploy would change:" if lines else "a deploy would change nothing")
    for line in lines:
        print(f"  {line}")
    say(name, f"enrolled. Deploy: {by_hand} deploy --limit {name}")
    return ExitCode.CLEAN
