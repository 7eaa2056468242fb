"""`sparkfleet audit runs` and `sparkfleet audit diff`: what is in the store, and what has changed between two runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from sparkfleet.audit.collect import LOCAL
from sparkfleet.audit.diff import diff
from sparkfleet.audit.model import Control, Run
from sparkfleet.audit.report import diff_text
from sparkfleet.audit.store import Store, default_folder
from sparkfleet.audit.text import visible
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.site import use

JudgeAgain = Callable[[argparse.Namespace, Run], Run]
"""A run with the verdicts that today's controls give its evidence. Raises what a command may."""

DIFF = """\
Compares two runs of the store: what newly fails, whose waiver has expired, what is no longer seen, what was fixed, and
which hosts and controls have come or gone. The exit code is 2 if anything got worse, else 0."""


def add_arguments(commands: Any, controls: Sequence[Control] = (), judge_again: JudgeAgain | None = None) -> None:
    """Adds the subcommands `runs` and `diff` to those of `sparkfleet audit`.

    With `judge_again`, `diff` has the option `--judge-again`; the arguments of the command are handed to it.
    """
    runs = commands.add_parser("runs", help="list the runs that are kept", description="Lists the runs, newest first.")
    runs.add_argument("--count", type=positive, default=20, metavar="N", help="so many of the newest (default: 20)")
    runs.set_defaults(run=list_runs)

    compare = commands.add_parser("diff", help="what has changed between two runs", description=DIFF)
    compare.add_argument(
        "old", nargs="?", metavar="OLD", help="id, or its beginning (default: the run of the same fleet before NEW)"
    )
    compare.add_argument(
        "new", nargs="?", default="latest", metavar="NEW", help="id, its beginning, or latest (default)"
    )
    compare.add_argument("--json", action="store_true", help="write JSON, as hooks get it")
    if judge_again:
        compare.add_argument(
            "--judge-again",
            action="store_true",
            help="judge both runs by today's controls first: only hosts differ then",
        )
    compare.set_defaults(run=partial(compare_runs, controls=controls, judge_again=judge_again), judge_again=False)
    for parser in (runs, compare):
        parser.add_argument(
            "--store", type=Path, metavar="DIR", help=f"where runs are kept (default: {shown(default_folder())})"
        )


def shown(path: Path) -> str:
    """A path for a help text: below the home directory with ~, and with % as argparse wants it."""
    home = Path.home()
    text = f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
    return visible(text).replace("%", "%%")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number from 1 on")
    return int(text)


def list_runs(arguments: argparse.Namespace) -> ExitCode:
    """Prints a line a run: id, totals, fleet file. Raises CommandFailed where the store cannot be read."""
    store = Store(arguments.store)
    for at, stored in enumerate(store.runs()):
        if at == arguments.count:
            break
        totals = ", ".join(f"{count} {status}" for status, count in stored.totals.items() if count) or "no verdicts"
        print(f"{stored.id}  {visible(stored.fleet_file)}  {visible(totals)}")
    return ExitCode.CLEAN


def compare_runs(
    arguments: argparse.Namespace, *, controls: Sequence[Control], judge_again: JudgeAgain | None
) -> ExitCode:
    """Prints what has changed.

    Raises:
        CommandFailed: there is no such run, none before it, or its file is damaged.
        FleetError: the project of its fleet file has mistakes.
    """
    store = Store(arguments.store)
    new = store.load(arguments.new)
    old = store.load(arguments.old) if arguments.old else store.before(new)
    if old is None:
        text = f"{store.folder}: there is no run of {visible(new.fleet_file)} before {new.id}: name one"
        raise CommandFailed(text, ExitCode.BAD_CONFIGURATION)
    use(Path.cwd() if new.fleet_file == LOCAL else Path(new.fleet_file).absolute().parent)  # a site's own controls
    if judge_again and arguments.judge_again:
        old, new = judge_again(arguments, old), judge_again(arguments, new)
    found = diff(old, new, controls)
    if arguments.json:
        sys.stdout.write(diff_text.dumps(found))
    else:
        Console().print(diff_text.render(found))
    return ExitCode.DRIFT if found.worse else ExitCode.CLEAN
