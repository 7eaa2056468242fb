"""The last day of this host, a sample a minute, from what keeps it; nothing where nothing does.

`KEEPERS` are functions that give the samples since a time, the oldest first. Who keeps such samples on a
host adds its reader here; nothing else of the status has to know how they are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from sparkhost.observer import ring

MOST = 24 * 60


class Minute(NamedTuple):
    """A sample. `at`: seconds since the epoch; the others in bytes, `gpu` None where it was not known."""

    at: float
    available: int
    cpu: int
    gpu: int | None


Keeper = Callable[[float], Iterable[Minute]]


def of_ring(since: float, path: str = ring.PATH) -> Iterator[Minute]:
    """The observer's ring, for root. Of a minute it has the least that was available, and the largest processes.

    The GPU's side is what those hold there: less than all where more than five are on it.

    Raises:
        OSError: there is none, or it may not be read.
    """
    for sample in ring.read(path)[1]:
        if sample.time > since and sample.total is not None and sample.available is not None:
            used = max(0, sample.total - sample.available)
            gpu = min(used, sum(holder.gpu for holder in sample.holders))
            yield Minute(round(sample.time, 1), sample.available, used - gpu, gpu)


KEEPERS: list[Keeper] = [of_ring]


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
