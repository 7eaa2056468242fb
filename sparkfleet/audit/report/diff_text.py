"""A difference of two runs for a terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.style import Style

from sparkfleet.audit.diff import UNSEEN, WORSE, Change, Diff, Kind, summary
from sparkfleet.audit.model import Status, Verdict
from sparkfleet.audit.report.grid import WIDEST
from sparkfleet.audit.report.lines import BOLD, NEW_LINE, SEVERITIES, STYLES, field, shortened, wrapped
from sparkfleet.audit.report.order import FLEET
from sparkfleet.audit.text import counted, listed, visible

FORMAT = "sparkfleet-audit-diff"
VERSION = 1

MANY = 4
"""From this many controls on, the same lack of evidence on a host is told once."""

HEADINGS = {
    Kind.NEWLY_FAILING: "Newly failing",
    Kind.WAIVER_EXPIRED: "Waiver expired",
    Kind.NO_LONGER_SEEN: "No longer seen",
    Kind.EVIDENCE_CHANGED: "As before, but other evidence",
    Kind.WAIVED: "Waived since",
    Kind.SEEN_AGAIN: "Seen again",
    Kind.FIXED: "Fixed",
    Kind.OTHER: "Changed otherwise",
}


def render(found: Diff) -> RenderableType:
    """What a rich console prints: worst first, with the old and the new evidence."""
    return _Text(found)


def dumps(found: Diff) -> str:
    """The difference as JSON: ASCII, ends with a line feed. What hooks get on their standard input."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "old": found.old,
        "new": found.new,
        "worse": found.worse,
        "summary": summary(found),
        "hosts_vanished": found.hosts_vanished,
        "hosts_appeared": found.hosts_appeared,
        "controls_vanished": found.controls_vanished,
        "controls_appeared": found.controls_appeared,
        "changes": [_change(change) for change in found.changes],
    }
    return json.dumps(document, ensure_ascii=True, indent=1) + "\n"


def _change(change: Change) -> dict[str, Any]:
    return {
        "kind": str(change.kind),
        "control": change.control,
        "host": change.host,
        "severity": str(change.severity),
        "title": change.title,
        "old": _verdict(change.old),
        "new": _verdict(change.new),
    }


def _verdict(verdict: Verdict | None) -> dict[str, str] | None:
    if verdict is None:
        return None
    return {
        "status": str(verdict.status),
        "wanted": verdict.wanted,
        "saw": verdict.saw,
        "command": verdict.command,
    }


@dataclass(frozen=True)
class _Text:
    found: Diff

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, WIDEST)
        found = self.found
        yield from _line(f"From {visible(found.old)} to {visible(found.new)}: {summary(found, 1000)}", width)
        yield from _names("Hosts that have vanished", found.hosts_vanished, width, STYLES[Status.FAIL])
        yield from _names("Controls that are no longer asked", found.controls_vanished, width, STYLES[Status.FAIL])
        for kind, same in groupby(found.changes, key=lambda change: change.kind):
            style = STYLES[Status.FAIL] if kind in WORSE else BOLD
            yield from _heading(HEADINGS[kind], style)
            yield from _changes(list(same), width)
        yield from _names("Hosts that have appeared", found.hosts_appeared, width, BOLD)
        yield from _names("Controls that are new", found.controls_appeared, width, BOLD)


def _line(text: str, width: int) -> Iterator[Segment]:
    for part in wrapped(text, width):
        yield Segment(part)
        yield NEW_LINE


def _heading(text: str, style: Style) -> Iterator[Segment]:
    yield NEW_LINE
    yield Segment(text, style)
    yield NEW_LINE


def _names(heading: str, names: tuple[str, ...], width: int, style: Style) -> Iterator[Segment]:
    if names:
        yield from _heading(heading, style)
        yield from field("", [listed(names, 40)], width, indent=2)


def _changes(changes: list[Change], width: int) -> Iterator[Segment]:
    # What has happened to a whole host is said once: it has gone, or answers garbage, and is not sixty changes.
    alike: dict[tuple[str, Status, str], list[Change]] = {}
    for change in changes:
        if unseen := _unseen(change):
            alike.setdefault((change.host, unseen.status, unseen.saw), []).append(change)
        else:
            yield from _one(change, width)
    for (host, status, _), same in alike.items():
        if len(same) < MANY and status is not Status.UNREACHABLE:
            for change in same:
                yield from _one(change, width)
            continue
        what = "be reached" if status is Status.UNREACHABLE else "be judged"
        said = f"could not {what}, and can be now" if same[0].kind is Kind.SEEN_AGAIN else f"cannot {what}"
        yield from field("", [f"{visible(host or FLEET)} {said} ({counted(len(same), 'control')})"], width, indent=2)


def _unseen(change: Change) -> Verdict | None:
    """The verdict without evidence on either side of a change, the newer one first."""
    for verdict in (change.new, change.old):
        if verdict and verdict.status in UNSEEN and change.kind in (Kind.NO_LONGER_SEEN, Kind.SEEN_AGAIN, Kind.OTHER):
            return verdict
    return None


def _one(change: Change, width: int) -> Iterator[Segment]:
    for at, part in enumerate(wrapped(f"{visible(change.control)} on {visible(change.host or FLEET)}", width - 2)):
        yield Segment(("  " if at == 0 else "    ") + part, BOLD)
        yield NEW_LINE
    yield Segment("    ")
    yield Segment(str(change.severity), SEVERITIES[change.severity])
    if change.title:
        title = next(wrapped(visible(change.title), width - 16))
        yield Segment(f": {title}")
    yield NEW_LINE
    if change.old:
        yield from _saw("was", change.old, width)
    yield from _saw("is", change.new, width)


def _saw(label: str, verdict: Verdict, width: int) -> Iterator[Segment]:
    first, *others = shortened(verdict.saw)
    yield from field(f"  {label}", [f"{verdict.status}: {first}" if first else str(verdict.status), *others], width)
