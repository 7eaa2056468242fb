"""The last day of this host, a sample a minute, from what keeps it; nothing where nothing does.

`KEEPERS` are functions that give the samples since a time, the oldest first. Who keeps such samples on a
host adds its reader here; nothing else of the status has to know how they are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

MOST = 24 * 60


class Minute(NamedTuple):
    """A sample. `at`: seconds since the epoch; the others in bytes, `gpu` None where it was not known."""

    at: float
    available: int
    cpu: int
    gpu: int | None


Keeper = Callable[[float], Iterable[Minute]]
KEEPERS: list[Keeper] = []


def minutes(since: float) -> list[Minute]:
    """The samples after `since`, of the first keeper that has any; a keeper that fails has none."""
    for keeper in KEEPERS:
        try:
            found = [minute for minute in keeper(since) if minute.at > since][-MOST:]
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if found:
            return found
    return []
