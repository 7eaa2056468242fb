"""The command `spark-doctor`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sparkhost.doctor import host, nvidia, process, project, stack, text
from sparkhost.doctor.finding import Finding, lines, plain, sorted_by_weight
from sparkhost.doctor.venv import Venv, is_venv, text_of, venv_of
from sparkhost.launcher.units import Mistake

PROGRAM = "spark-doctor"
LARGEST = 1 << 22
EPILOG = """\
A target is
  a directory   a virtual environment, or a project: its sources, and the .venv or venv in it
  a number      a running process of yours, with the venv that it runs in
  a file, or -  a text with an error, pasted or from a log
Without a target: this host, and the venv that is active ($VIRTUAL_ENV).

"broken" fails, or endangers the host; "warning" may; "note" is harmless, but looks as if it were not.
Exit code: 0 nothing worse than notes, 1 something, 2 a mistake on the command line. Nothing is changed, and nothing
that is looked at is run. Every finding: docs/doctor.md.

examples:
  spark-doctor
  spark-doctor ~/open-instruct
  spark-doctor $(pgrep -n -u $USER python)
  uv run python train.py 2>&1 | tee log; spark-doctor log"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Finds what goes wrong with CUDA and training on a Spark, and says what to do.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("targets", nargs="*", metavar="TARGET", help="a directory, a process number, a file, or -")
    made.add_argument("--host", action="store_true", help="look at this host as well")
    made.add_argument("--json", action="store_true", help="for programs")
    return made


def venv_findings(venv: Venv, environment: dict[str, str]) -> Iterator[Finding]:
    """Of a venv.

    Raises:
        Mistake: it holds no packages that could be looked at.
    """
    if not venv.sites:
        raise Mistake(f"{venv.path}: has no lib/python3.*/site-packages: is it a virtual environment?")
    yield from stack.look(venv, environment)


def of_directory(path: Path) -> Iterator[Finding]:
    venv = venv_of(path)
    if venv:
        yield from venv_findings(venv, dict(os.environ))
    if not is_venv(path):
        yield from project.look(path)


def of_process(pid: int) -> Iterator[Finding]:
    found = process.read(pid)
    yield from process.look(found)
    venv = process.venv_of(found)
    if venv:
        yield from venv_findings(venv, dict(found.environment))


def of_target(word: str) -> Iterator[Finding]:
    """Of one target.

    Raises:
        Mistake: there is no such thing.
    """
    path = Path(word)
    if word == "-":
        yield from text.look(sys.stdin.read(LARGEST), "the text")
    elif word.isdecimal() and not path.exists():
        yield from of_process(int(word[:10]))
    elif path.is_dir():
        yield from of_directory(path.resolve())
    elif path.is_file():
        yield from text.look(text_of(path, LARGEST), word)
    else:
        raise Mistake(f"{plain(word)}: no such directory, file or process; a pasted text goes to: {PROGRAM} -")


def of_host() -> Iterator[Finding]:
    yield from host.look()
    yield from nvidia.look()


def look(targets: Sequence[str], with_host: bool) -> Iterator[Finding]:
    for target in targets:
        yield from of_target(target)
    if with_host or not targets:
        yield from of_host()
    if not targets and (active := os.environ.get("VIRTUAL_ENV")):
        yield from of_directory(Path(active))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, 1 where something is wrong, 2 for a mistake."""
    options = parser().parse_args(arguments)
    try:
        found = sorted_by_weight(look(options.targets, options.host))
    except Mistake as mistake:
        print(f"{PROGRAM}: {mistake}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({"version": 1, "findings": [finding._asdict() for finding in found]}, indent=2))
    else:
        for finding in found:
            print("\n".join(lines(finding)))
        if not found:
            print(f"{PROGRAM}: nothing is wrong with what was looked at")
    return 1 if any(finding.weight != "note" for finding in found) else 0
