"""What has changed from one run to a later one, and whether anything has got worse.

A run holds its evidence, so an old one can be judged again by today's controls and waivers before it is compared: then
only the hosts have changed between the two, and not the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sparkfleet.audit.model import Control, Run, Severity, Status, Verdict
from sparkfleet.audit.report import order
from sparkfleet.audit.report.order import FLEET
from sparkfleet.audit.text import counted, listed, visible
from sparkfleet.audit.waivers import EXPIRED


class Kind(StrEnum):
    """How a verdict has changed, worst first."""

    NEWLY_FAILING = "newly failing"
    WAIVER_EXPIRED = "waiver expired"
    NO_LONGER_SEEN = "no longer seen"
    """It passed, failed or was waived, and now there is no evidence."""
    EVIDENCE_CHANGED = "evidence changed"
    """The verdict is as it was, what was seen is not."""
    WAIVED = "waived"
    """It failed, and now somebody answers for it."""
    SEEN_AGAIN = "seen again"
    FIXED = "fixed"
    OTHER = "other"
    """Such as a control that passed and is not applicable now."""


WORSE = (Kind.NEWLY_FAILING, Kind.WAIVER_EXPIRED, Kind.NO_LONGER_SEEN)
UNSEEN = (Status.ERROR, Status.UNREACHABLE)
FINE = (Status.PASS, Status.NOT_APPLICABLE)


@dataclass(frozen=True)
class Change:
    """A verdict that has changed."""

    kind: Kind
    control: str
    host: str
    """A host's name, or "" for a control about the fleet as a whole."""
    severity: Severity
    title: str
    old: Verdict | None
    """None: there was none."""
    new: Verdict


@dataclass(frozen=True)
class Diff:
    """What has changed from an old run to a new one."""

    old: str
    """The old run's id."""
    new: str
    changes: tuple[Change, ...]
    """Worst first. Of hosts and controls that have vanished there are none."""
    hosts_vanished: tuple[str, ...]
    hosts_appeared: tuple[str, ...]
    controls_vanished: tuple[str, ...]
    controls_appeared: tuple[str, ...]

    def of(self, *kinds: Kind) -> tuple[Change, ...]:
        """The changes of these kinds."""
        return tuple(change for change in self.changes if change.kind in kinds)

    @property
    def worse(self) -> bool:
        """Whether a protection has gone, or it is no longer known whether it is there."""
        return bool(self.of(*WORSE) or self.hosts_vanished or self.controls_vanished)

    @property
    def empty(self) -> bool:
        """Whether nothing has changed."""
        return not (
            self.changes
            or self.hosts_vanished
            or self.hosts_appeared
            or self.controls_vanished
            or self.controls_appeared
        )


def diff(old: Run, new: Run, controls: Sequence[Control] = ()) -> Diff:
    """Compares two runs of the same fleet. `controls` explain those of the new run: title and severity.

    A run of some hosts or controls only makes the others vanish: keep whole runs, or compare like with like.
    """
    known = order.cards(new, controls)
    before = {(verdict.control, verdict.host): verdict for verdict in old.verdicts}
    changes = []
    for verdict in new.verdicts:
        earlier = before.get((verdict.control, verdict.host))
        kind = _kind(earlier, verdict)
        if kind:
            card = known[verdict.control]
            changes.append(Change(kind, verdict.control, verdict.host, card.severity, card.title, earlier, verdict))
    rank = {kind: at for at, kind in enumerate(Kind)}
    position = {id: at for at, id in enumerate(known)}
    changes.sort(key=lambda c: (rank[c.kind], c.severity.rank, position[c.control], order.natural(c.host)))
    old_hosts, new_hosts = ([host.name for host in run.hosts] for run in (old, new))
    old_controls, new_controls = (list(dict.fromkeys(v.control for v in run.verdicts)) for run in (old, new))
    return Diff(
        old.id,
        new.id,
        tuple(changes),
        _without(old_hosts, new_hosts),
        _without(new_hosts, old_hosts),
        _without(old_controls, new_controls),
        _without(new_controls, old_controls),
    )


def _without(names: list[str], others: list[str]) -> tuple[str, ...]:
    gone = set(others)
    return tuple(sorted((name for name in names if name not in gone), key=order.natural))


def _kind(old: Verdict | None, new: Verdict) -> Kind | None:
    """How a verdict has changed; None where it has not."""
    was, now = old.status if old else None, new.status
    if now is Status.FAIL:
        if was is Status.FAIL:
            newly_expired = _expired(new) and not _expired(old)
            return Kind.WAIVER_EXPIRED if newly_expired else _saw(old, new)
        return Kind.WAIVER_EXPIRED if was is Status.WAIVED and _expired(new) else Kind.NEWLY_FAILING
    if now in UNSEEN:
        if was is None or was in UNSEEN:
            # A new host that cannot be reached is told as one that has appeared, and stands in every report.
            return None if was is now or was is None else Kind.OTHER
        return Kind.NO_LONGER_SEEN
    if was in UNSEEN:
        return Kind.SEEN_AGAIN
    if now is Status.WAIVED:
        return _saw(old, new) if was is Status.WAIVED else Kind.WAIVED
    if was in (Status.FAIL, Status.WAIVED):
        return Kind.FIXED
    if was is None:
        return None
    return _saw(old, new) if was is now else Kind.OTHER


def _expired(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.waiver is not None and verdict.waiver.state == EXPIRED


def _saw(old: Verdict | None, new: Verdict) -> Kind | None:
    return Kind.EVIDENCE_CHANGED if old and old.saw != new.saw else None


def summary(found: Diff, most: int = 300) -> str:
    """One line for a subject or a message, of at most `most` characters: what got worse, or that nothing did."""
    said = [
        _about(found.of(Kind.NEWLY_FAILING), "newly failing"),
        _about(found.of(Kind.WAIVER_EXPIRED), "waiver expired"),
        _unseen(found.of(Kind.NO_LONGER_SEEN)),
        f"vanished: {listed(found.hosts_vanished, 3)}" if found.hosts_vanished else "",
        f"no longer asked: {listed(found.controls_vanished, 3)}" if found.controls_vanished else "",
    ]
    text = "; ".join(part for part in said if part)
    if not text:
        fixed = len(found.of(Kind.FIXED))
        text = f"nothing got worse, {counted(fixed, 'control')} fixed" if fixed else "nothing got worse"
    return text if len(text) <= most else text[: most - 1] + "…"


def _about(changes: tuple[Change, ...], what: str) -> str:
    if not changes:
        return ""
    worst = changes[0]
    first = f"{visible(worst.control)} on {visible(worst.host or FLEET)}"
    more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
    return f"{what}: {first} ({worst.severity}){more}"


def _unseen(changes: tuple[Change, ...]) -> str:
    hosts = list(dict.fromkeys(change.host or FLEET for change in changes))
    return f"no longer seen: {listed(hosts, 3)}" if hosts else ""
