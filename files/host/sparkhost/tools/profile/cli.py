"""The command `spark-profile`."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sparkhost.base.headroom import MARGIN, term_below
from sparkhost.base.pipes import quiet_without_reader
from sparkhost.base.units import GIB, Mistake, parse_duration, parse_size, show_size
from sparkhost.tools.profile import command, peers, recipe
from sparkhost.tools.profile.results import CSV, JSON, PLOT, Series, Store
from sparkhost.tools.profile.sample import Memory
from sparkhost.tools.profile.step import Limits
from sparkhost.tools.profile.sweep import Profile

PROGRAM = "spark-profile"
EPILOG = """\
The command is run once for each value of the placeholder that is varied, smallest first; each run should be short (some
steps of training). It stops before a value that is expected to leave less than the headroom, and ends a run that gets
there all the same. Each run is a job of spark-run. Results lie in the directory of --out: results.json, results.csv,
plot.svg, a log a run. Called again with the same command, it goes on where it stopped.

examples:
  spark-profile --recipe sft
  spark-profile --set length=2048 --total-batch 32 -- uv run python train.py --batch {batch} --max_seq_length {length}
  spark-profile --recipe allocate --vary batch=1,2,4 --plain
  spark-profile --peers spark-02 -- torchrun --nnodes {hosts} --node-rank {rank} --master-addr {master} \\
      --nproc-per-node 1 train.py --batch {batch}

Exit code: 0 something is recommended; 1 nothing is; 2 a mistake. How to read the results: docs/methodology.md."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [OPTIONS] (--recipe NAME | -- COMMAND with {{batch}})",
        description="Finds which batch a training command can have on this host, by trying.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--recipe", metavar="NAME", help="a ready command instead; a path is a file of your own")
    made.add_argument(
        "--vary", metavar="NAME=VALUES", help="batch=1:64 doubles, batch=1,2,3 lists; default batch=1:256"
    )
    made.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another placeholder's value")
    made.add_argument("--out", type=Path, default=Path("spark-profile"), metavar="DIR", help="default: ./%(default)s")
    made.add_argument("--anew", action="store_true", help="forget what the directory holds")
    made.add_argument("--again", action="store_true", help="try values again that did not end well")
    made.add_argument(
        "--headroom",
        metavar="SIZE",
        help="must stay available; default: a quarter more than this host's term_below",
    )
    made.add_argument("--memory", metavar="SIZE", help="cap of each job; default: what training.slice has")
    made.add_argument("--time", default="30min", metavar="TIME", help="of each run, at most; default %(default)s")
    made.add_argument("--rate", type=rate, default=50.0, metavar="HZ", help="looks a second, 20 to 1000; default 50")
    made.add_argument(
        "--by",
        choices=("available", "processes"),
        default="available",
        help="available: the fall of MemAvailable, which sees CUDA memory on a Spark; processes: what the run's "
        "processes hold, for hosts where others work meanwhile",
    )
    made.add_argument(
        "--peers",
        metavar="HOSTS",
        help="other hosts that have a part of each run, such as spark-02,spark-03: by ssh, in this directory; the "
        "command then has {rank}, and may have {hosts} and {master}",
    )
    made.add_argument(
        "--torch",
        action="store_true",
        help="ask PyTorch at each process's end what of it was in use, and what its allocator had reserved "
        "(a sitecustomize on PYTHONPATH)",
    )
    made.add_argument("--total-batch", type=int, metavar="N", help="say which accumulation makes N of the batch")
    made.add_argument("--plain", action="store_true", help="run the command itself, not as a job: nothing caps it")
    made.add_argument("--json", action="store_true", help="the results to standard output, for programs")
    return made


def rate(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 20 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"got {word!r}, expected 20 to 1000 looks a second")
    return value


def series_of(
    options: argparse.Namespace, given: list[str], total: int
) -> tuple[Series, list[int], recipe.Recipe | None]:
    """What is to be profiled, the values, and the recipe where it is one.

    Raises:
        Mistake: options that do not go together.
    """
    if bool(options.recipe) == bool(given):
        raise Mistake(f"expected --recipe NAME or -- COMMAND, see {PROGRAM} --help")
    settings: dict[str, str] = {}
    ready: recipe.Recipe | None = None
    template, vary = given, options.vary or "batch=1:256"
    if options.recipe:
        ready = recipe.read(options.recipe)
        template, vary, settings = ready.template, options.vary or ready.vary, dict(ready.settings)
    settings |= dict(command.parse_set(word) for word in options.set)
    name, values = command.parse_vary(vary)
    if name in settings:
        raise Mistake(f"--set: {name} is varied: leave one of them out")
    if options.peers:
        peers.parse(options.peers)
        if set(settings) & {"rank", "hosts"}:
            raise Mistake("--set: rank and hosts are given by --peers: leave them out")
        command.check(template, [name, "rank", *settings])
    else:
        command.check(template, [name, *settings])
    if options.total_batch is not None and options.total_batch < 1:
        raise Mistake(f"--total-batch: got {options.total_batch}, expected a whole number above 0")
    return Series(template, name, settings, options.by, total, options.peers or ""), values, ready


def report(summary: dict[str, Any], vary: str, directory: Path) -> list[str]:
    """For a person."""
    found = [summary["stopped"]] if summary["stopped"] else []
    found += summary["notes"]
    if line := summary["line"]:
        found.append(
            f"peak = {line['base'] / GIB:.2f} GiB + {line['slope'] / GIB:.3f} GiB x {vary}; points are at most "
            f"{line['worst'] / GIB:.2f} GiB off, R2 {line['r2']:.4f}"
        )
    if summary["recommended"]:
        found.append(
            f"recommended: {vary} {summary['recommended']}, the largest that was measured and leaves "
            f"{show_size(summary['headroom'])}"
        )
        if summary["reach"] and summary["reach"] > summary["recommended"]:
            found.append(f"the line says up to {summary['reach']}, which was not measured: --vary {vary}=...")
        if summary["accumulation"]:
            size, steps = summary["accumulation"]
            found.append(f"total batch {size * steps}: batch {size}, gradient accumulation {steps}")
    else:
        found.append("nothing is recommended: no value ran and left the headroom")
    return [*found, f"results: {directory}/{JSON}, {CSV}, {PLOT}"]


@quiet_without_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, 1 where nothing can be recommended, 2 for a mistake; 130 after Ctrl-C, with the results so far."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    end = words.index("--") if "--" in words else len(words)
    options = parser().parse_args(words[:end])
    memory = Memory()
    try:
        series, values, ready = series_of(options, words[end + 1 :], memory.read("MemTotal"))
        floor = named("--headroom", options.headroom) if options.headroom else int(term_below() * MARGIN)
        limits = Limits(floor, duration(options.time), options.rate)
        if options.memory:
            named("--memory", options.memory)
        store = Store(options.out, series)
        store.load(options.anew)
        profile = Profile(store, limits, options, memory, ready)
        if profile.room == 0:
            raise Mistake(
                f"--headroom: {show_size(memory.read('MemAvailable'))} are available, and {show_size(limits.floor)} "
                "are to stay so: there is no room for a run (spark-top shows who holds the rest)"
            )
        try:
            with store.alone(), until_told():
                stopped, code = profile.go(values), 0
        except KeyboardInterrupt:
            store.forget_unfinished()
            stopped, code = "interrupted: called again, it goes on", 130
        summary = profile.summary(stopped)
        profile.publish(summary)
    except Mistake as mistake:
        print(f"{PROGRAM}: {mistake}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{PROGRAM}: {error.filename or options.out}: {error.strerror}", file=sys.stderr)
        return 2
    finally:
        memory.close()
    if options.json:
        print(json.dumps(store.document(), indent=1))
    else:
        print("\n".join(report(summary, series.vary, options.out)))
    return code or (0 if summary["recommended"] else 1)


@contextlib.contextmanager
def until_told() -> Iterator[None]:
    """Takes SIGTERM and SIGHUP for Ctrl-C: a run must not go on when nobody looks any more."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def named(option: str, word: str) -> int:
    try:
        return parse_size(word)
    except Mistake as mistake:
        raise Mistake(f"{option}: {mistake}") from None


def duration(word: str) -> float:
    try:
        return float(parse_duration(word))
    except Mistake as mistake:
        raise Mistake(f"--time: {mistake}") from None
