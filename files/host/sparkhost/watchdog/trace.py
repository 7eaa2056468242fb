"""Recorded samples: a line of JSON for each decision, and the decisions that another policy would have taken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from sparkhost.watchdog.decide import decide
from sparkhost.watchdog.model import (
    Account,
    Action,
    Candidate,
    Flight,
    Frozen,
    Ground,
    Ledger,
    Look,
    Mark,
    Member,
    Policy,
    Samples,
    Wait,
)
from sparkhost.watchdog.report import amount, plain


class BadTrace(Exception):
    """A file that is no trace. The text is one line."""


def encode(value: Any) -> Any:
    """What `json` cannot write itself."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__, **asdict(value)}
    if isinstance(value, frozenset | set):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be told")


def samples_of(raw: dict[str, Any]) -> Samples:
    """The samples that `encode` wrote."""
    values = {key: value for key, value in raw.items() if key != "type"}
    candidates, flight = values.pop("candidates"), values.pop("flight")
    look, ledger = values.pop("look"), values.pop("ledger")
    spent, released, doubted = (frozenset(values.pop(key)) for key in ("spent", "released", "doubted"))
    frozen = tuple(Frozen(**one) for one in values.pop("frozen"))
    return Samples(
        look=Look(**look),
        candidates=None if candidates is None else tuple(map(candidate_of, candidates)),
        flight=None if flight is None else flight_of(flight),
        ledger=ledger_of(ledger),
        frozen=frozen,
        spent=spent,
        released=released,
        doubted=doubted,
        **values,
    )


def candidate_of(raw: dict[str, Any]) -> Candidate:
    first = raw["first"]
    members = {"roots": tuple(Member(**root) for root in raw["roots"]), "first": Member(**first) if first else None}
    return Candidate(**{**raw, **members, "parts": tuple(map(candidate_of, raw["parts"]))})


def flight_of(raw: dict[str, Any]) -> Flight:
    grounds = tuple(Ground(**ground) for ground in raw["grounds"])
    return Flight(**{**raw, "victim": candidate_of(raw["victim"]), "grounds": grounds})


def ledger_of(raw: dict[str, Any]) -> Ledger:
    """JSON has lists where a ledger has tuples."""
    accounts = {
        key: Account._make(tuple(value) if isinstance(value, list) else value for value in account)
        for key, account in raw["accounts"].items()
    }
    marks = raw["marks"] and (Mark(*raw["marks"][0]), Mark(*raw["marks"][1]))
    return Ledger(
        **{**raw, "accounts": accounts, "marks": marks, "least": tuple(raw["least"]), "highs": tuple(raw["highs"])}
    )


def replay(path: Path, policy: Policy) -> Iterator[tuple[Samples, Action]]:
    """What `decide` says of each recorded moment under this policy. A victim in flight is the recorded one's.

    Raises:
        BadTrace: the file cannot be read, or a line is none of ours.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    samples = samples_of(json.loads(line)["samples"])
                except (ValueError, KeyError, TypeError) as error:
                    raise BadTrace(f"{path}:{number}: is no line of a trace: {type(error).__name__}") from None
                yield samples, decide(samples, policy)
    except (OSError, UnicodeDecodeError) as error:
        raise BadTrace(f"{path}: cannot be read: {error}") from None


def told(samples: Samples, action: Action) -> str:
    """A line for each decision that is more than waiting."""
    if isinstance(action, Wait):
        return ""
    values = asdict(action)
    victim, _ = values.pop("victim", None), values.pop("grounds", None)
    more = f" {victim['name']}" if victim else ""
    rest = ", ".join(f"{key} {value}" for key, value in values.items())
    look = samples.look
    return plain(f"{look.time:.3f}: {amount(look.available)} available: {type(action).__name__}{more} {rest}".rstrip())
