"""What the audit's parts hand to each other: evidence, controls, verdicts, runs. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

from sparkfleet.settings import HostSettings


class Severity(StrEnum):
    """By consequence: critical loses a host or locks people out; high loses a job, or lets one endanger the host."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(Severity).index(self)


class Aspect(StrEnum):
    """Separate verdicts about one protection: it can be configured and not run, or run and not survive a reboot."""

    CONFIGURED = "configured"
    RUNNING = "running"
    SURVIVES_REBOOT = "survives reboot"


class Status(StrEnum):
    """How a control stands on a host."""

    PASS = "pass"
    FAIL = "fail"
    WAIVED = "waived"
    NOT_APPLICABLE = "not-applicable"
    ERROR = "error"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Observation:
    """What one command of the probe answered on a host."""

    command: str
    """As a person would type it there to see the same."""
    output: str
    rc: int = 0
    error: str = ""
    """Its standard error, or why it could not be run; "" where there is none."""


class NoEvidence(Exception):
    """What a control needs was not seen: missing, blank, malformed, or its command failed. One line."""


@dataclass(frozen=True)
class Evidence:
    """Everything that was seen on one host, by the name of the observation."""

    observations: Mapping[str, Observation]

    def text(self, name: str, *, blank: bool = False) -> str:
        """An observation's output. `blank`: whether an empty one means something (an empty list).

        Raises:
            NoEvidence: it is not there, its command failed, or it is blank.
        """
        seen = self.observations.get(name)
        if seen is None:
            raise NoEvidence(f"the probe says nothing about {name}")
        if seen.rc or (seen.error and not seen.output):
            raise NoEvidence(f"`{seen.command}` failed with {seen.rc}: {seen.error.strip() or 'no message'}")
        if not blank and not seen.output.strip():
            raise NoEvidence(f"`{seen.command}` printed nothing")
        return seen.output


@dataclass(frozen=True)
class Judgement:
    """What a judge says. Never an error: that is `NoEvidence`."""

    status: Status
    """PASS, FAIL or NOT_APPLICABLE."""
    wanted: str
    saw: str


Judge = Callable[[Evidence, HostSettings], Judgement]
FleetJudge = Callable[[Mapping[str, Evidence]], Judgement]
"""Compares hosts, by name."""


@dataclass(frozen=True)
class Control:
    """One question about a host, and how its answer is judged."""

    id: str
    """Such as SPK-SWAP-01; never used again for another question."""
    title: str
    """What holds where it passes."""
    severity: Severity
    measure: str
    """The measure whose deploy mends it; "" where none does."""
    aspect: Aspect
    why: str
    source: str
    """Man page, issue or fact number (docs/facts.md)."""
    manual_fix: str
    evidence: tuple[str, ...]
    """Names of the observations that it judges by, the telling one first."""
    judge: Judge
    fleet_judge: FleetJudge | None = None
    """Where there is one, the control is about all hosts together: one verdict, whose host is ""; `judge` is unused."""


@dataclass(frozen=True)
class WaiverNote:
    """The waiver that applies, or has ceased to apply, to a verdict."""

    reason: str
    owner: str
    expires: date
    state: str
    """`in force` (on a waived verdict), `expired` (the verdict fails) or `stale` (the control passes)."""


@dataclass(frozen=True)
class Verdict:
    """How one control stands on one host."""

    control: str
    host: str
    """A host's name, or "" for a control about the fleet as a whole."""
    status: Status
    wanted: str
    saw: str
    command: str
    """The command that saw it."""
    waiver: WaiverNote | None = None


@dataclass(frozen=True)
class HostRun:
    """One host's part of a run."""

    name: str
    evidence: Evidence | None
    """None: unreachable, or its answer was no evidence."""
    problem: str = ""
    """Why there is no evidence, one line."""
    unreachable: bool = False
    boot_id: str = ""
    seconds: float = 0.0
    """From the first packet to the last."""


@dataclass(frozen=True)
class Run:
    """An audit of a fleet: what was seen, and how it was judged."""

    id: str
    """Such as 20261124T121500Z-3f9c; sorts by time."""
    started: str
    """ISO 8601, UTC."""
    fleet_file: str
    hosts: tuple[HostRun, ...]
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...] = field(default=())
    """What the reader must know beside the verdicts, such as a waiver that fits no host."""
