"""A run as JSON, whole: docs/audit-report.schema.json describes it. What is written can be read again, evidence too.

Text is ASCII with escapes: an answer that is no UTF-8 survives, and nothing in it acts on the terminal of whoever
prints the file. One line holds one host or one verdict, so that `diff` and `grep` are of use.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any, TypeVar

from sparkfleet.audit.model import Control, Evidence, HostRun, Observation, Run, Status, Verdict, WaiverNote
from sparkfleet.audit.report.order import Card, cards, totals

FORMAT = "sparkfleet-audit-report"
VERSION = 1

T = TypeVar("T")
_encode = json.JSONEncoder(ensure_ascii=True, separators=(", ", ": "), check_circular=False).encode


class NotAReport(Exception):
    """Text that is no report of this format, or of another version. One line."""


def dumps(run: Run, controls: Sequence[Control]) -> str:
    """The run, and what its controls are; ends with a line feed."""
    known = cards(run, controls)
    count = totals(run)
    head = {
        "id": run.id,
        "started": run.started,
        "fleet_file": run.fleet_file,
        "totals": {str(status): count[status] for status in Status},
        "notes": list(run.notes),
    }
    return "".join(
        (
            f'{{\n"format": "{FORMAT}",\n"version": {VERSION},\n"run": {_encode(head)},\n',
            _array("controls", (_control(found) for found in known.values())),
            _array("hosts", (_host(host) for host in run.hosts)),
            _array("verdicts", (_verdict(verdict) for verdict in run.verdicts)).removesuffix(",\n"),
            "\n}\n",
        )
    )


def _array(name: str, items: Iterable[dict[str, Any]]) -> str:
    return f'"{name}": [\n' + ",\n".join(map(_encode, items)) + "\n],\n"


def _control(found: Card) -> dict[str, Any]:
    return {
        "id": found.id,
        "title": found.title,
        "severity": str(found.severity),
        "aspect": found.aspect,
        "measure": found.measure,
        "why": found.why,
        "source": found.source,
        "manual_fix": found.manual_fix,
        "evidence": list(found.evidence),
    }


def _host(host: HostRun) -> dict[str, Any]:
    seen = None if host.evidence is None else host.evidence.observations
    return {
        "name": host.name,
        "unreachable": host.unreachable,
        "problem": host.problem,
        "boot_id": host.boot_id,
        "seconds": host.seconds,
        "evidence": None
        if seen is None
        else {
            name: {"command": one.command, "output": one.output, "rc": one.rc, "error": one.error}
            for name, one in seen.items()
        },
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    waiver = verdict.waiver
    return {
        "control": verdict.control,
        "host": verdict.host,
        "status": verdict.status.value,
        "wanted": verdict.wanted,
        "saw": verdict.saw,
        "command": verdict.command,
        "waiver": waiver
        and {
            "reason": waiver.reason,
            "owner": waiver.owner,
            "expires": waiver.expires.isoformat(),
            "state": waiver.state,
        },
    }


def loads(text: str) -> Run:
    """The run that `dumps` wrote, equal to what it was; keys that are not known are passed over.

    Raises:
        NotAReport: it is not such a text.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotAReport(f"is no JSON: {error}") from error
    try:
        return _run(document)
    except _Wrong as error:
        raise NotAReport(str(error)) from error


def head(text: str) -> dict[str, Any]:
    """What the run is called, from the beginning of a report, of which four lines are enough.

    Raises:
        NotAReport: it does not begin like one.
    """
    lines = text.split("\n", 4)
    try:
        said = json.loads("".join(lines[:4]).removesuffix(",") + "}")
    except (ValueError, RecursionError) as error:
        raise NotAReport("does not begin like a report") from error
    try:
        _check_version(said)
        run = _get(said, "run", dict)
        for key in ("id", "started", "fleet_file"):
            _get(run, key, str)
        return run
    except _Wrong as error:
        raise NotAReport(str(error)) from error


class _Wrong(Exception):
    pass


def _get(mapping: Any, key: str, kind: type[T]) -> T:
    if not isinstance(mapping, dict):
        raise _Wrong(f"has no mapping where {key} should stand")
    value = mapping.get(key)
    # A bool is an int to Python; a whole number is a float to JSON.
    if kind is float and type(value) is int:
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _Wrong(f"{key} is {'missing' if value is None else 'of the wrong type'}, expected {kind.__name__}")
    return value


def _check_version(document: Any) -> None:
    if _get(document, "format", str) != FORMAT:
        raise _Wrong(f"is no {FORMAT}")
    if (version := _get(document, "version", int)) != VERSION:
        raise _Wrong(f"is of version {version} of the format, this program reads {VERSION}")


def _run(document: Any) -> Run:
    _check_version(document)
    run = _get(document, "run", dict)
    return Run(
        _get(run, "id", str),
        _get(run, "started", str),
        _get(run, "fleet_file", str),
        tuple(_read_host(host) for host in _get(document, "hosts", list)),
        tuple(_read_verdict(verdict) for verdict in _get(document, "verdicts", list)),
        tuple(str(note) for note in _get(run, "notes", list)),
    )


def _read_host(host: Any) -> HostRun:
    evidence = None
    if host is not None and isinstance(host, dict) and host.get("evidence") is not None:
        seen = _get(host, "evidence", dict)
        evidence = Evidence(
            {
                name: Observation(
                    _get(one, "command", str), _get(one, "output", str), _get(one, "rc", int), _get(one, "error", str)
                )
                for name, one in seen.items()
            }
        )
    return HostRun(
        _get(host, "name", str),
        evidence,
        _get(host, "problem", str),
        _get(host, "unreachable", bool),
        _get(host, "boot_id", str),
        _get(host, "seconds", float),
    )


def _read_verdict(verdict: Any) -> Verdict:
    status = _get(verdict, "status", str)
    if status not in _STATUSES:
        raise _Wrong(f"status is {status[:40]!r}, expected one of {', '.join(_STATUSES)}")
    waiver = None
    if verdict.get("waiver") is not None:
        said = _get(verdict, "waiver", dict)
        try:
            expires = date.fromisoformat(_get(said, "expires", str))
        except ValueError as error:
            raise _Wrong("expires is no day, expected one such as 2027-03-31") from error
        waiver = WaiverNote(_get(said, "reason", str), _get(said, "owner", str), expires, _get(said, "state", str))
    return Verdict(
        _get(verdict, "control", str),
        _get(verdict, "host", str),
        _STATUSES[status],
        _get(verdict, "wanted", str),
        _get(verdict, "saw", str),
        _get(verdict, "command", str),
        waiver,
    )


_STATUSES = {str(status): status for status in Status}
