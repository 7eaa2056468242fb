"""Facts beside the verdicts, as notes: which version was applied and when, and which packages are held. No I/O.

They judge nothing: a host can be safe under an older version, and a kernel is held for a reason. The evidence `applied`
says measure by measure what was applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparkfleet import foreign
from sparkfleet.audit.model import Evidence, HostRun
from sparkfleet.audit.text import listed
from sparkfleet.mistakes import mistake

MOST_NAMES = 12
LONGEST = 80


def notes(hosts: Sequence[HostRun]) -> tuple[str, ...]:
    """One line for all hosts of which the same is to be said; none of hosts that were not seen."""
    groups: dict[str, list[str]] = {}
    for host in hosts:
        for said in said_of(host.evidence) if host.evidence else ():
            if said:
                groups.setdefault(said, []).append(host.name)
    return tuple(f"{said}: {listed(names, MOST_NAMES)}" for said, names in groups.items())


def said_of(evidence: Evidence) -> tuple[str, ...]:
    """What is to be said of one host; what nobody has foreseen is a note of this host's."""
    try:
        return last_deploy(evidence), held_packages(evidence)
    except Exception as error:
        return (mistake(error),)


def last_deploy(evidence: Evidence) -> str:
    """What the host's history says of its last deploy; "" where the probe did not look (an older run)."""
    seen = evidence.observations.get("applied")
    if seen is None:
        return ""
    if seen.output.strip() == "none":
        return "no deploy is on record"
    try:
        last: Any = foreign.plain(foreign.loads(seen.output))["last"]
        version, at, ended = last["version"], last["at"], last["ended"]
        bad = sorted(name for name, one in last["measures"].items() if one["result"] not in ("clean", "changed"))
    except (ValueError, LookupError, TypeError, AttributeError):
        return "the record of deploys (/var/lib/sparkfleet/applied.json) cannot be read"
    version = " ".join(str(version).split())
    how = "" if ended else ", which did not end"
    how += f", without {', '.join(bad)}" if bad else ""
    return f"applied by {version[:LONGEST]} on {str(at)[:10]}{how}"[: 3 * LONGEST]


def held_packages(evidence: Evidence) -> str:
    """The packages of kernel and driver that are kept from being updated; "" where there are none."""
    seen = evidence.observations.get("held_packages")
    names = [" ".join(line.split())[:LONGEST] for line in seen.output.splitlines()[1:]] if seen and not seen.rc else []
    return f"held back from updates: {listed(names, MOST_NAMES)}" if names else ""
