"""Whether a batch was good, and what is where after a run. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparkfleet.audit.model import Control, Run, Severity, Status
from sparkfleet.deploy.outcome import Outcome, State
from sparkfleet.rolling.state import Progress
from sparkfleet.settings.problems import escaped

BAD = (Status.FAIL, Status.ERROR, Status.UNREACHABLE)
"""A control without evidence closes the gate as well: it may hide a lost host. A waived one does not."""


def refused(hosts: Sequence[str], deployed: Sequence[Outcome], run: Run, controls: Sequence[Control]) -> dict[str, str]:
    """The hosts of a batch that may not pass, each with one line that says why; empty for a good batch.

    `run`: the audit of these hosts after the deploy, over connections of its own.
    """
    critical = {control.id for control in controls if control.severity is Severity.CRITICAL}
    outcomes = {one.host: one for one in deployed}
    audited = {one.name: one for one in run.hosts}
    found: dict[str, str] = {}
    for host in hosts:
        outcome, seen = outcomes.get(host), audited.get(host)
        judged = [verdict for verdict in run.verdicts if verdict.host == host and verdict.control in critical]
        failed = [verdict for verdict in judged if verdict.status in BAD]
        if outcome is None or outcome.state not in (State.CLEAN, State.CHANGED):
            found[host] = f"deploy: {outcome.state}: {escaped(outcome.reason)}" if outcome else "deploy: not heard of"
        elif seen is None or seen.evidence is None:
            found[host] = f"audit: {escaped(seen.problem) if seen else 'not looked at'}"
        elif failed:
            found[host] = f"audit: {failed[0].control} {failed[0].status}: {escaped(failed[0].saw)}"
        elif not judged:
            found[host] = "audit: no critical control was judged"
    return found


def summary(hosts: Mapping[str, Progress], reasons: Mapping[str, str]) -> list[str]:
    """One line a host, in the order of the run; the reason where there is one."""
    width = max((len(host) for host in hosts), default=0)
    return [
        f"{host:<{width}}  {progress}{f': {reasons[host]}' if reasons.get(host) else ''}"
        for host, progress in hosts.items()
    ]
