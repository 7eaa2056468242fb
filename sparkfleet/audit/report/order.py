"""What all reports share: worst first, and what is known about a control."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sparkfleet.audit.model import Control, Run, Severity, Status, Verdict

FLEET = "(fleet)"
"""How the reports call the host of a control about the fleet as a whole; no host can be called so."""

UNWELCOME = (Status.FAIL, Status.UNREACHABLE, Status.ERROR, Status.WAIVED)
"""What a reader must see, worst first. The others are PASS and NOT_APPLICABLE."""

RANK = {status: rank for rank, status in enumerate((*UNWELCOME, Status.PASS, Status.NOT_APPLICABLE))}


@dataclass(frozen=True)
class Card:
    """What reports say about a control."""

    id: str
    title: str
    severity: Severity
    measure: str
    aspect: str
    why: str
    source: str
    manual_fix: str
    evidence: tuple[str, ...]

    @property
    def group(self) -> str:
        """`SWAP` of SPK-SWAP-01."""
        return self.parts[0]

    @property
    def number(self) -> str:
        """`01` of SPK-SWAP-01."""
        return self.parts[1]

    @property
    def parts(self) -> tuple[str, str]:
        found = re.fullmatch(r"(?:[A-Z]+-)?([A-Z0-9_-]+)-([0-9]+)", self.id)
        return (found[1], found[2]) if found else (self.id, "")


def card(control: Control) -> Card:
    """The card of a control."""
    return Card(
        control.id,
        control.title,
        control.severity,
        control.measure,
        str(control.aspect),
        control.why,
        control.source,
        control.manual_fix,
        control.evidence,
    )


def cards(run: Run, controls: Sequence[Control]) -> dict[str, Card]:
    """Every control that the run has a verdict about, in the order of `controls`.

    One that is in the run only (an old run, and the control has gone) comes last, as of high severity: it may matter.
    """
    asked = dict.fromkeys(verdict.control for verdict in run.verdicts)
    known = {control.id: card(control) for control in controls if control.id in asked}
    for id in asked:
        if id not in known:
            known[id] = Card(id, "(this control exists no more)", Severity.HIGH, "", "", "", "", "", ())
    return known


def by_host(run: Run) -> dict[str, list[Verdict]]:
    """The verdicts of every host of the run, also of one without any; "" is the fleet as a whole, where it has some."""
    result: dict[str, list[Verdict]] = {host.name: [] for host in run.hosts}
    for verdict in run.verdicts:
        result.setdefault(verdict.host, []).append(verdict)
    return result


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts spark2 before spark10."""
    parts = re.split(r"([0-9]{1,18})", name)
    return tuple((0, int(part), "") if at % 2 else (1, 0, part) for at, part in enumerate(parts))


def badness(verdicts: Iterable[Verdict], known: dict[str, Card]) -> tuple[int, ...]:
    """A key that sorts the worst host first.

    Critical failures, then no connection, then failures by severity, then missing evidence, then what is waived.
    """
    count: Counter[object] = Counter()
    unreachable = 0
    for verdict in verdicts:
        if verdict.status is Status.FAIL:
            count[known[verdict.control].severity] -= 1
        elif verdict.status is Status.UNREACHABLE:
            unreachable = -1
        elif verdict.status in (Status.ERROR, Status.WAIVED):
            count[verdict.status] -= 1
    critical, *others = (count[severity] for severity in Severity)
    return (critical, unreachable, *others, count[Status.ERROR], count[Status.WAIVED])


def worst_first(grouped: dict[str, list[Verdict]], known: dict[str, Card]) -> list[str]:
    """The hosts' names; among equals by name, as people count."""
    return sorted(grouped, key=lambda name: (badness(grouped[name], known), natural(name)))


@dataclass(frozen=True)
class Finding:
    """An unwelcome verdict, with all the hosts of which exactly this was said."""

    card: Card
    verdict: Verdict
    """The first of them."""
    hosts: tuple[str, ...]


def findings(run: Run, known: dict[str, Card]) -> list[Finding]:
    """What fails, has no evidence, or is waived: worst first, the same of several hosts as one.

    Hosts without evidence are left out: that is said once a host, not once a control.
    """
    unseen = {host.name for host in run.hosts if host.evidence is None}
    groups: dict[tuple[object, ...], list[Verdict]] = {}
    for verdict in run.verdicts:
        if verdict.status in (Status.FAIL, Status.ERROR, Status.WAIVED) and verdict.host not in unseen:
            key = (verdict.control, verdict.status, verdict.wanted, verdict.saw, verdict.command, verdict.waiver)
            groups.setdefault(key, []).append(verdict)
    position = {id: at for at, id in enumerate(known)}

    def worst(finding: Finding) -> tuple[object, ...]:
        status, severity = finding.verdict.status, finding.card.severity
        return (RANK[status], severity.rank, position[finding.card.id], -len(finding.hosts), natural(finding.hosts[0]))

    made = []
    for same in groups.values():
        names = sorted((verdict.host or FLEET for verdict in same), key=natural)
        made.append(Finding(known[same[0].control], same[0], tuple(names)))
    return sorted(made, key=worst)


def totals(run: Run) -> Counter[Status]:
    """How many verdicts of each status."""
    return Counter(verdict.status for verdict in run.verdicts)


def mended_by(found: Card, status: Status) -> str:
    """How a deploy mends it, for a person; "" where none does or none is needed."""
    if status is Status.ERROR or not found.measure:
        return ""
    return f"a deploy of the measure {found.measure}"
