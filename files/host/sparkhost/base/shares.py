"""Shares of this host's memory, worked out here: the controller, which renders files, knows no host's memory.

A request has words in the place of such sizes, alone or within a file's content: of the unit (bytes), so many of a part
of the memory (`word`). The fleet file's `auto` and `80%` are such parts (`sparkfleet.settings.shares`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

MIB = 2**20
DIGITS = 5
"""MemTotal is rounded to so many binary digits: 119.7 to 121.7 GiB of a Spark count as 120."""
MARK = "@share:"
# In JSON the word stands in quotes, which go with it: what comes in its place is a number.
WORD = re.compile(rf'(")?{MARK}([0-9]{{1,6}})/([1-9][0-9]{{0,5}}):([1-9][0-9]{{0,9}})@(?(1)")')
TERM_BELOW, KILL_BELOW = (2, 15), (1, 15)
"""What the watchdog keeps available where nothing is set: 16 and 8 GiB of 120."""


def word(numerator: int, denominator: int, unit: int = 1) -> str:
    """What a host replaces by this part of its memory, in units of so many bytes."""
    return f"{MARK}{numerator}/{denominator}:{unit}@"


def part(total: int, numerator: int, denominator: int) -> int:
    """Bytes of this part of so much memory (MemTotal, bytes), a whole number of MiB."""
    step = 1 << max(total.bit_length() - DIGITS, 0)
    counted = (total + step // 2) // step * step
    return counted * numerator // denominator // MIB * MIB


def settled(value: Any, total: Callable[[], int]) -> Any:
    """A value of JSON with the words replaced. `total`: MemTotal in bytes, asked for only where there is a word."""

    def count(match: re.Match[str]) -> int:
        numerator, denominator, unit = map(int, match.group(2, 3, 4))
        return part(total(), numerator, denominator) // unit

    if isinstance(value, dict):
        return {key: settled(one, total) for key, one in value.items()}
    if isinstance(value, list):
        return [settled(one, total) for one in value]
    if not isinstance(value, str) or MARK not in value:
        return value
    if whole := WORD.fullmatch(value):
        return count(whole)
    return WORD.sub(lambda match: str(count(match)), value)
