"""What a resource is: one piece of wanted state that can say what differs, and put it right.

A deploy sends lists of resources. `plan()` only looks; `apply()` makes the difference go away. Both run
the same code on the host, so a dry run and the real run cannot disagree about how a difference is found.
"""

from __future__ import annotations

import contextlib
import errno
import os
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar


class Refused(Exception):
    """A change that is held back because it would endanger the host. The text says why, with figures."""


class Failed(Exception):
    """A change that was tried and did not work. One line, with the remedy where one is known."""


def one_line(error: BaseException) -> str:
    """The error as one line for a person; a full disk or a read-only file system is named as such."""
    if isinstance(error, OSError) and error.errno is not None:
        where = f" ({error.filename})" if error.filename else ""
        remedy = {
            errno.ENOSPC: "; free some space there and deploy again",
            errno.EROFS: "; the file system is read-only: see the kernel log for why",
        }.get(error.errno, "")
        return f"{os.strerror(error.errno)}{where}{remedy}"
    return " ".join(str(error).split()) or type(error).__name__


def mistake(error: Exception) -> str:
    """An exception that nobody foresaw, as one line: what it is, and in which line of ours."""
    frames = list(traceback.walk_tb(error.__traceback__))
    # Modules that came with a request have no file.
    where = f" ({frames[-1][0].f_globals.get('__name__')}:{frames[-1][1]})" if frames else ""
    said = " ".join(str(error).split())[:200]
    return f"a mistake of ours: {type(error).__name__}: {said}{where}: report it, with what --verbose shows"


def trace(error: Exception) -> str:
    """Where an exception came from, innermost call last; at most LONGEST_TRACEBACK characters of its end.

    Not Python's own words: modules that came with a request have neither a file nor lines to show.
    """
    calls = [
        f"  {frame.f_globals.get('__name__')}:{line} in {frame.f_code.co_name}\n"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    said = " ".join(str(error).split())[:400]
    text = "".join(["Traceback, innermost call last:\n", *calls, f"{type(error).__name__}: {said}"])
    return text[-LONGEST_TRACEBACK:]


@dataclass
class Troubles:
    """What went wrong in the pieces of something whose other pieces went on."""

    refused: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    traceback: str = ""
    """Of the first mistake of ours; at most LONGEST_TRACEBACK characters, the innermost calls."""

    def note(self, error: Exception, of: str = "") -> None:
        """Takes an error over as a line, once. `of`: the piece that it belongs to."""
        known = isinstance(error, (Refused, Failed, OSError))
        line = of + (one_line(error) if known else mistake(error))
        lines = self.refused if isinstance(error, Refused) else self.failures
        if line not in lines:
            lines.append(line)
        if not known:
            self.traceback = self.traceback or trace(error)

    def add(self, other: Troubles) -> None:
        self.refused += [line for line in other.refused if line not in self.refused]
        self.failures += [line for line in other.failures if line not in self.failures]
        self.traceback = self.traceback or other.traceback

    @contextlib.contextmanager
    def piece(self, of: str = "") -> Iterator[None]:
        """Whatever goes wrong meanwhile costs this piece alone, and is noted."""
        try:
            yield
        except Exception as error:
            self.note(error, of)


class Partly(Failed):
    """Some pieces of a resource could not be made so; its others are, and what follows in its measure goes on."""

    def __init__(self, troubles: Troubles) -> None:
        super().__init__("; ".join([*troubles.failures, *troubles.refused]))
        self.troubles = troubles


LONGEST_TRACEBACK = 4096


@dataclass(frozen=True)
class Need:
    """A wheel that a change needs on the host: the controller fetches it and uploads it before `apply()`."""

    sha256: str
    requirement: str
    """As pip takes it: `uv==0.13.9`."""
    machine: str
    """`uname -m` of the host: which of the release's wheels."""


@dataclass(frozen=True)
class Change:
    """One difference between a host and its wanted state."""

    what: str
    """The object that changes: a path, a device, a unit."""
    summary: str
    """What is done to it, in a few words."""
    diff: str = ""
    """Unified diff of a text file, else empty."""
    needs: list[Need] = field(default_factory=list)


@dataclass
class Context:
    """What a plan knows beyond the host itself."""

    pending: list[Change] = field(default_factory=list)
    """Changes planned before this resource in the same run: a dry run has not made them."""
    warnings: list[str] = field(default_factory=list)
    """What a person should know although nothing is wrong enough to be refused: one line each, with the figures."""
    troubles: Troubles = field(default_factory=Troubles)
    """Of a resource of several pieces: those that could not be looked at, or are refused. It plans the others."""


@dataclass(frozen=True)
class Resource:
    """Base of all resources. Subclasses are frozen dataclasses of JSON values, and name their `kind`."""

    kind: ClassVar[str]
    after_reload: ClassVar[bool] = False
    """Whether this comes only after systemd has read its changed units again."""
    is_basis: ClassVar[bool] = False
    """Whether what follows in a measure says nothing where this one was refused."""
    KINDS: ClassVar[dict[str, type[Resource]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Resource.KINDS[cls.kind] = cls

    def plan(self, context: Context) -> Sequence[Change]:
        """What differs now. Reads only. May raise `Refused`."""
        raise NotImplementedError

    def apply(self) -> None:
        """Makes the host as wanted. Raises `Refused` or `Failed`, or OSError."""
        raise NotImplementedError

    def units(self) -> Sequence[str]:
        """Units whose properties a plan will want, as far as that is known beforehand: PID 1 is asked once for all."""
        return ()

    def unit_sources(self) -> Sequence[str]:
        """Files, no units themselves, from which systemd makes units when it reads its unit files again."""
        return ()

    def may_need(self) -> Sequence[Need]:
        """Every wheel that a plan of this may ask for. The controller fetches no other, whatever a host answers."""
        return ()

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


# SHA-256 of a wheel → where the controller put it on this host; filled from the request.
UPLOADS: dict[str, str] = {}


def uploaded(sha256: str) -> Path:
    """Where a needed wheel lies. Its content is not yet to be trusted.

    Raises:
        Failed: the controller did not bring it.
    """
    if sha256 not in UPLOADS:
        raise Failed(f"the file with SHA-256 {sha256} was not uploaded: deploy again")
    return Path(UPLOADS[sha256])


def from_json(data: dict[str, Any]) -> Resource:
    """The resource that `to_json` wrote.

    Raises:
        Failed: the kind is not known to this version of sparkhost.
    """
    values = dict(data)
    kind = values.pop("kind")
    if kind not in Resource.KINDS:
        raise Failed(f"unknown kind of resource: {kind!r}")
    return Resource.KINDS[kind](**values)
