"""A run as one HTML page that needs nothing else: no server, no network, and no script to be read.

Whatever hosts or files said comes onto the page in one of two ways: through the template, which escapes it, or through
a block of JSON whose text the script puts into text nodes. Escape sequences and bidirectional controls are written out
in both. The page's security policy forbids every request, and every script and style but its own, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from sparkfleet.audit.model import Control, Evidence, Run, Severity, Status, Verdict, WaiverNote
from sparkfleet.audit.report import order
from sparkfleet.audit.report.order import FLEET, RANK, Card
from sparkfleet.audit.text import counted, cut, visible_lines

FOLDER = Path(__file__).parent
MOST = 16_000
"""Characters of evidence, and of any other text, that are on the page about what is unwelcome."""
MOST_PASSING = 1_000
"""About what passes, of which there is much."""
MOST_OPEN = 12
"""Findings that are unfolded at once."""
LETTERS = {
    Status.PASS: ("p", "·"),
    Status.FAIL: ("f", "F"),
    Status.WAIVED: ("w", "W"),
    Status.NOT_APPLICABLE: ("n", "–"),  # noqa: RUF001 - a dash as wide as a letter
    Status.ERROR: ("e", "E"),
    Status.UNREACHABLE: ("u", "U"),
}
"""The class and the letter of a status in the matrix."""
# The matrix is made of these alone, so its cells need no escaping.
CELLS = {
    (status, severity): f'<td class="{name} s{severity.rank}">{letter}'
    for status, (name, letter) in LETTERS.items()
    for severity in Severity
}
NO_CELL = "<td>"


def dumps(run: Run, controls: Sequence[Control]) -> str:
    """The page. It is to be written as UTF-8."""
    known = order.cards(run, controls)
    grouped = order.by_host(run)
    hosts = order.worst_first(grouped, known)
    columns = _worst_columns(run, known)
    page = _Page(run, columns)
    rows = [page.row(name, grouped[name]) for name in hosts]
    found = order.findings(run, known)
    count = order.totals(run)
    style, script = _asset("report.css"), _asset("report.js")
    return _template().render(
        run=run,
        statuses=[(status, LETTERS[status][0], count[status]) for status in RANK],
        severities=list(Severity),
        letters=[(str(status), *LETTERS[status]) for status in RANK],
        columns=columns,
        rows=rows,
        findings=found,
        unfolded=len(found) <= MOST_OPEN,
        unseen=[host for host in run.hosts if host.evidence is None],
        summary=f"{counted(len(run.hosts), 'host')}, {counted(len(columns), 'control')}",
        mended_by=order.mended_by,
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        data=_island(page.data()),
    )


def _worst_columns(run: Run, known: dict[str, Card]) -> list[Card]:
    """The controls, those first that fail somewhere, the more severe and the more often the further."""
    fails: dict[str, int] = {}
    for verdict in run.verdicts:
        if verdict.status is Status.FAIL:
            fails[verdict.control] = fails.get(verdict.control, 0) + 1
    rank = {id: (card.severity.rank if id in fails else len(Severity)) for id, card in known.items()}
    return sorted(known.values(), key=lambda card: (rank[card.id], -fails.get(card.id, 0)))


@dataclass(frozen=True)
class Row:
    """A host's row of the matrix."""

    name: str
    cells: Markup


class _Page:
    """Collects what the script shows on a click. Texts are kept once: most verdicts of a fleet are alike."""

    def __init__(self, run: Run, columns: list[Card]) -> None:
        self.columns = columns
        self.evidence = {host.name: host.evidence for host in run.hosts}
        self.texts: dict[tuple[str, int], int] = {}
        self.waivers: dict[WaiverNote | None, int] = {}
        self.shown: list[str] = []
        self.hosts: list[list[Any]] = []

    def text(self, text: str, most: int) -> int:
        """The number of a text on the page."""
        number = self.texts.get((text, most))
        if number is None:
            number = self.texts[text, most] = len(self.shown)
            self.shown.append(_short(text, most))
        return number

    def waiver(self, note: WaiverNote | None) -> int:
        number = self.waivers.get(note)
        if number is None:
            said = f"{note.state}, until {note.expires}, {note.owner}: {note.reason}" if note else ""
            number = self.waivers[note] = self.text(said, MOST)
        return number

    def row(self, name: str, verdicts: list[Verdict]) -> Row:
        """The host's row; the script's part of it is kept."""
        by_control = {verdict.control: verdict for verdict in verdicts}
        seen = self.evidence.get(name)
        cells, letters = [], []
        details: list[list[int]] = []
        for card in self.columns:
            verdict = by_control.get(card.id)
            if verdict is None:
                cells.append(NO_CELL)
                letters.append(" ")
                details.append([])
                continue
            cells.append(CELLS[verdict.status, card.severity])
            letters.append(LETTERS[verdict.status][0])
            details.append(self.detail(card, verdict, seen))
        shown = name or FLEET
        self.hosts.append([self.text(shown, MOST), "".join(letters), details])
        return Row(_short(shown, MOST), Markup("".join(cells)))

    def detail(self, card: Card, verdict: Verdict, seen: Evidence | None) -> list[int]:
        """Numbers of texts: wanted, saw, command, waiver, then command, output and error of each observation."""
        most = MOST_PASSING if verdict.status in (Status.PASS, Status.NOT_APPLICABLE) else MOST
        text = self.text
        numbers = [
            text(verdict.wanted, most),
            text(verdict.saw, most),
            text(verdict.command, most),
            self.waiver(verdict.waiver),
        ]
        if seen is not None:
            for name in card.evidence:
                if one := seen.observations.get(name):
                    error = f"exit code {one.rc}\n{one.error}" if one.rc else one.error
                    numbers += (text(one.command, most), text(one.output, most), text(error, most))
        return numbers

    def data(self) -> dict[str, Any]:
        """What the script reads. Texts come last: all rows must have been made."""
        cards = [
            [
                self.text(text, MOST)
                for text in (c.id, c.title, str(c.severity), c.measure, c.aspect, c.why, c.source, c.manual_fix)
            ]
            for c in self.columns
        ]
        return {"controls": cards, "hosts": self.hosts, "texts": self.shown}


def _short(text: str, most: int) -> str:
    """Visible text, which says how much of it was cut."""
    kept, more = cut(text, most)
    shown = visible_lines(kept)
    return f"{shown}\n[cut here: {more} more characters are in the JSON report]" if more else shown


def _island(data: dict[str, Any]) -> Markup:
    """JSON in which nothing can end the element that it stands in, or begin a comment; ASCII only."""
    text = json.dumps(data, ensure_ascii=True, check_circular=False, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _asset(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _finalize(value: object) -> object:
    """Every text of the template's variables, whoever wrote it: cut and visible. Markup is ours."""
    return _short(value, MOST) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FileSystemLoader(FOLDER),
    )
    return environment.get_template("report.html.j2")
