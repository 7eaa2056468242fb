"""The report for a terminal: a grid of hosts and controls, worst first, then what to do about each failing verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment

from sparkfleet.audit.model import Control, Run, Status, Verdict
from sparkfleet.audit.report import order
from sparkfleet.audit.report.lines import BOLD, DIM, NEW_LINE, SEVERITIES, STYLES, field, shortened, wrapped
from sparkfleet.audit.report.order import FLEET, Card, Finding
from sparkfleet.audit.text import counted, listed, visible, visible_lines

LETTERS = {
    Status.PASS: ".",
    Status.FAIL: "F",
    Status.WAIVED: "w",
    Status.NOT_APPLICABLE: "-",
    Status.ERROR: "E",
    Status.UNREACHABLE: "U",
}
LEGEND = "F fails  E no evidence  U unreachable  w waived  - not applicable  . passes"
WIDEST = 120
"""Columns of text; the grid itself takes all that there are."""
LONGEST_NAME = 24
MANY = 20
"""From this many hosts on, those about which there is nothing to say are named in one line."""
MOST_NAMES = 12


def render(run: Run, controls: Sequence[Control]) -> RenderableType:
    """What a rich console prints. `controls` explain the verdicts; of one that is missing only the id is known."""
    return Grid(run, controls)


@dataclass(frozen=True)
class Grid:
    """The report; it is laid out for the width of the console that prints it, 80 columns where that is a pipe."""

    run: Run
    controls: Sequence[Control]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, WIDEST)
        known = order.cards(self.run, self.controls)
        grouped = order.by_host(self.run)
        names = order.worst_first(grouped, known)
        yield from _head(self.run, width)
        yield from _matrix(self.run, known, grouped, names, options.max_width)
        yield from _unreachable(self.run, width)
        for finding in order.findings(self.run, known):
            yield from _finding(finding, width)
        for note in self.run.notes:
            yield NEW_LINE
            yield from field("note", [visible(note)], width, indent=8)
        yield NEW_LINE
        yield from _total(self.run, width)


def _text(text: str, width: int) -> Iterator[Segment]:
    for line in wrapped(text, width):
        yield Segment(line)
        yield NEW_LINE


def _head(run: Run, width: int) -> Iterator[Segment]:
    yield from _text(f"Audit {visible(run.id)} of {visible(run.fleet_file)}, {visible(run.started)}", width)
    yield NEW_LINE


def _short(name: str, width: int) -> str:
    """A host's name in at most `width` cells; the end tells hosts apart, so the middle goes."""
    name = visible(name)
    if len(name) > width:
        name = name[: width // 2 - 1] + "…" + name[len(name) - (width - width // 2) :]
    while cell_len(name) > width:
        name = name[:-1]
    return name


def _matrix(
    run: Run, known: dict[str, Card], grouped: dict[str, list[Verdict]], names: list[str], width: int
) -> Iterator[Segment]:
    """A row a host, a letter a control. The controls' numbers stand above, to be read downwards."""
    dull = [name for name in names if len(grouped) >= MANY and _is_dull(grouped[name])]
    rows = [name for name in names if name not in set(dull)]
    first = min(max((len(visible(name)) for name in (*rows, FLEET)), default=0), LONGEST_NAME)
    for block in _blocks(known, width - first - 2):
        yield from _header(block, first)
        for name in rows:
            yield from _row(name, grouped[name], block, first)
        yield NEW_LINE
    if dull:
        clean = f"Nothing to say about {counted(len(dull), 'other host')}: "
        yield from _text(clean + listed(dull, MOST_NAMES), width)
    yield from _text(LEGEND, width)


def _is_dull(verdicts: list[Verdict]) -> bool:
    return bool(verdicts) and all(v.status in (Status.PASS, Status.NOT_APPLICABLE) for v in verdicts)


Block = list[tuple[str, list[Card]]]
"""The groups of controls that stand side by side, each with its name."""


def _blocks(known: dict[str, Card], width: int) -> Iterator[Block]:
    """As many groups side by side as fit; a group wider than the terminal is split."""
    block: Block = []
    used = 0
    for name, members in groupby(known.values(), key=lambda found: found.group):
        left = list(members)
        while left:
            size = max(width, 8)
            part, left = left[:size], left[size:]
            wide = max(len(part), min(len(visible(name)), 12)) + 2
            if block and used + wide - 2 > width:
                yield block
                block, used = [], 0
            block.append((name, part))
            used += wide
    if block:
        yield block


def _column(name: str, part: list[Card]) -> tuple[str, int]:
    """The group's name as it fits, and how wide its column is."""
    shown = _short(name, 12)
    return shown, max(len(part), cell_len(shown))


def _header(block: Block, first: int) -> Iterator[Segment]:
    digits = max((len(found.number) for _, part in block for found in part), default=0)
    lines = [" " * first] * (1 + digits)
    for name, part in block:
        shown, wide = _column(name, part)
        lines[0] += "  " + shown + " " * (wide - cell_len(shown))
        for row in range(digits):
            marks = "".join(found.number.rjust(digits)[row] for found in part)
            lines[1 + row] += "  " + marks.ljust(wide)
    for at, line in enumerate(lines):
        yield Segment(line.rstrip(), BOLD if at == 0 else DIM)
        yield NEW_LINE


def _row(name: str, verdicts: list[Verdict], block: Block, first: int) -> Iterator[Segment]:
    shown = _short(name or FLEET, first)
    yield Segment(shown + " " * (first - cell_len(shown)), BOLD)
    of = {verdict.control: verdict.status for verdict in verdicts}
    for group, part in block:
        _, wide = _column(group, part)
        yield Segment("  ")
        for status, same in groupby(of.get(found.id) for found in part):
            letter = " " if status is None else LETTERS[status]
            yield Segment(letter * len(list(same)), None if status is None else STYLES[status])
        yield Segment(" " * (wide - len(part)))
    yield NEW_LINE


def _unreachable(run: Run, width: int) -> Iterator[Segment]:
    for host in run.hosts:
        if host.evidence is None:
            yield NEW_LINE
            what = "unreachable" if host.unreachable else "no evidence"
            yield Segment(_short(host.name, width - 16), BOLD)
            yield Segment(f"  {what}", STYLES[Status.UNREACHABLE])
            yield NEW_LINE
            yield from field("why", shortened(host.problem or "it is not known why"), width)


def _finding(finding: Finding, width: int) -> Iterator[Segment]:
    found, verdict = finding.card, finding.verdict
    yield NEW_LINE
    yield Segment(_short(found.id, width // 2), BOLD)
    yield Segment("  ")
    yield Segment(str(verdict.status), STYLES[verdict.status])
    yield Segment("  ")
    yield Segment(str(found.severity), SEVERITIES[found.severity])
    yield NEW_LINE
    yield from field("title", [visible(found.title)], width)
    yield from field("on", [listed(finding.hosts, MOST_NAMES)], width)
    yield from field("wanted", shortened(verdict.wanted), width)
    yield from field("saw", shortened(verdict.saw), width)
    yield from field("seen by", shortened(verdict.command), width)
    if waiver := verdict.waiver:
        said = f"{waiver.state}, until {waiver.expires}, {visible(waiver.owner)}: {visible(waiver.reason)}"
        yield from field("waiver", [said], width)
    if verdict.status is not Status.WAIVED:
        if found.manual_fix:
            yield from field("by hand", visible_lines(found.manual_fix).rstrip("\n").split("\n"), width)
        if mended := order.mended_by(found, verdict.status):
            yield from field("mended by", [visible(mended)], width)


def _total(run: Run, width: int) -> Iterator[Segment]:
    count = order.totals(run)
    said = ", ".join(f"{count[status]} {status}" for status in Status if count[status]) or "none"
    known = f"{counted(len(run.hosts), 'host')}, {counted(len(run.verdicts), 'verdict')}: {said}"
    yield from _text(known, width)
