"""Profiles: what a stack is asked to be (`files/stack/NAME/pyproject.toml`), and the locks beside it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparkfleet import places
from sparkfleet.exit_codes import CommandFailed, ExitCode
from sparkfleet.stack.lock import BadLock, Lock, parse

PROFILES = places.FILES / "stack"
INPUT = "pyproject.toml"
COMMIT = "{commit}"
"""Stands in an input for the commit that the admin names."""


@dataclass(frozen=True)
class Profile:
    """What a profile's input says beside its requirements."""

    name: str
    folder: Path
    text: str
    """The input, whole."""
    python: str
    """The CPython release that is resolved for, such as 3.12."""
    interpreter: str
    """The Python of the host that the stack is built on."""
    glibc: str
    machines: tuple[str, ...]
    sources: frozenset[str]
    """Distributions that come from an index of their own or from a URL."""
    fallback: dict[str, str]
    """Distribution → where its wheel lies as well."""

    @property
    def wants_commit(self) -> bool:
        return COMMIT in self.text

    def lock_path(self, machine: str) -> Path:
        return self.folder / f"lock.{machine}.txt"

    def lock(self, machine: str) -> Lock | None:
        """The lock for an architecture; None where there is none yet.

        Raises:
            BadLock: it cannot be read, or is another profile's.
        """
        path = self.lock_path(machine)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        where = str(path.relative_to(self.folder.parents[2])) if self.folder.parent == PROFILES else str(path)
        lock = parse(text, where)
        if (lock.profile, lock.machine) != (self.name, machine):
            raise BadLock(f"{where}: is the lock of {lock.profile} for {lock.machine}")
        return lock

    def locks(self) -> dict[str, Lock]:
        """All locks that are there, by architecture. Raises BadLock."""
        return {machine: lock for machine in self.machines if (lock := self.lock(machine))}


def names(profiles: Path = PROFILES) -> list[str]:
    """Every profile that has an input."""
    return sorted(path.parent.name for path in profiles.glob(f"*/{INPUT}"))


def load(name: str, profiles: Path = PROFILES) -> Profile:
    """Reads a profile.

    Raises:
        CommandFailed: there is none of this name, or its input is not what is expected (4).
    """
    folder = profiles / name
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or not (folder / INPUT).is_file():
        known = ", ".join(names(profiles))
        raise CommandFailed(f"there is no profile {name!r}: expected {known}", ExitCode.BAD_CONFIGURATION)
    text = (folder / INPUT).read_text(encoding="utf-8")
    try:
        content: dict[str, Any] = tomllib.loads(text)
        tool = content["tool"]
        own = tool["sparkfleet"]
        return Profile(
            name=name,
            folder=folder,
            text=text,
            python=own["python"],
            interpreter=own["interpreter"],
            glibc=own["glibc"],
            machines=tuple(own["machines"]),
            sources=frozenset(tool.get("uv", {}).get("sources", {})),
            fallback=dict(own.get("fallback", {})),
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise CommandFailed(f"{folder / INPUT}: {what}", ExitCode.BAD_CONFIGURATION) from error
