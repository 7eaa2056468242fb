"""The list of versions that are reported to fail, kept by hand in known_bad.toml. The same on all hosts."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

OLD = 120
"""Days after which the list says of itself that nobody has looked through it for long."""


@dataclass(frozen=True)
class Known:
    """One report. `versions`: shell patterns for the whole version."""

    kind: str
    versions: tuple[str, ...]
    what: str
    source: str
    reported: date
    until: str = ""

    def fits(self, version: str) -> bool:
        return any(fnmatchcase(version, pattern) for pattern in self.versions)


@dataclass(frozen=True)
class Listing:
    """All reports, and when somebody last looked whether they still hold."""

    known: tuple[Known, ...]
    checked: date

    def age(self, today: date) -> str:
        """In words: of when it is, and that it is old."""
        days = (today - self.checked).days
        old = f", {days} days old: a newer sparkfleet may know more" if days > OLD else ""
        return f"list of {self.checked}{old}"


@cache
def listing() -> Listing:
    """The list of this version."""
    raw = tomllib.loads((files("sparkfleet.audit") / "known_bad.toml").read_text("utf-8"))
    known = (Known(**{**entry, "versions": tuple(entry["versions"])}) for entry in raw["known"])
    return Listing(tuple(known), raw["checked"])
