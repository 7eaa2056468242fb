"""`sparkfleet stack lock | check | fetch`: the profiles' locks made and checked, their wheels brought here."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.stack import mirror
from sparkfleet.stack.check import problems
from sparkfleet.stack.difference import difference, summary
from sparkfleet.stack.lock import BadLock, Lock, Wheel
from sparkfleet.stack.profile import Profile, load, names
from sparkfleet.stack.resolve import resolve
from sparkfleet.stack.scan import scan
from sparkfleet.wheel_cache import cache

DESCRIPTION = """\
The CUDA stack: which wheels a profile is made of, and getting them. Installing is a deploy's (docs/stack.md)."""
LOCK = """\
Resolves a profile's input anew and shows what changes against the lock; writes it unless --dry is given. A lock with a
CUDA 12 or CPU build, flash-attn, a source or a file without a hash is refused, and the old one stays."""
CHECK = """\
Reads the locks, and says what is wrong with them, from names and versions alone. With --wheels also looks into the
downloaded wheels: libraries that want CUDA 12, a CPU build of torch."""
FETCH = """\
Downloads every wheel of a profile's locks once, by hash; goes on where it was cut. Hosts then need no internet."""
MACHINES = ("aarch64", "x86_64")


def add_arguments(commands: Any) -> None:
    """Adds the subcommand `stack` with its own."""
    stack = commands.add_parser("stack", help="lock the CUDA stack, and fetch its wheels", description=DESCRIPTION)
    actions = stack.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text, run in (("lock", LOCK, lock), ("check", CHECK, check), ("fetch", FETCH, fetch)):
        parser = actions.add_parser(name, help=text.split(";")[0].split(".")[0].strip(), description=text)
        parser.add_argument("profile", nargs="*", metavar="PROFILE", help=f"any of {', '.join(names())} (default: all)")
        parser.add_argument("--machine", choices=MACHINES, action="append", help="for this architecture only")
        parser.set_defaults(run=run)
        if name == "lock":
            parser.add_argument("--dry", action="store_true", help="show what would change, write nothing")
            parser.add_argument("--commit", type=commit, help="vLLM's commit, for the profile nightly")
        if name == "check":
            parser.add_argument("--wheels", action="store_true", help="look into the downloaded wheels as well")


def commit(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a commit of 40 lower-case hex digits")
    return text


def meant(arguments: argparse.Namespace) -> list[tuple[Profile, str]]:
    """The profiles and architectures of the arguments. Raises CommandFailed."""
    profiles = [load(name) for name in arguments.profile or names()]
    found = [(p, m) for p in profiles for m in p.machines if not arguments.machine or m in arguments.machine]
    if not found:
        raise CommandFailed("no profile is for that architecture", ExitCode.BAD_CONFIGURATION)
    return found


def read(profile: Profile, machine: str) -> Lock | None:
    """A lock, its mistakes as bad configuration."""
    try:
        return profile.lock(machine)
    except BadLock as error:
        raise CommandFailed(str(error), ExitCode.BAD_CONFIGURATION) from error


def lock(arguments: argparse.Namespace) -> ExitCode:
    """Makes locks anew. Raises CommandFailed."""
    if arguments.commit and arguments.profile != ["nightly"]:
        raise CommandFailed("--commit is for `sparkfleet stack lock nightly`", ExitCode.BAD_CONFIGURATION)
    for profile, machine in meant(arguments):
        if profile.wants_commit and not arguments.commit:
            if not arguments.profile:
                continue  # all that can be locked without more to say
            text = f"{profile.name}: which build? name vLLM's commit with --commit"
            raise CommandFailed(text, ExitCode.BAD_CONFIGURATION)
        try:
            new = resolve(profile, machine, arguments.commit or "")
        except CommandFailed as error:
            raise CommandFailed(f"{profile.name} ({machine}): {error}", error.code) from error
        if wrong := problems(new):
            refuse(f"{profile.name} ({machine})", wrong)
            return ExitCode.FAILURE
        path = profile.lock_path(machine)
        # One that cannot be read is replaced; it is what this command is for.
        try:
            old = profile.lock(machine)
        except BadLock as error:
            print(f"sparkfleet: {error}", file=sys.stderr)
            old = None
        for line in difference(old, new):
            print(line)
        print(summary(old, new))
        if not arguments.dry and (old is None or old.text() != new.text()):
            write(path, new.text())
    return ExitCode.CLEAN


def write(path: Path, text: str) -> None:
    """Replaces a lock in one step. Raises CommandFailed."""
    aside = path.with_name(f".{path.name}.new")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise CommandFailed(f"{path}: cannot be written: {os.strerror(error.errno or 0)}") from error


def refuse(what: str, wrong: Sequence[str]) -> None:
    for line in wrong:
        print(f"sparkfleet: {what}: refused: {line}", file=sys.stderr)


def check(arguments: argparse.Namespace) -> ExitCode:
    """Checks locks. Raises CommandFailed."""
    code = ExitCode.CLEAN
    for profile, machine in meant(arguments):
        found = read(profile, machine)
        if found is None:
            print(f"{profile.name} ({machine}): no lock: make it with `sparkfleet stack lock {profile.name}`")
            continue
        wrong = problems(found)
        if arguments.wheels and (lacking := mirror.missing(found, cache())):
            raise CommandFailed(f"{profile.name}: {len(lacking)} wheels are not here: sparkfleet stack fetch first")
        wrong += scan(found, cache()) if arguments.wheels else []
        refuse(f"{profile.name} ({machine})", wrong)
        if wrong:
            code = ExitCode.FAILURE
        else:
            looked = "names, versions and content" if arguments.wheels else "names and versions"
            print(f"{summary(found, found).removesuffix(', unchanged')}: fine by {looked}")
    return code


def fetch(arguments: argparse.Namespace) -> ExitCode:
    """Downloads wheels. Raises CommandFailed."""
    for profile, machine in meant(arguments):
        found = read(profile, machine)
        if found is None:
            if arguments.profile:
                text = f"{profile.name} has no lock for {machine}: sparkfleet stack lock {profile.name}"
                raise CommandFailed(text, ExitCode.BAD_CONFIGURATION)
            continue
        if wrong := problems(found):
            refuse(f"{profile.name} ({machine})", wrong)
            return ExitCode.BAD_CONFIGURATION
        fetched = shown_fetch(found, profile)
        what = f"{len(fetched)} fetched ({sum(wheel.size for wheel in fetched) / 1e9:.2f} GB)"
        print(f"{found.release} ({machine}): {len(found.wheels)} wheels are here, {what}")
    return ExitCode.CLEAN


def shown_fetch(lock: Lock, profile: Profile) -> list[Wheel]:
    """Fetches with a bar on stderr: bytes, rate, and the time that is left. Raises CommandFailed."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=False),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task(lock.release, total=lock.size)
        return mirror.fetch(lock, profile, cache(), lambda count: bar.advance(task, count))
