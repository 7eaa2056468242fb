"""Who the people of this host are: whose logins are never frozen, and to whom the user numbers of containers belong.

Read at the start and with each new configuration, never while memory is short.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sparkhost.watchdog.owners import Range, read_ranges
from sparkhost.watchdog.spared import find_spared


@dataclass(frozen=True, slots=True)
class People:
    """`spared`: user numbers whose logins are never frozen. `ranges`: user numbers that were lent (subuid(5))."""

    spared: frozenset[int] = frozenset((0,))
    ranges: tuple[Range, ...] = ()


def find_people(never_frozen: Collection[str], etc: Path = Path("/etc")) -> People:
    """`never_frozen`: accounts, and groups as `@sudo`. Takes two seconds at most, whatever a directory service does."""
    return People(find_spared(never_frozen, etc), read_ranges(etc))
