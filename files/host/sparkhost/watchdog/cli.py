"""`spark-watchdog`: the daemon, and looks at what it would do. Every mistake is one line, and exit code 2."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sparkhost.base.pipes import quiet_without_reader
from sparkhost.watchdog import config as configuration
from sparkhost.watchdog.config import BadConfig, Config
from sparkhost.watchdog.freezer import Freezer
from sparkhost.watchdog.loop import Watchdog
from sparkhost.watchdog.meminfo import NoMemAvailable, field
from sparkhost.watchdog.people import People, find_people
from sparkhost.watchdog.pipe import Pipe
from sparkhost.watchdog.rehearse import rehearse
from sparkhost.watchdog.report import amount, plain
from sparkhost.watchdog.survive import lock_memory, stop_collecting
from sparkhost.watchdog.teller import Teller
from sparkhost.watchdog.trace import BadTrace, replay, told
from sparkhost.watchdog.work import MANAGERS, PROTECTED_UNITS, STARTERS

BAD = 2
# The record of what is frozen, in the run-time directory; sparkfleet-thaw reads it.
FROZEN = "frozen"
# EX_CONFIG of sysexits.h: the unit is not started again by it (RestartPreventExitStatus=), a deploy does.
NO_CONFIG = 78
MORE = """\
Users ask spark-why. For admins: what would be ended, what never is, and what other settings would have done.
Exit code: 0, 2 a mistake on the command line, in the configuration or in a trace; 78 (run) no configuration that can
be used: this host is not guarded.

examples:
  spark-watchdog candidates --json
  spark-watchdog check /etc/sparkfleet/watchdog.toml
  spark-watchdog --state-dir /tmp/w --run-dir /tmp/w run --dry-run --record /tmp/w/trace   signals nobody
  spark-watchdog --config other.toml replay /tmp/w/trace
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="spark-watchdog",
        description="Ends the right job before the host freezes.",
        epilog=MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--config", type=Path, metavar="FILE", default=configuration.PATH, help="default: %(default)s")
    top.add_argument("--proc-root", type=Path, default=Path("/proc"), help=argparse.SUPPRESS)
    top.add_argument(
        "--cgroup-root", type=Path, metavar="DIR", default=Path("/sys/fs/cgroup"), help="default: %(default)s"
    )
    top.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        default=Path("/var/lib/sparkfleet/watchdog"),
        help="default: %(default)s",
    )
    top.add_argument(
        "--run-dir", type=Path, metavar="DIR", default=Path("/run/sparkfleet/watchdog"), help="default: %(default)s"
    )
    top.add_argument(
        "--gpu-file",
        type=Path,
        metavar="FILE",
        default=Path("/run/sparkfleet/gpu/sample.json"),
        help="default: %(default)s",
    )
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="watch; what the service runs")
    run.add_argument("--dry-run", action="store_true", help="decide and tell, and signal nobody")
    run.add_argument("--record", type=Path, metavar="TRACE", help="append every decision's samples to a file")
    check = commands.add_parser("check", help="check a configuration for this host")
    check.add_argument("file", help="the file, or - for standard input")
    commands.add_parser("protected", help="what is never ended")
    candidates = commands.add_parser("candidates", help="what could be ended now, the largest first")
    candidates.add_argument("--json", action="store_true", help="for programs; sizes in bytes")
    again = commands.add_parser("replay", help="what the configuration would have decided in a recorded trace")
    again.add_argument("trace", type=Path)
    return top


@quiet_without_reader
def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        total = memory_total(options.proc_root)
        match options.command:
            case "check":
                return check(options.file, total)
            case "replay":
                for samples, action in replay(options.trace, configuration.load(options.config, total).policy):
                    if line := told(samples, action):
                        print(line)
                return 0
            case "run":
                return run(options, total)
        config = configuration.load(options.config, total)
        if options.command == "protected":
            units = (*PROTECTED_UNITS, *MANAGERS, *STARTERS, *config.preferences.protect)
            print("\n".join(("PID 1, the watchdog, and what they came from", *units)))
            return 0
        show_candidates(config, options)
        return 0
    except (BadConfig, BadTrace, NoMemAvailable) as problem:
        print(f"spark-watchdog: {problem}", file=sys.stderr)
    except BrokenPipeError:  # head(1) has seen enough
        return 0
    except OSError as error:
        print(f"spark-watchdog: {error.filename or 'error'}: {error.strerror}", file=sys.stderr)
    return BAD


def memory_total(proc: Path) -> int:
    return field((proc / "meminfo").read_bytes(), b"MemTotal")


def check(file: str, total: int) -> int:
    """Prints what may surprise; a bad file raises `BadConfig`."""
    if file == "-":
        config = configuration.parse(sys.stdin.read(configuration.LARGEST), "watchdog.toml", total)
    else:
        config = configuration.load(Path(file), total)
    for warning in configuration.warnings(config, total):
        print(f"spark-watchdog: warning: {warning}")
    return 0


class Nobody:
    """Takes messages that nobody is told: for a look by hand."""

    def tell(self, message: dict[str, object]) -> None:
        """Forgets it."""

    def tend(self) -> None:
        """Nothing to tend."""


def watchdog_of(
    config: Config,
    options: argparse.Namespace,
    teller: Pipe | Nobody,
    *,
    freezer: Freezer | None = None,
    dry_run: bool = False,
    record: bool = False,
    people: People | None = None,
) -> Watchdog:
    return Watchdog(
        config,
        teller,
        gpu_file=options.gpu_file,
        proc=options.proc_root,
        cgroup_root=options.cgroup_root,
        never=[teller.child] if isinstance(teller, Pipe) else [],
        freezer=freezer,
        dry_run=dry_run,
        record=record,
        people=people,
    )


def freezer_of(options: argparse.Namespace) -> Freezer | None:
    """The brake; None where cgroup v2 or the record cannot be had: then memory is guarded by signals alone."""
    try:
        freezer = Freezer(options.cgroup_root, options.run_dir / FROZEN)
    except OSError as error:
        say(f"there is no brake, work is ended and never paused: {error.filename}: {error.strerror}")
        return None
    if freezer.left:
        say(f"a watchdog before this one had left {len(freezer.left)} cgroups frozen; they go on")
    return freezer


def show_candidates(config: Config, options: argparse.Namespace) -> None:
    watchdog = watchdog_of(config, options, Nobody())
    marked = ("protected", "preferred", "avoided", "alone")
    found = sorted(watchdog.list_candidates(), key=lambda c: c.size, reverse=True)
    if options.json:
        shown = [
            {"size": c.size, "kind": c.kind, "name": c.name, **{mark: bool(getattr(c, mark)) for mark in marked}}
            for c in found
        ]
        print(json.dumps({"candidates": shown, "gpu": watchdog.view.note or None}))
        return
    for candidate in found:
        marks = [mark for mark in marked if getattr(candidate, mark)]
        print(plain(f"{amount(candidate.size):>10}  {candidate.kind:9}  {candidate.name}  {' '.join(marks)}").rstrip())
    if watchdog.view.note:
        print(f"GPU memory is not counted: {watchdog.view.note}")


def run(options: argparse.Namespace, total: int) -> int:
    """The daemon: everything that can fail or wait comes before the loop."""
    for folder in (options.state_dir, options.run_dir):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        config, problem = configuration.load_or_accepted(options.config, options.state_dir, total)
    except BadConfig as refused:
        say(f"not started, this host is NOT GUARDED: {refused}")
        return NO_CONFIG
    if problem:
        say(f"GUARDED BY THE LAST ACCEPTED configuration, {options.state_dir / configuration.ACCEPTED}: {problem}")
    pipe = Pipe(Teller(options.state_dir, options.run_dir, config.textfile, options.record).serve)
    watchdog = watchdog_of(
        config,
        options,
        pipe,
        freezer=freezer_of(options),
        dry_run=options.dry_run,
        record=options.record is not None,
        people=find_people(config.never_frozen),
    )
    watchdog.refused = problem
    # All of the way to a signal is gone once, so that every page of it is there before it is locked.
    rehearse(watchdog)
    stop_collecting()
    if os.geteuid() == 0 and (trouble := lock_memory()):
        say(f"memory is not locked: {trouble}")

    def reload() -> tuple[Config, People] | str:
        try:
            loaded = configuration.load(options.config, total)
        except BadConfig as problem:
            say(f"kept the old configuration: {problem}")
            return str(problem)
        # Looking people up may take two seconds, which there are not while memory is short.
        plenty = watchdog.samples.look.available > 2 * loaded.policy.term_below
        return loaded, find_people(loaded.never_frozen) if plenty else watchdog.people

    watchdog.run(reload)
    pipe.close()
    return 0


def say(text: str) -> None:
    """One line; in the journal, of priority crit (sd-daemon(3))."""
    print(f"{'<2>' if 'JOURNAL_STREAM' in os.environ else ''}spark-watchdog: {text}", file=sys.stderr, flush=True)
