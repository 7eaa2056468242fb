"""What a field report says: for each fact what is known of it, what was seen here, and what follows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from sparkhost.tools.doctor.finding import plain

Verdict = Literal["as known", "otherwise", "seen", "not tried"]
VERSION = 1


class Observation(NamedTuple):
    """One fact on this host. `fact`: its number in docs/facts.md, 0 for what is only to be known."""

    fact: int
    what: str
    known: str
    """What is reported or inferred."""
    saw: str
    verdict: Verdict


def judged(fact: int, what: str, known: str, saw: str, holds: bool) -> Observation:
    return Observation(fact, what, known, saw, "as known" if holds else "otherwise")


def seen(what: str, saw: str) -> Observation:
    return Observation(0, what, "", saw, "seen")


def not_tried(fact: int, what: str, known: str, why: str) -> Observation:
    return Observation(fact, what, known, why, "not tried")


def markdown(observations: Sequence[Observation]) -> str:
    """To paste into an issue."""
    rows = ["| fact | what | known | seen here | verdict |", "|---|---|---|---|---|"]
    for item in observations:
        cells = [str(item.fact or ""), item.what, item.known, item.saw, item.verdict]
        rows.append("| " + " | ".join(plain(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(["## sparkfleet field report", "", *rows, ""])


def document(observations: Sequence[Observation]) -> str:
    value: dict[str, Any] = {"version": VERSION, "observations": [item._asdict() for item in observations]}
    return json.dumps(value, indent=2)
