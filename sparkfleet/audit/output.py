"""Where a run goes: waivers, the terminal, files, the store, and the hook that is called when verdicts got worse."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from sparkfleet.audit import notify, waivers
from sparkfleet.audit.controls import CONTROLS
from sparkfleet.audit.diff import diff
from sparkfleet.audit.model import Control, Run
from sparkfleet.audit.report import grid, html, json_file, junit, prometheus
from sparkfleet.audit.store import Store
from sparkfleet.exit_codes import CommandFailed, ExitCode

REPORTS: dict[str, Callable[[Run, Sequence[Control]], str]] = {
    "json": json_file.dumps,
    "junit": junit.dumps,
    "html": html.dumps,
    "prometheus": prometheus.dumps,
}
"""Option of the command → what makes the report."""
STDOUT = Path("-")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say where a run goes."""
    parser.add_argument("--waivers", type=Path, metavar="FILE", help="accepted failures, with reason, owner and expiry")
    for name in REPORTS:
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"write a report as {name} (-: to stdout)")
    parser.add_argument("--store", type=Path, metavar="DIR", help="keep the run there (default: see `audit runs`)")
    parser.add_argument("--no-store", action="store_const", const=True, help="do not keep the run for comparisons")
    parser.add_argument("--hook", metavar="COMMAND", help="run when verdicts got worse; see docs/audit.md")


def check(arguments: argparse.Namespace) -> None:
    """That what the command line asks for can be done. Raises CommandFailed where not."""
    wanted = [name for name in REPORTS if getattr(arguments, name)]
    if sum(getattr(arguments, name) == STDOUT for name in wanted) > 1:
        raise bad("only one report can go to stdout (-)")
    for name in wanted:
        path = getattr(arguments, name)
        if path != STDOUT and not path.absolute().parent.is_dir():
            raise bad(f"--{name} {path}: there is no directory {path.absolute().parent}")
    if arguments.hook:
        notify.parsed(arguments.hook)
        if not is_kept(arguments):
            raise bad(
                "--hook compares runs that are kept: leave --no-store out, or name a --store for an audit of parts"
            )


def bad(message: str) -> CommandFailed:
    return CommandFailed(message, ExitCode.BAD_CONFIGURATION)


def is_kept(arguments: argparse.Namespace) -> bool:
    """Whether the run goes into the store: one of parts only where it is named, or the rest would count as vanished."""
    parts = arguments.limit or arguments.control or arguments.measure
    return not arguments.no_store and (arguments.store is not None or not parts)


def load_waivers(path: Path | None) -> tuple[waivers.Waiver, ...]:
    """The waivers of a file; none without one. Raises FleetError with every mistake in it."""
    return waivers.load(path, [control.id for control in CONTROLS]) if path else ()


def waived(run: Run, found: tuple[waivers.Waiver, ...]) -> Run:
    """The run with the waivers applied, of today."""
    verdicts, notes = waivers.apply(run.verdicts, found, datetime.now(UTC).date())
    return replace(run, verdicts=tuple(verdicts), notes=(*run.notes, *notes))


def write(run: Run, controls: Sequence[Control], arguments: argparse.Namespace) -> None:
    """All reports that were asked for. The terminal's goes to stderr where another has stdout.

    Raises:
        CommandFailed: a file cannot be written.
    """
    terminal = sys.stdout
    for name, dumps in REPORTS.items():
        path: Path | None = getattr(arguments, name)
        if path is None:
            continue
        text = dumps(run, controls)
        if path == STDOUT:
            terminal = sys.stderr
            sys.stdout.write(text if text.endswith("\n") else text + "\n")
            continue
        try:
            # In one step: a node exporter, or a mail program, must not read half of it.
            new = path.with_name(f".{path.name}.new")
            new.write_text(text, encoding="utf-8")
            new.replace(path)
        except OSError as error:
            raise bad(f"--{name} {path}: {error.strerror}") from error
    Console(file=terminal).print(grid.render(run, controls))


def keep(run: Run, controls: Sequence[Control], arguments: argparse.Namespace) -> None:
    """Puts the run into the store, and tells the hook if it is worse than the one before.

    Raises:
        CommandFailed: it cannot be kept, or the hook failed.
    """
    if not is_kept(arguments):
        return
    store = Store(arguments.store)
    store.append(run, controls)
    before = store.before(run) if arguments.hook else None
    if before is not None:
        notify.notify(diff(before, run, controls), arguments.hook)
