"""The lab for a person: `python -m tests.lab up`, `ssh spark1`, `reboot spark1`, `delete --all` …"""

from __future__ import annotations

import argparse
import json
import os
import sys

from tests.lab import Host, Lab, LabError, terminal, tools
from tests.lab.profiles import ADMIN, ARCHES, SUITES, native_arch
from tests.lab.ssh import Completed

DEFAULT = ("spark1", "spark2")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="bring hosts up (default: spark1 and spark2)")
    up.add_argument("names", nargs="*", metavar="NAME")
    up.add_argument("--count", type=int, help="spark1 to sparkCOUNT instead of names")
    up.add_argument("--suite", choices=SUITES, help="another release than the host's own")
    up.add_argument("--arch", choices=sorted(ARCHES.values()), help="another architecture than this machine's")
    for name, text in (
        ("clean", "bring hosts back to their clean, booted state"),
        ("down", "switch hosts off; their disks stay"),
        ("delete", "switch hosts off and forget them"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("names", nargs="*", metavar="NAME")
        command.add_argument("--all", action="store_true", help="every host of this lab")
    for name, text in (
        ("reboot", "reboot a host and wait for it"),
        ("console", "the root console, or a command at it"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("name", metavar="NAME")
        if name == "console":
            command.add_argument("cmd", nargs=argparse.REMAINDER, metavar="COMMAND")
    for name, text in (("snapshot", "save a running host's state"), ("restore", "bring back a saved state")):
        command = commands.add_parser(name, help=text)
        command.add_argument("name", metavar="NAME")
        command.add_argument("tag", metavar="TAG")
    ssh = commands.add_parser("ssh", help="a shell on a host, or a command")
    ssh.add_argument("name", metavar="NAME")
    ssh.add_argument("--user", default="admin", help="admin (default), alice or bob")
    ssh.add_argument("cmd", nargs=argparse.REMAINDER, metavar="COMMAND")
    commands.add_parser("list", help="the hosts of this lab")
    commands.add_parser("ssh-config", help="the path of this lab's ssh_config (ssh -F)")
    commands.add_parser("fleet", help="a fleet file for this lab's hosts")
    commands.add_parser("password", help="the admin's sudo password (spark2 asks for it)")
    setup = commands.add_parser("setup", help="install the programs that the lab needs, after asking")
    setup.add_argument("--tests", action="store_true", help="also a browser and a C compiler, which tests need")
    setup.add_argument("--acceptance", action="store_true", help="also Prometheus, which tests/acceptance needs")
    return top


def chosen(lab: Lab, arguments: argparse.Namespace, default: tuple[str, ...] = ()) -> list[Host]:
    """The hosts that the command line names. Raises LabError where it names none."""
    names = list(arguments.names)
    if getattr(arguments, "count", None):
        names = [f"spark{number}" for number in range(1, arguments.count + 1)]
    elif getattr(arguments, "all", False):
        return [lab.host(name) for name in lab.names]
    names = names or list(default)
    if not names:
        raise LabError("which host? name one, or --all")
    return [lab.host(name) for name in names]


def existing(lab: Lab, name: str) -> Host:
    """A host that has been made. Raises LabError where it has not."""
    host = lab.host(name)
    if not host.exists():
        raise LabError(f"there is no {name}: bring it up with `python -m tests.lab up {name}`")
    return host


def fleet(lab: Lab) -> str:
    """A fleet file (YAML) for the hosts of this lab, with absolute paths."""
    from tests.integration.deploying import LAB_SETTINGS  # not needed to bring hosts up

    lines = [
        "version: 1",
        f"known_hosts: {lab.known_hosts}",
        "",
        "defaults:  # a lab host has 1.5 GiB of memory in all",
    ]
    for measure, settings in LAB_SETTINGS.items():
        lines += [f"  {measure}:", *(f"    {key}: {json.dumps(value)}" for key, value in settings.items())]
    lines += ["", "hosts:"]
    for name in lab.names:
        lines += [f"  {name}:", "    address: 127.0.0.1", f"    port: {lab.host(name).port}"]
        lines += [f"    user: {ADMIN}", f"    ssh_key: {lab.admin_key}"]
    return "\n".join(lines) + "\n"


def show(result: Completed) -> int:
    sys.stdout.write(result.stdout)
    sys.stderr.write(result.stderr)
    return result.rc


def log_in(lab: Lab, host: Host, user: str, command: list[str]) -> int:
    """Replaces this process by ssh(1), so that terminal, signals and exit code are its own."""
    ssh = tools.find("ssh") or "ssh"
    alias = host.name if user == "admin" else f"{host.name}-{user}"
    os.execv(ssh, [ssh, "-F", str(lab.ssh_config), alias, *command])


def act(arguments: argparse.Namespace) -> int:
    """Carries out one command. Raises LabError."""
    if arguments.command == "setup":
        tools.ensure(native_arch(), native_arch(), tests=arguments.tests, acceptance=arguments.acceptance)
        return 0
    lab = Lab()
    match arguments.command:
        case "up":
            for host in chosen(lab, arguments, DEFAULT):
                host.choose(arguments.suite, arguments.arch)
                host.up()
                print(f"{host.name} is up: python -m tests.lab ssh {host.name}")
        case "clean":
            for host in chosen(lab, arguments):
                host.clean()
        case "down":
            for host in chosen(lab, arguments):
                host.stop()
        case "delete":
            for host in chosen(lab, arguments):
                host.delete()
        case "reboot":
            existing(lab, arguments.name).reboot()
        case "snapshot":
            existing(lab, arguments.name).snapshot(arguments.tag)
        case "restore":
            existing(lab, arguments.name).restore(arguments.tag)
        case "console":
            host = existing(lab, arguments.name)
            if not arguments.cmd:
                return terminal.attach(host.console_socket)
            return show(host.console_run(" ".join(arguments.cmd), check=False))
        case "ssh-config":
            print(lab.ssh_config)
        case "fleet":
            print(fleet(lab), end="")
        case "ssh":
            return log_in(lab, existing(lab, arguments.name), arguments.user, arguments.cmd)
        case "password":
            print(lab.admin_password)
        case "list":
            for name in lab.names:
                host = lab.host(name)
                profile = host.profile
                state = "up" if host.running() else "off"
                print(f"{name}\t{state}\t127.0.0.1:{host.port}\t{profile.suite} {profile.arch}")
    return 0


def main() -> int:
    """Exit code 0, the command's own, or 1 (4: a program is missing) with one line on stderr."""
    try:
        return act(parser().parse_args())
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
