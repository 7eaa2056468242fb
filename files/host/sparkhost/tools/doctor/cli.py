"""The command `spark-doctor`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sparkhost.base.pipes import quiet_without_reader
from sparkhost.base.units import Mistake
from sparkhost.tools.doctor import host, job, nvidia, process, project, stack, text
from sparkhost.tools.doctor.finding import Finding, lines, plain, sorted_by_weight
from sparkhost.tools.doctor.text import Unknown
from sparkhost.tools.doctor.venv import Venv, is_venv, venv_of

PROGRAM = "spark-doctor"
UNKNOWN = 3
EPILOG = """\
A target is
  a directory   a virtual environment, or a project: its sources, and the .venv or venv in it
  a number      a running process of yours, with the venv that it runs in
  a file, or -  a text with an error, pasted or from a log, of which the end is read
  job ID        a job of yours: its log, its end, and what the watchdog did to it
Without a target: this host, and the venv that is active ($VIRTUAL_ENV).

"broken" fails, or endangers the host; "warning" may; "note" is harmless, but looks as if it were not.
Exit code: 0 nothing worse than notes, 1 something, 2 a mistake on the command line, 3 a text without a known error.
Nothing is changed, and nothing that is looked at is run. Every finding: docs/doctor.md.

examples:
  spark-doctor
  spark-doctor ~/open-instruct
  spark-doctor $(pgrep -n -u $USER python)
  uv run python train.py 2>&1 | tee log; spark-doctor log
  spark-doctor --last"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Finds what goes wrong with CUDA and training on a Spark, and says what to do.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("targets", nargs="*", metavar="TARGET", help="a directory, a process number, a file, or -")
    made.add_argument("--last", action="store_true", help="the last job of yours")
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


def of_text(content: str, where: str) -> Iterator[Finding | Unknown]:
    found = list(text.look(content, where))
    yield from found
    if not found:
        yield text.unknown(content, where)


def of_target(word: str) -> Iterator[Finding | Unknown]:
    """Of one target.

    Raises:
        Mistake: there is no such thing, or it cannot be read.
    """
    path = Path(word)
    if word == "-":
        yield from of_text(text.read_end(sys.stdin.buffer), "the text")
    elif word.isdecimal() and not path.exists():
        yield from of_process(int(word[:10]))
    elif path.is_dir():
        yield from of_directory(path.resolve())
    elif path.is_file():
        try:
            content = text.read_file(path)
        except OSError as error:
            raise Mistake(f"{plain(word)}: {error.strerror}") from None
        yield from of_text(content, word)
    else:
        raise Mistake(f"{plain(word)}: no such directory, file or process; a pasted text goes to: {PROGRAM} -")


def of_host() -> Iterator[Finding]:
    yield from host.look()
    yield from nvidia.look()


def look(targets: Sequence[str], last: bool, with_host: bool) -> Iterator[Finding | Unknown]:
    """Of all that was asked for."""
    words = list(targets)
    if last:
        yield from job.look(job.find(None))
    if words[:1] == ["job"] and len(words) > 1:
        yield from job.look(job.find(words[1]))
        words = words[2:]
        with_host = True
    for word in words:
        yield from of_target(word)
    if with_host or last or not targets:
        yield from of_host()
    if not targets and not last and (active := os.environ.get("VIRTUAL_ENV")):
        yield from of_directory(Path(active))


def show(found: Sequence[Finding], unknown: Sequence[Unknown]) -> None:
    """For a person."""
    for finding in found:
        print("\n".join(lines(finding)))
    for nothing in unknown:
        last = "; its last lines that look like errors:" if nothing.lines else ", and no line looks like one"
        print(f"{PROGRAM}: {plain(nothing.where)}: no known error in this text{last}")
        for line in nothing.lines:
            print(f"  {plain(line)}")
    if not found and not unknown:
        print(f"{PROGRAM}: nothing is wrong with what was looked at")


@quiet_without_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, 1 where something is wrong, 2 for a mistake, 3 where a text holds no known error."""
    options = parser().parse_args(arguments)
    try:
        seen = list(look(options.targets, options.last, options.host))
    except Mistake as mistake:
        print(f"{PROGRAM}: {mistake}", file=sys.stderr)
        return 2
    found = sorted_by_weight(item for item in seen if isinstance(item, Finding))
    unknown = [item for item in seen if isinstance(item, Unknown)]
    try:
        if options.json:
            texts = [nothing._asdict() for nothing in unknown]
            document = {"version": 1, "findings": [finding._asdict() for finding in found], "unknown": texts}
            print(json.dumps(document, indent=2))
        else:
            show(found, unknown)
        sys.stdout.flush()
    except BrokenPipeError:  # head(1) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if any(finding.weight != "note" for finding in found):
        return 1
    return UNKNOWN if unknown else 0
