"""What a resource is: one piece of wanted state that can say what differs, and put it right.

How it works: `steps()` walks over what differs and only looks. Each step has the words that are shown and the act that
mends it. A plan shows the steps, a run does them: the same list, so that a dry run and a run cannot differ (ADR 18).
"""

from __future__ import annotations

import contextlib
import errno
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, final


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


RELOAD = "daemon-reload"
"""What a reload of PID 1 is called among the changes of a run."""


@dataclass(frozen=True)
class Step:
    """One thing that differs, and the act that mends it: shown as a `Change`, done by a run."""

    what: str
    says: str
    """What is done to it, in a few words. Empty: nobody needs to be shown it; it is done along with others only."""
    do: Callable[[], object]
    """May raise `Refused`, `Failed`, OSError."""
    diff: str = ""
    needs: Sequence[Need] = ()
    alone: bool = False
    """Whether a failure costs this step alone: no later one rests on it."""
    again: bool = False
    """Whether all later ones are looked for again once it is done, as it moves their ground."""

    def change(self) -> Change:
        return Change(self.what, self.says, self.diff, [*self.needs])


@dataclass
class Context:
    """What a plan knows beyond the host itself."""

    pending: list[Change] = field(default_factory=list)
    """Changes planned before this resource in the same run: a dry run has not made them."""
    warnings: list[str] = field(default_factory=list)
    """What a person should know although nothing is wrong enough to be refused: one line each, with the figures."""
    troubles: Troubles = field(default_factory=Troubles)
    """Of a resource of several pieces: those that could not be looked at, or are refused. It plans the others."""

    def will_change(self, *objects: str | Path) -> bool:
        """Whether something of this run, which a dry run has not done, changes one of these."""
        return bool(self.changes_of(map(str, objects)))

    def changes_of(self, objects: Iterable[str]) -> list[str]:
        """Those of these objects that this run is about to change, in order."""
        return sorted({change.what for change in self.pending}.intersection(objects))

    def will_change_below(self, *starts: str) -> bool:
        """Whether this run is about to change something whose name begins so."""
        return any(change.what.startswith(starts) for change in self.pending)

    def will_reload(self) -> bool:
        return self.will_change(RELOAD)

    def shows(self, step: Step) -> bool:
        """Whether this run shows that very step already."""
        return step.change() in self.pending


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
        if "kind" in vars(cls):  # else a base of several kinds
            Resource.KINDS[cls.kind] = cls
        if {"plan", "apply"} & {*vars(cls)}:
            raise TypeError(f"{cls.__name__} is its steps: what they do, a plan shows and a run does")

    def steps(self, context: Context) -> Iterable[Step]:
        """What differs now, each with the act that mends it. Only looks: acts come later. May raise `Refused`."""
        raise NotImplementedError

    @final
    def plan(self, context: Context) -> Sequence[Change]:
        """What differs now, to be shown. Raises what `steps` does."""
        return shown(self.steps(context))

    @final
    def apply(self) -> None:
        """Does what a plan shows. Raises `Refused`, `Failed`, or OSError."""
        steps = [*self.steps(context := Context())]
        with self.hold():
            self.carry_out(steps, context.troubles)

    def hold(self) -> contextlib.AbstractContextManager[object]:
        """What is held while steps are done, such as a lock."""
        return contextlib.nullcontext()

    def carry_out(self, steps: Sequence[Step], troubles: Troubles) -> None:
        """Does steps. `troubles`: of pieces that could not be looked at. Raises Partly: all others are done."""
        for step in steps:
            with troubles.piece(f"{step.what}: ") if step.alone else contextlib.nullcontext():
                step.do()
            if step.again:
                self.carry_out([*self.steps(Context())], troubles)
                return
        if troubles.failures or troubles.refused:
            raise Partly(troubles)

    def touches(self) -> Sequence[str]:
        """Every path that its steps may change: a guard keeps what was there."""
        return ()

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


class Check(Resource):
    """A resource that changes nothing: it refuses what would endanger the host, or warns."""

    def check(self, context: Context) -> None:
        """May raise `Refused` or `Failed`, or add to `context.warnings`."""
        raise NotImplementedError

    def steps(self, context: Context) -> Iterable[Step]:
        self.check(context)
        return ()


def shown(steps: Iterable[Step]) -> list[Change]:
    """The steps that a person is shown."""
    return [step.change() for step in steps if step.says]


def nothing() -> None:
    """The act of a step that another one does, or another part of a deploy: it is only shown."""


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
