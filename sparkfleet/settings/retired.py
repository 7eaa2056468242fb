"""Settings of earlier versions, and what to write instead: a fleet file of theirs gets a line that says so.

A setting that is renamed or dropped leaves its key here for good: whoever skips ten versions reads it once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparkfleet.settings.problems import Path, dotted


@dataclass(frozen=True)
class Retired:
    """A key that is no more."""

    since: str
    """The version that does not know it any more."""
    instead: str
    """What to write instead, or that nothing is to be written: `write swap.margin: 16GiB`."""


RETIRED: Mapping[str, Retired] = {}
"""Settings as `MEASURE.KEY`, those of a host as `hosts.NAME.KEY` with a literal NAME, those of the file as `KEY`."""


def key_of(path: Path) -> str:
    """The key of a place in the fleet file, without the level at which it was set."""
    match path:
        case ("defaults", *rest):
            found = rest
        case ("groups", _, *rest):
            found = rest
        case ("hosts", _, "settings", *rest):
            found = rest
        case ("hosts", _, *rest):
            found = ["hosts", "NAME", *rest]
        case _:
            found = list(path)
    return dotted(tuple(found))


def retired(path: Path) -> str | None:
    """What is to be said of a key at this place; None where no version ever had it."""
    found = RETIRED.get(key_of(path))
    return f"was retired in sparkfleet {found.since}: {found.instead}" if found else None
