"""What the watchdog sees, what it may do, and what it decides. Values only. Sizes in bytes, times in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

MIB = 2**20
GIB = 2**30

Kind = Literal["job", "container", "session", "process", "system"]
"""`job`: a unit of training.slice. `container`: all of it. `session`: a process with its descendants, from a login.
`process`: the same where there are no units (no systemd). `system`: another unit of the host."""

Stage = Literal["TERM", "KILL"]

Brake = Literal["all", "jobs", "off"]
"""Whose work may be frozen while memory is short: everybody's, that of jobs and containers, nobody's."""

OverPromise = Literal["first", "end", "tell"]
"""What becomes of work beyond its promise: first in line when memory is short, ended in any case, only told."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The thresholds, and what follows from them. docs/settings.md says what each is for."""

    term_below: int = 16 * GIB
    kill_below: int = 8 * GIB
    """Both of a host of 120 GiB; a configuration that names none has shares of its host's memory."""
    far: float = 1.0
    near: float = 0.05
    fastest_fill: int = 8 * GIB
    """Bytes per second at which memory is assumed to fill at worst, however slowly it fills now."""
    grace: float = 5.0
    recovery_wait: float = 3.0
    smallest_victim: int = 256 * MIB
    system_unit_above: int = 1 * GIB
    drop_page_cache: bool = False
    drop_free_below: int = 2 * GIB
    drop_every: float = 60.0
    brake: Brake = "all"
    brake_at_most: float = 10.0
    """Seconds for which work is frozen at most."""
    over_promise: OverPromise = "first"


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the host's memory. `time`: seconds of CLOCK_MONOTONIC."""

    time: float
    total: int
    available: int
    free: int
    slope: float = 0.0
    """Bytes per second by which MemAvailable changes; negative while it falls."""
    stall: float = 0.0
    """Share of the time since the last look in which all tasks waited for memory (PSI `full`), 0 to 1."""


@dataclass(frozen=True, slots=True)
class Member:
    """A process that cannot be mistaken for a later one of the same number: `start` in ticks since boot."""

    pid: int
    start: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A unit of work that could be ended."""

    key: str
    """Names it from one scan to the next."""
    name: str
    """For a person: a unit, a container, or a process with its number. May hold what a user chose: show it escaped."""
    kind: Kind
    cgroup: str
    roots: tuple[Member, ...] = ()
    """Where it is not a whole cgroup: the processes that it consists of, with all their descendants."""
    alone: bool = False
    """Whether only `roots` themselves are meant, not their descendants."""
    owner: int = 0
    """The user number of its largest process."""
    processes: int = 0
    gpu: int = 0
    """Bytes on GPUs that take them from the host's memory."""
    anonymous: int = 0
    shared: int = 0
    protected: bool = False
    preferred: bool = False
    avoided: bool = False
    first: Member | None = None
    """Its oldest process. Another one makes another instance, which has settled nowhere yet."""
    promise: int | None = None
    """What it was promised by root's launcher or queue, CPU and GPU memory together; None: nothing."""
    freezer: str = ""
    """The cgroup, owned by root, that stops all of it and nobody else's work; "": it is never frozen."""
    parts: tuple[Candidate, ...] = ()
    """Where several units are ended as one: these. Sizes and counts above are their sums."""

    @property
    def size(self) -> int:
        """What ending it should give back, about."""
        return self.gpu + self.anonymous + self.shared

    @property
    def units(self) -> tuple[Candidate, ...]:
        """Its parts, or itself."""
        return self.parts or (self,)


class Account(NamedTuple):
    """What the ledger knows of a unit of work, or of the small ones of an owner together."""

    instance: str
    """Its first process. Another one is another instance, which stands on no ground yet."""
    seen: float
    held: int
    own: int
    """What it had settled at: its ground."""
    calm: int
    """What it held when there was last plenty for everybody."""
    anchor: int
    since: float
    """`held` has not been above `anchor` since then: it settles."""
    gained: float
    """When it last gained ground."""
    peaks: tuple[int, ...]
    """The most that it held in each of the last spans of time, the latest last."""
    lows: tuple[int, ...]
    """The least that it held in each of the last few seconds, the latest last."""
    marks: tuple[int, int]
    """What it held at the ledger's two marks."""
    over_since: float | None
    """Since when it is beyond its promise."""


class Mark(NamedTuple):
    """A moment against which growth is taken."""

    time: float
    available: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """Who held what, and since when (sparkhost.watchdog.ledger)."""

    accounts: Mapping[str, Account] = field(default_factory=dict)
    """By a candidate's key; `small:OWNER` for what is too small for an account of its own."""
    time: float | None = None
    """When the last sample was taken."""
    marks: tuple[Mark, Mark] | None = None
    least: tuple[int, ...] = ()
    """The least MemAvailable in each of the spans of an account's peaks."""
    highs: tuple[int, ...] = ()
    """The most of it in each of the spans of an account's lows."""
    promises: bool = False
    """Whether anybody has been promised anything."""
    over: bool = False
    """Whether anybody is beyond that."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """A cgroup that we have frozen."""

    cgroup: str
    since: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Ground:
    """What spoke for or against a candidate."""

    key: str
    name: str
    held: int
    own: int
    taken: int
    grown: int
    """Within the last minute."""
    promise: int | None = None


@dataclass(frozen=True, slots=True)
class Flight:
    """A victim that has been signalled and whose memory is awaited."""

    victim: Candidate
    stage: Stage
    sent: float
    """When the last signal was sent."""
    available: int
    """MemAvailable when the first was."""
    gone: float | None = None
    """When its last process was seen to be gone."""
    grounds: tuple[Ground, ...] = ()
    """Why it was chosen."""
    always: bool = False
    """It is ended also when there is memory: it was beyond its promise, and `over_promise` is `end`."""


@dataclass(frozen=True, slots=True)
class Samples:
    """All that a decision rests on. sparkhost.watchdog.state has what becomes of it."""

    look: Look
    candidates: tuple[Candidate, ...] | None = None
    """None: not listed yet; listing costs time and is asked for."""
    flight: Flight | None = None
    spent: frozenset[str] = frozenset()
    """Keys of victims that would not go or gave nothing back, since MemAvailable last recovered."""
    futile: int = 0
    """Victims in a row that gave nothing back."""
    futile_since: float = 0.0
    """When the last of them was given up."""
    dropped: float | None = None
    """When the page cache was last dropped."""
    ledger: Ledger = field(default_factory=Ledger)
    frozen: tuple[Frozen, ...] = ()
    released: frozenset[str] = frozenset()
    """Cgroups that were frozen for as long as may be, since MemAvailable last recovered: once is enough."""
    braked: int | None = None
    """MemAvailable when it was last looked at whom to freeze, since it last recovered."""
    thawed: float = 0.0
    """When somebody was last let go."""
    doubted: frozenset[str] = frozenset()
    """Owners (`ledger.party`) whose victims gave nothing back: their shared memory counts no more."""
    gpu_age: float | None = None
    """Seconds since GPU memory was sampled; None: it is not known, or there is none that counts."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Scan:
    """List the candidates, take them into the ledger, and decide again at once."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Signal every process of the victim, and decide again at once."""

    stage: Stage
    victim: Candidate
    reason: str
    grounds: tuple[Ground, ...] = ()
    """Of those considered, the victim's first."""
    always: bool = False
    """See `Flight`."""


@dataclass(frozen=True, slots=True)
class Freeze:
    """Stop all in these cgroups, and decide again at once."""

    units: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Thaw:
    """Let all in these cgroups go on, and decide again at once. `late`: they were frozen for as long as may be."""

    units: tuple[str, ...]
    reason: str
    late: bool = False


@dataclass(frozen=True, slots=True)
class Land:
    """The flight is over; decide again at once. `helped`: whether memory came back."""

    helped: bool


@dataclass(frozen=True, slots=True)
class DropCache:
    """Have clean page cache dropped (by somebody who may block)."""


@dataclass(frozen=True, slots=True)
class Helpless:
    """Memory is short and nothing can be done: say so loudly, look again after so many seconds."""

    reason: str
    seconds: float


Action = Wait | Scan | Signal | Freeze | Thaw | Land | DropCache | Helpless
