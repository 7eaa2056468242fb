"""Before a job starts: is there the memory that it asks for, who holds it if not, and would dropping the cache help?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from sparkhost.base.units import GIB, show_size
from sparkhost.launcher import gpu
from sparkhost.launcher.client import Trouble, ask
from sparkhost.launcher.holders import Holder, holders, meminfo, table
from sparkhost.launcher.request import DropCache


class Finding(NamedTuple):
    """What the look at the memory says. `short`: too little available; `cached`: enough, but much is page cache."""

    short: bool
    cached: bool
    lines: tuple[str, ...]


def judge(need: int, memory: dict[str, int], found: Callable[[], Sequence[Holder]]) -> Finding:
    """Compares what is asked for with what is there; bytes, as in /proc/meminfo. `found`: asked where too little is.

    MemAvailable sees CUDA memory; MemFree leaves out page cache, as the CUDA runtime does when it says what is free.
    """
    available, free = memory.get("MemAvailable", 0), memory.get("MemFree", 0)
    if available < need:
        text = f"{show_size(need)} are asked for, but {show_size(available)} are available"
        hint = "who holds the rest (spark-top shows all):"
        return Finding(True, False, (text, hint, *table([h for h in found() if h.total >= GIB][:8])))
    if free < need:
        return Finding(
            False,
            True,
            (
                f"{show_size(available)} are available, but {show_size(available - free)} of that are page cache, "
                "which CUDA does not count as free",
            ),
        )
    return Finding(False, False, ())


def look(need: int) -> Finding:
    return judge(need, meminfo(), lambda: holders(samples=gpu.by_process()))


def drop_cache() -> None:
    """Has the helper drop the page cache; that it may not, or not yet, is told and no reason to stop."""
    try:
        ask(DropCache())
    except Trouble as trouble:
        print(f"spark-run: page cache: {trouble}", file=sys.stderr)


def check(need: int, mode: Literal["warn", "refuse", "off"] | str, drop: bool, interactive: bool) -> None:
    """Warns, or refuses, and offers what helps.

    Raises:
        Trouble: too little memory is available, and that is a reason to stop.
    """
    if mode == "off":
        return
    finding = look(need)
    if finding.cached and (drop or (interactive and asked("drop the page cache now?", finding.lines))):
        drop_cache()
        return
    if finding.short and mode == "refuse":
        raise Trouble("\n".join([*finding.lines, "not started: wait, ask for less (--need), or --no-preflight"]))
    if finding.short:
        for line in finding.lines:
            print(f"spark-run: {line}", file=sys.stderr)


def asked(question: str, lines: Sequence[str]) -> bool:
    """Whether the user says yes."""
    for line in lines:
        print(f"spark-run: {line}", file=sys.stderr)
    print(f"spark-run: {question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
