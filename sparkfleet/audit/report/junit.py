"""A run as JUnit XML, for whoever shows test results: a test suite a host, a test case a control.

What fails is a `failure`; what could not be seen (error, unreachable) is an `error`; what is waived or not applicable
is `skipped`. Elements and attributes are those that Jenkins, GitLab and GitHub's readers agree on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from sparkfleet.audit.model import Control, Run, Status, Verdict
from sparkfleet.audit.report import order
from sparkfleet.audit.report.order import FLEET, Card
from sparkfleet.audit.text import cut, visible, visible_lines

ELEMENT = {
    Status.FAIL: "failure",
    Status.ERROR: "error",
    Status.UNREACHABLE: "error",
    Status.WAIVED: "skipped",
    Status.NOT_APPLICABLE: "skipped",
}
MOST = 10_000
"""Characters of one text; readers keep all of a file in memory."""
MOST_IN_ATTRIBUTE = 500
# Printable for Python, yet no character of XML 1.0: none is known, so this is a second lock on the door.
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def dumps(run: Run, controls: Sequence[Control]) -> str:
    """The document; it is to be written as UTF-8. Hosts stand worst first."""
    known = order.cards(run, controls)
    grouped = order.by_host(run)
    seconds = {host.name: host.seconds for host in run.hosts}
    count = _counts(run.verdicts)
    parts = ['<?xml version="1.0" encoding="UTF-8"?>\n']
    parts.append(f'<testsuites name="sparkfleet audit" {count} time="{sum(seconds.values()):.3f}">\n')
    started = _attribute(run.started.removesuffix("Z"))
    for name in order.worst_first(grouped, known):
        verdicts = grouped[name]
        shown = _attribute(name or FLEET)
        time = f"{seconds.get(name, 0):.3f}"
        parts.append(
            f'<testsuite name={shown} {_counts(verdicts)} timestamp={started} hostname={shown} time="{time}">\n'
        )
        # A class is what readers group by, and dots in it are packages to them.
        group = _attribute((name or FLEET).replace(".", "_"))
        parts += [_case(verdict, known[verdict.control], group) for verdict in verdicts]
        parts.append("</testsuite>\n")
    if run.notes:
        parts.append(_notes(run, started))
    parts.append("</testsuites>\n")
    return "".join(parts)


def _clean(text: str) -> str:
    return NO_XML.sub("\ufffd", visible_lines(text))


def cut_with_note(text: str) -> str:
    """The text, no longer than `MOST` characters and a note."""
    kept, more = cut(text, MOST)
    return f"{kept}\n(cut here: {more} more characters)" if more else kept


def _attribute(text: str) -> str:
    return quoteattr(NO_XML.sub("\ufffd", visible(cut(text, MOST_IN_ATTRIBUTE)[0])))


def _counts(verdicts: Sequence[Verdict]) -> str:
    count = Counter(ELEMENT.get(verdict.status) for verdict in verdicts)
    return (
        f'tests="{len(verdicts)}" failures="{count["failure"]}" errors="{count["error"]}" skipped="{count["skipped"]}"'
    )


def _case(verdict: Verdict, found: Card, group: str) -> str:
    name = _attribute(f"{found.id} {found.title}")
    element = ELEMENT.get(verdict.status)
    if element is None:
        return f'<testcase classname={group} name={name} time="0"/>\n'
    summary = f"{verdict.status} ({found.severity}): wanted {verdict.wanted}; saw {verdict.saw}"
    kind = "" if element == "skipped" else f" type={_attribute(f'{found.severity} {verdict.status}')}"
    body = escape(_clean("\n".join(_told(verdict, found))))
    opened = f'<testcase classname={group} name={name} time="0"><{element} message={_attribute(summary)}{kind}>'
    return f"{opened}{body}</{element}></testcase>\n"


def _told(verdict: Verdict, found: Card) -> list[str]:
    said = {"wanted": verdict.wanted, "saw": verdict.saw, "seen by": verdict.command}
    lines = [f"{label}: {cut_with_note(text)}" for label, text in said.items()]
    if waiver := verdict.waiver:
        lines.append(f"waiver: {waiver.state}, until {waiver.expires}, {waiver.owner}: {waiver.reason}")
    if verdict.status in (Status.FAIL, Status.ERROR) and found.manual_fix:
        lines.append(f"by hand: {found.manual_fix}")
    if mended := order.mended_by(found, verdict.status):
        lines.append(f"mended by: {mended}")
    return lines


def _notes(run: Run, started: str) -> str:
    """The notes as cases that pass: readers show no other place, and a stale waiver breaks no build."""
    cases = "".join(
        f'<testcase classname="notes" name={_attribute(note)} time="0"/>\n' for note in dict.fromkeys(run.notes)
    )
    count = len(dict.fromkeys(run.notes))
    zero = 'failures="0" errors="0" skipped="0"'
    return f'<testsuite name="notes" tests="{count}" {zero} timestamp={started} time="0">\n{cases}</testsuite>\n'
