"""Where a run goes: waivers, the terminal, files, the store. Others write them; plain lines are written here."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sparkfleet.audit.model import Control, Run, Status, Verdict
from sparkfleet.exit_codes import CommandFailed, ExitCode

REPORTS = {"json": "json_file", "junit": "junit", "html": "html"}
"""Option of the command → module of sparkfleet.audit.report that has `dumps(run, controls)`."""
STDOUT = Path("-")
ORDER = (Status.FAIL, Status.ERROR, Status.UNREACHABLE, Status.WAIVED, Status.NOT_APPLICABLE, Status.PASS)


def module(name: str) -> Any:
    """A module of sparkfleet.audit; None where this version does not have it."""
    full = f"sparkfleet.audit.{name}"
    try:
        return importlib.import_module(full)
    except ModuleNotFoundError as error:
        if error.name and full.startswith(error.name):
            return None
        raise


def needed(name: str, option: str) -> Any:
    """A module that an option needs. Raises CommandFailed where this version does not have it."""
    found = module(name)
    if found is None:
        raise CommandFailed(f"{option} is not in this version of sparkfleet", ExitCode.BAD_CONFIGURATION)
    return found


def check(arguments: argparse.Namespace) -> None:
    """That what the command line asks for can be done. Raises CommandFailed where not."""
    wanted = [name for name in REPORTS if getattr(arguments, name)]
    if sum(getattr(arguments, name) == STDOUT for name in wanted) > 1:
        raise CommandFailed("only one report can go to stdout (-)", ExitCode.BAD_CONFIGURATION)
    for name in wanted:
        needed(f"report.{REPORTS[name]}", f"--{name}")
        path = getattr(arguments, name)
        if path != STDOUT and not path.absolute().parent.is_dir():
            raise CommandFailed(
                f"--{name} {path}: there is no directory {path.absolute().parent}", ExitCode.BAD_CONFIGURATION
            )


def load_waivers(path: Path | None) -> Any:
    """The waivers of a file; None without one. Raises what waivers.load raises."""
    return needed("waivers", "--waivers").load(path) if path else None


def waived(run: Run, waivers: Any) -> Run:
    """The run with the waivers applied, of today."""
    if waivers is None:
        return run
    verdicts, notes = needed("waivers", "--waivers").apply(run.verdicts, waivers, datetime.now(UTC).date())
    return replace(run, verdicts=tuple(verdicts), notes=(*run.notes, *notes))


def write(run: Run, controls: Sequence[Control], arguments: argparse.Namespace) -> None:
    """All reports that were asked for. The terminal's goes to stderr where another has stdout."""
    terminal = sys.stdout
    for name in REPORTS:
        path: Path | None = getattr(arguments, name)
        if path is None:
            continue
        text = needed(f"report.{REPORTS[name]}", f"--{name}").dumps(run, controls)
        if path == STDOUT:
            terminal = sys.stderr
            sys.stdout.write(text if text.endswith("\n") else text + "\n")
            continue
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandFailed(f"--{name} {path}: {error.strerror}", ExitCode.BAD_CONFIGURATION) from error
    store = None if arguments.no_store else module("store")
    if store is not None:
        store.append(run)
    grid = module("report.grid")
    if grid is None:
        print("\n".join(listing(run, controls)), file=terminal)
        return
    from rich.console import Console

    Console(file=terminal).print(grid.render(run, controls))


def listing(run: Run, controls: Sequence[Control]) -> list[str]:
    """The verdicts as plain lines, the worst first; those that pass are counted only."""
    by_id = {control.id: control for control in controls}
    lines = []
    for verdict in sorted(run.verdicts, key=lambda item: rank(item, by_id)):
        if verdict.status in (Status.PASS, Status.NOT_APPLICABLE):
            continue
        control = by_id[verdict.control]
        lines.append(f"{verdict.status} {control.id} {verdict.host or 'fleet'} ({control.severity}): {control.title}")
        lines += [f"  wanted: {verdict.wanted}", f"  saw:    {verdict.saw}", f"  by:     {verdict.command}"]
        if verdict.status is Status.FAIL:
            lines.append(f"  mend:   {mend(control)}")
    counts = Counter(verdict.status for verdict in run.verdicts)
    lines += [f"note: {note}" for note in run.notes]
    lines.append(", ".join(f"{counts[status]} {status}" for status in ORDER if counts[status]))
    return lines


def rank(verdict: Verdict, controls: dict[str, Control]) -> tuple[int, int]:
    return ORDER.index(verdict.status), controls[verdict.control].severity.rank


def mend(control: Control) -> str:
    """What to do: the deploy where a measure does it, else by hand."""
    return f"deploy (measure {control.measure}), or {control.manual_fix}" if control.measure else control.manual_fix
