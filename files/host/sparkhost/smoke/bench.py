"""`spark-stack smoke --bench`: five seconds on the GPU, against what this host did the first time.

The reference is root's first result on a GPU of that name, and stays until root asks for another: a host that grows
slow by and by is compared with what it was, not with yesterday.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparkhost.base import bounded
from sparkhost.base.files import make_directories, write_atomic
from sparkhost.base.resource import Failed
from sparkhost.smoke import child
from sparkhost.smoke.bench_step import MARK
from sparkhost.smoke.matrix import NOT_SEEN, plain
from sparkhost.stack.store import SMOKE

STEP = Path(__file__).with_name("bench_step.py")
SECONDS = 120.0
"""Most that it may take; the first import of torch from a cold disk is most of it."""
FILE = "bench.json"
TITLES = {"gemv": "a matrix times a vector", "copy": "a copy"}
DRIFT = 0.8
"""Share of the reference under which it is slower; in the reported slow state 30 % of a product's rate is left."""
NEW = "--new-reference"


class NoAnswer(Exception):
    """Nothing was measured. One line."""


def measured(python: str, seconds: float = SECONDS, step: Path = STEP) -> dict[str, Any] | None:
    """What the step says; None where there is no GPU. Raises NoAnswer."""
    ended = child.run([python, "-I", str(step)], seconds)
    if ended is None:
        raise NoAnswer(f"no answer within {seconds:.0f} s: killed")
    if ended.code == NOT_SEEN:
        return None
    if ended.code:
        last = next((line for line in reversed(ended.error.splitlines()) if line.strip()), "it printed nothing")
        raise NoAnswer(plain(f"exit code {ended.code}: {last.strip()}"))
    found = of_step([line.removeprefix(MARK) for line in ended.out.splitlines() if line.startswith(MARK)])
    if found is None:
        raise NoAnswer("it printed something else than figures")
    return found


def of_step(lines: Sequence[str]) -> dict[str, Any] | None:
    """The figures of one line; None where they are none."""
    try:
        (line,) = lines
        value = json.loads(line)
        figures = {name: float(value[name]["median"]) for name in TITLES}
        slowest = {name: float(value[name]["slowest"]) for name in TITLES}
        names = {"gpu": plain(str(value["gpu"]), 96), "torch": plain(str(value["torch"]), 40)}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not names["gpu"] or not all(0 < rate < 1e6 for rate in (*figures.values(), *slowest.values())):
        return None
    return {**names, "median": figures, "slowest": slowest}


def reference(folder: Path) -> dict[str, Any] | None:
    """The first result; None where there is none, or the file is none of ours."""
    try:
        value = json.loads(bounded.read_text(folder / FILE))["reference"]
        rates = {name: float(value["median"][name]) for name in TITLES}
        usable = isinstance(value["gpu"], str) and all(rate > 0 for rate in rates.values())
    except (OSError, ValueError, KeyError, TypeError, RecursionError, Failed):
        return None
    return {**value, "median": rates} if usable else None


def verdicts(now: dict[str, Any], was: dict[str, Any]) -> dict[str, float]:
    """The share of the reference that is left, by what was measured."""
    return {name: now["median"][name] / was["median"][name] for name in TITLES}


def lines(now: dict[str, Any], was: dict[str, Any] | None) -> list[str]:
    """For a person."""
    told = [f"{now['gpu']}, torch {now['torch']}"]
    for name, title in TITLES.items():
        line = f"  {title:<24} {now['median'][name]:8.1f} GB/s, at worst {now['slowest'][name]:.1f}"
        if was:
            line += f"; {now['median'][name] / was['median'][name]:.0%} of the reference"
        told.append(line)
    if was is None:
        told.append("  there is no reference yet: root's first run on this GPU is it")
        return told
    told.append(f"  reference: {plain(str(was.get('time', '?')), 40)}, torch {plain(str(was.get('torch', '?')), 40)}")
    left = verdicts(now, was)
    if left["gemv"] < DRIFT <= left["copy"]:
        told.append(
            "  SLOWER: products but not copies, the slow state at full clock that Sparks are reported to fall into: "
            "end the jobs, shut down, pull the plug for a minute"
        )
    elif min(left.values()) < DRIFT:
        told.append(
            "  SLOWER: does another program use the GPU? Else heat or power: sparkfleet audit --control 'SPK-HEAT-*', "
            "spark-doctor"
        )
    return told


def keep(now: dict[str, Any], was: dict[str, Any] | None, folder: Path) -> None:
    """Notes this result, and it as the reference where there is none. Raises OSError."""
    make_directories(folder)
    value = {"version": 1, "reference": was or now, "last": now}
    write_atomic(folder / FILE, (json.dumps(value, indent=1) + "\n").encode(), 0o644)


def main(python: str, release: str, words: Sequence[str], folder: Path = SMOKE) -> int:
    """Exit code 0, 1 where it is slower than the reference or failed, 2 where it is not root's, 3 without a GPU."""
    if NEW in words and os.geteuid() != 0:
        print(f"spark-stack: {NEW} is for root, who keeps the reference of this host: sudo", file=sys.stderr)
        return 2
    try:
        found = measured(python)
    except NoAnswer as problem:
        print(f"spark-stack: {problem}", file=sys.stderr)
        return 1
    if found is None:
        print("spark-stack: nothing was measured: there is no GPU that torch can use", file=sys.stderr)
        return NOT_SEEN
    now = {**found, "release": release, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    was = None if NEW in words else reference(folder)
    if was and was["gpu"] != now["gpu"]:
        was = None
    if os.geteuid() == 0:
        keep(now, was, folder)
    print(json.dumps({**now, "reference": was}, indent=1) if "--json" in words else "\n".join(lines(now, was)))
    return 1 if was and min(verdicts(now, was).values()) < DRIFT else 0
