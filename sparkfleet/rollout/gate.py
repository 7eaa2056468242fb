"""Whether a batch was good. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparkfleet.audit.model import Control, HostRun, Run, Severity, Status, Verdict
from sparkfleet.deploy.outcome import CODES, Outcome, State
from sparkfleet.exit_codes import ExitCode
from sparkfleet.rollout.state import Progress

BAD = (Status.FAIL, Status.ERROR, Status.UNREACHABLE)
"""A control without evidence closes the gate as well: it may hide a lost host. A waived one does not."""


@dataclass(frozen=True)
class Refusal:
    """Why a host may not pass: one line, and what that is as an exit code."""

    reason: str
    code: ExitCode


def refused(
    hosts: Sequence[str], deployed: Sequence[Outcome], run: Run | None, controls: Sequence[Control]
) -> dict[str, Refusal]:
    """The hosts of a batch that may not pass; empty for a good batch.

    `run`: the audit of these hosts after the deploy, over connections of its own; None: there was none.
    """
    critical = {control.id for control in controls if control.severity is Severity.CRITICAL}
    outcomes = {one.host: one for one in deployed}
    audited = {one.name: one for one in run.hosts} if run else {}
    verdicts = run.verdicts if run else ()
    found: dict[str, Refusal] = {}
    for host in hosts:
        judged = [verdict for verdict in verdicts if verdict.host == host and verdict.control in critical]
        if (refusal := by_deploy(outcomes.get(host)) or by_audit(audited.get(host), judged)) is not None:
            found[host] = refusal
    return found


def by_deploy(outcome: Outcome | None) -> Refusal | None:
    if outcome is None:
        return Refusal("deploy: not heard of", ExitCode.FAILURE)
    if outcome.state in (State.CLEAN, State.CHANGED):
        return None
    return Refusal(f"deploy: {outcome.state}: {outcome.reason}", CODES[outcome.state])


def by_audit(seen: HostRun | None, judged: Sequence[Verdict]) -> Refusal | None:
    """By the critical controls of one host."""
    if seen is None or seen.evidence is None:
        return Refusal(f"audit: {seen.problem if seen else 'not looked at'}", ExitCode.UNREACHABLE)
    for verdict in judged:
        if verdict.status in BAD:
            code = ExitCode.FAILURE if verdict.status is Status.FAIL else ExitCode.UNREACHABLE
            return Refusal(f"audit: {verdict.control} {verdict.status}: {verdict.saw}", code)
    return None if judged else Refusal("audit: no critical control was judged", ExitCode.UNREACHABLE)


def summary(hosts: Mapping[str, Progress], reasons: Mapping[str, str]) -> list[str]:
    """One line a host, in the order of the run; the reason where there is one."""
    width = max((len(host) for host in hosts), default=0)
    return [
        f"{host:<{width}}  {progress}{f': {reasons[host]}' if reasons.get(host) else ''}"
        for host, progress in hosts.items()
    ]
