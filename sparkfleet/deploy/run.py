"""Runs pyinfra as a person would, and reads its journal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparkfleet import child
from sparkfleet.deploy.outcome import Outcome, State, outcomes
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.places import ROOT
from sparkfleet.run_environment import ONLY, OURS_ALONE, REMOVE, SETTINGS
from sparkfleet.settings.problems import escaped
from sparkfleet.site import project_in
from sparkfleet.temporary import temporary_directory
from sparkfleet.terminal import HERE, has_terminal

LOCAL = "@local"
SAID_BYTES = 64 * 1024
"""Of what pyinfra prints, where nobody sees it."""


@dataclass(frozen=True)
class Wanted:
    """What is to be run."""

    hosts: Sequence[str]
    """Names as the fleet file has them, or `@local` alone."""
    fleet_file: Path | None
    dry: bool
    confirmed: bool = False
    diff: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    remove: bool = False
    """Whether these hosts leave the fleet: all measures absent, whatever the fleet file says."""
    only: Sequence[str] = ()
    """Measures of ours; the others, and a site's own, are left alone. Empty: all."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By host, settings of measures (JSON values) in the place of the fleet file's."""


def run(wanted: Wanted, *, quiet: bool) -> list[Outcome]:
    """The outcome of every host. pyinfra's own output goes to the terminal, unless `quiet`.

    Raises:
        CommandFailed: pyinfra ended before it looked at any host, or there is no room for its journal, so that nobody
            knows what came of the hosts.
        KeyboardInterrupt: after pyinfra has ended, too.
    """
    with temporary_directory() as folder:
        journal = Path(folder) / "journal"
        journal.touch(mode=0o600)
        # pyinfra takes each of its options from a variable as well: PYINFRA_YES makes a dry run say nothing.
        ours = {k: v for k, v in os.environ.items() if not k.startswith("PYINFRA_") and k not in OURS_ALONE}
        environment = {**ours, **wanted.environment, "SPARKFLEET_JOURNAL": str(journal)}
        if wanted.remove:
            environment[REMOVE] = " ".join(wanted.hosts)
        if wanted.only:
            environment[ONLY] = " ".join(wanted.only)
        if wanted.settings:
            given = Path(folder) / "settings.json"
            given.touch(mode=0o600)
            given.write_text(json.dumps(wanted.settings), encoding="utf-8")
            environment[SETTINGS] = str(given)
        if wanted.fleet_file:
            environment["FLEET"] = str(wanted.fleet_file.expanduser().absolute())
        where = folder_of(wanted)
        rc, said = pyinfra(command(wanted), where, environment, quiet=quiet, seconds=wanted.seconds)
        try:
            with journal.open(encoding="utf-8", errors="replace") as lines:
                found = outcomes(wanted.hosts, lines, dry=wanted.dry)
            empty = not journal.stat().st_size
        except FileNotFoundError as error:  # a line of it could not be written
            raise CommandFailed(
                f"{Path(folder).parent} is full or cannot be written, so what came of the hosts is not known: free some"
                " space there, or set TMPDIR, and run `sparkfleet drift`"
            ) from error
    if empty and rc:
        raise CommandFailed(f"pyinfra ended with {rc}: {said or 'it says why above'}")
    if rc and all(one.state in (State.CLEAN, State.CHANGED, State.DRIFT) for one in found):
        raise CommandFailed(f"pyinfra ended with {rc} although no host failed: {said or 'it says why above'}")
    return found


def folder_of(wanted: Wanted) -> Path:
    """Where the deploy.py of a run is: in the project of the fleet file's folder, or of the current one; else ours.

    Raises:
        CommandFailed: the project has none, or it does without our measures.
        FleetError: the project has mistakes.
    """
    if wanted.only:  # a site's deploy.py would bring all that is its own besides
        return ROOT
    project = project_in(wanted.fleet_file.expanduser().absolute().parent if wanted.fleet_file else Path.cwd())
    if project is None:
        return ROOT
    try:
        text = project.deploy.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise CommandFailed(
            f"{escaped(str(project.deploy))}: cannot be read: {error.strerror}", ExitCode.BAD_CONFIGURATION
        ) from error
    if "all_measures()" not in text:
        raise CommandFailed(
            f"{escaped(str(project.deploy))}: does not call all_measures() of sparkfleet.operations, so nobody would"
            " know what came of the hosts: call it, or run pyinfra yourself",
            ExitCode.BAD_CONFIGURATION,
        )
    return project.folder


def command(wanted: Wanted) -> list[str]:
    """The call of pyinfra."""
    # The connector finds the fleet file by $FLEET: a comma in its path would be two hosts here.
    local = list(wanted.hosts) == [LOCAL]
    hosts = "@sparkfleet-local" if local else "@sparkfleet"
    limits = [] if local else [word for host in wanted.hosts for word in ("--limit", host)]
    flags = [
        *(["--dry"] if wanted.dry else []),
        *(["-y"] if wanted.confirmed else []),
        *(["--diff"] if wanted.diff else []),
    ]
    return [sys.executable, "-m", "pyinfra", hosts, "deploy.py", *flags, *limits]


def pyinfra(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], *, quiet: bool, seconds: float | None
) -> tuple[int, str]:
    """Exit code and, where it was quiet, the last line of the output; `folder`: that of the deploy.py."""
    quietly = {"PYINFRA_PROGRESS": "off", **({HERE: "1"} if has_terminal() else {})}  # the sudo password is asked for
    with subprocess.Popen(
        words,
        cwd=folder,
        env={**environment, **(quietly if quiet else {})},
        stdin=subprocess.PIPE if quiet else None,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
    ) as process:
        with ended(process):
            try:
                # Where a host is not reached, a dry run asks whether to go on with the others.
                limits = child.Limits(seconds, SAID_BYTES, last=True)
                text = child.talk(process, limits, b"\n")[0].decode(errors="replace") if quiet else ""
                process.wait(seconds)
            except (child.TooLate, subprocess.TimeoutExpired) as error:
                raise CommandFailed(f"pyinfra did not end within {seconds:g} s", ExitCode.UNREACHABLE) from error
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return process.returncode, escaped(lines[-1]) if lines else ""


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leaves no pyinfra behind. Ctrl-C has reached it as well: it gets the time to tell hosts, and is ended after."""
    try:
        yield
    except BaseException:
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
        raise
