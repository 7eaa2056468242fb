"""What became of each host: a pure function of the lines that a run left in its journal (`tasks/lib/journal.py`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sparkfleet import foreign
from sparkfleet.deploy.cause import Cause, cause_of
from sparkfleet.exit_codes import ExitCode
from sparkfleet.mistakes import mistake

BLOCKS = ("diff",)
"""Texts of an event that have several lines."""


class State(StrEnum):
    """How a host stands after a run, the best first."""

    CLEAN = "clean"
    """Nothing to change."""
    CHANGED = "changed"
    """A deploy has changed it."""
    DRIFT = "drift"
    """A dry run would change it."""
    DECLINED = "declined"
    """Changes were shown, and nobody wanted them."""
    FAILED = "failed"
    """A measure was refused or failed."""
    UNFINISHED = "unfinished"
    """The run ended before it was done with this host."""
    LOST = "lost"
    """It was reached, and then no longer."""
    UNREACHABLE = "unreachable"


CODES = {
    State.CLEAN: ExitCode.CLEAN,
    State.CHANGED: ExitCode.CLEAN,
    State.DRIFT: ExitCode.DRIFT,
    State.DECLINED: ExitCode.FAILURE,
    State.FAILED: ExitCode.FAILURE,
    State.UNFINISHED: ExitCode.FAILURE,
    State.LOST: ExitCode.UNREACHABLE,
    State.UNREACHABLE: ExitCode.UNREACHABLE,
}


@dataclass
class Measure:
    """What a run found or did of one measure on one host."""

    changes: list[dict[str, str]] = field(default_factory=list)
    """Each with `what`, `summary`, and `diff`, which may be empty."""
    problems: list[str] = field(default_factory=list)
    """Why it was refused or has failed, one line each."""
    cause: Cause = Cause.UNKNOWN
    """Why there is anything to change, by the host's history; of a dry run only."""
    history: str = ""
    """The same for a person, one line."""


@dataclass
class Outcome:
    """One host of a run."""

    host: str
    state: State
    reason: str
    """One line, where the state is a bad one; else empty."""
    measures: dict[str, Measure]
    """Only those with changes or problems, in the order of the deploy."""
    applied: dict[str, Any] = field(default_factory=dict)
    """Each measure as the host's history has it (/var/lib/sparkfleet/applied.json); empty where it was not asked."""

    def changes(self) -> int:
        return sum(len(measure.changes) for measure in self.measures.values())


def outcomes(hosts: Sequence[str], journal: Iterable[str], *, dry: bool) -> list[Outcome]:
    """The outcome of every host, in their order; one that the journal does not name was not reached.

    A line that is cut short (the run was killed) is passed over. What hosts said is plain text from here on.
    """
    events: dict[str, list[dict[str, Any]]] = {host: [] for host in hosts}
    for line in journal:
        try:
            event = foreign.plain(json.loads(line), BLOCKS, 2 * foreign.VALUES)
            events[event["host"]].append(event)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return [contained(host, found, dry=dry) for host, found in events.items()]


def contained(host: str, events: Sequence[dict[str, Any]], *, dry: bool) -> Outcome:
    """As `outcome`; what nobody has foreseen is this host's alone."""
    try:
        return outcome(host, events, dry=dry)
    except Exception as error:
        return Outcome(host, State.FAILED, mistake(error), {})


def outcome(host: str, events: Sequence[dict[str, Any]], *, dry: bool) -> Outcome:
    kinds = {event["event"] for event in events}
    executed = bool(kinds & {"applied", "executed"})
    measures: dict[str, Measure] = {}
    for event in events:
        if event["event"] == ("applied" if executed else "plan"):
            measure = measures.setdefault(event["measure"], Measure())
            measure.changes += event["changes"]
            measure.problems += [*event["refused"], *([event["error"]] if event["error"] else [])]
        elif event["event"] == "trouble":
            measures.setdefault(event["measure"], Measure()).problems.append(event["problem"])
    measures = {name: measure for name, measure in measures.items() if measure.changes or measure.problems}
    told: dict[str, Any] = next((event for event in reversed(events) if event["event"] == "history"), {})
    if dry:
        for name, measure in measures.items():
            if measure.changes:
                measure.cause, measure.history = cause_of(name, told)
    state, reason = state_of(events, measures, dry=dry, executed=executed)
    applied = told.get("applied")
    return Outcome(host, state, reason, measures, applied if isinstance(applied, dict) else {})


def state_of(
    events: Sequence[dict[str, Any]], measures: dict[str, Measure], *, dry: bool, executed: bool
) -> tuple[State, str]:
    told = {event["event"]: event for event in events}
    problems = [f"{name}: {line}" for name, measure in measures.items() for line in measure.problems]
    changes = any(measure.changes for measure in measures.values())
    if "unreachable" in told or not events:
        return State.UNREACHABLE, told.get("unreachable", {}).get("problem", "nothing was heard of it")
    if "lost" in told:
        return State.LOST, f"{told['lost']['measure']}: {told['lost']['problem']}"
    if problems:
        return State.FAILED, problems[0] if len(problems) == 1 else f"{problems[0]} (and {len(problems) - 1} more)"
    if ("planned" if dry else "executed") not in told:
        if "planned" in told and not executed:
            return (State.DECLINED, "the changes were not confirmed") if changes else (State.CLEAN, "")
        return State.UNFINISHED, "the run ended before it was done with this host: run it again"
    if changes:
        return (State.DRIFT if dry else State.CHANGED), ""
    return State.CLEAN, ""


def exit_code(found: Iterable[Outcome]) -> ExitCode:
    """What the whole amounts to: of several codes the highest."""
    return max((CODES[one.state] for one in found), default=ExitCode.BAD_CONFIGURATION)
