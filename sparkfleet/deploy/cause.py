"""Why a host differs from what a deploy wants: by its own history, as the probe of a dry run brought it along."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Cause(StrEnum):
    """What a measure's history says about its changes."""

    NEVER = "never-applied"
    """The host has no record of it: a new measure, a new host, or a sparkfleet that kept no history."""
    INCOMPLETE = "incomplete"
    """It was refused or failed the last time."""
    VERSION = "other-version"
    """Another version of sparkfleet applied it."""
    SETTINGS = "settings"
    """The fleet file says something else of it than it did then."""
    DRIFT = "drift"
    """The same version applied it with the same settings: the host was changed since."""
    UNKNOWN = ""
    """Nobody asked, or the answer was no history."""


def text(value: Any) -> str:
    return value if isinstance(value, str) else "?"


def cause_of(measure: str, told: Mapping[str, Any]) -> tuple[Cause, str]:
    """The cause and a line for a person. `told`: the journal's event `history`; empty where there was none.

    A host wrote what it is made of: whatever has another form than ours counts as no history.
    """
    applied, wanted = told.get("applied"), told.get("wanted")
    if not isinstance(applied, dict) or not isinstance(wanted, dict) or measure not in wanted:
        return Cause.UNKNOWN, ""
    stands = applied.get(measure)
    if not isinstance(stands, dict):
        return Cause.NEVER, "never applied to this host"
    by = f"{text(stands.get('version'))} on {text(stands.get('at'))[:10]}"
    if stands.get("result") not in ("changed", "clean"):
        return Cause.INCOMPLETE, f"{text(stands.get('result'))} when it was applied by {by}"
    if stands.get("version") != told.get("version"):
        return Cause.VERSION, f"applied by another version: {by}; this is {text(told.get('version'))}"
    if stands.get("settings") != wanted[measure]:
        return Cause.SETTINGS, f"its settings have changed since it was applied by {by}"
    return Cause.DRIFT, f"the host has drifted since it was applied by {by}"
