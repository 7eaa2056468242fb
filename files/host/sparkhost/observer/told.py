"""What the observer last wrote, for the programs that show it: spark-top, spark-why and the metrics. Never raises."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from sparkhost.base import small_files

PATH = "/run/sparkfleet/observer/state.json"
VERSION = 1
KINDS = ("at_once", "driver_burst", "driver_kill", "restarts", "unaccounted", "orphan", "heat", "clock_low")
LARGEST = 1 << 17
STALE = 60.0
"""Seconds; it writes every 10."""


class Told(NamedTuple):
    """Its warnings, a line each, and its figures."""

    lines: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    """Of each line."""
    figures: Mapping[str, int] = MappingProxyType({})
    problem: str = ""
    """Why there are none; "" where there are."""


def read(path: str = "", stale: float = STALE) -> Told:
    """The last state; one that is missing, old or broken is a `problem`."""
    try:
        value = load(path or PATH)
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - float(value["boottime"])
        if value["version"] != VERSION or not -1 <= age <= stale:
            return Told(problem=f"the observer's figures are {age:.0f} s old")
        lines = tuple(printable(f"{a['text']}: {a['remedy']}") for a in value["alarms"])
        kinds = tuple(str(alarm["kind"]) for alarm in value["alarms"])
        figures = {str(name): int(size) for name, size in value["figures"].items()}
        return Told(lines, kinds, figures)
    except FileNotFoundError:
        return Told(problem="the observer does not run on this host")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        return Told(problem=f"the observer's file cannot be read: {type(error).__name__}")


def load(path: str) -> dict[str, Any]:
    """A small JSON object of a file.

    Raises:
        OSError, ValueError: there is none.
    """
    try:
        value = json.loads(small_files.read(path, LARGEST, flags=os.O_NOFOLLOW))
    except RecursionError:
        raise ValueError("not a state") from None
    if not isinstance(value, dict):
        raise ValueError("not a state")
    return value


def warnings(path: str = "") -> list[str]:
    """A line for each warning, for a person; none where it does not run, which others say."""
    return [f"warning: {line}" for line in read(path).lines]


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:400]
