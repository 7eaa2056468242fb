"""By which version of sparkfleet each host was deployed to, and when: notes beside the verdicts. No I/O.

It judges nothing: a host can be safe under an older version. The evidence `applied` says it measure by measure.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sparkfleet.audit.model import Evidence, HostRun
from sparkfleet.audit.text import listed

MOST_NAMES = 12
LONGEST = 80


def notes(hosts: Sequence[HostRun]) -> tuple[str, ...]:
    """One line for all hosts of which the same is to be said; none of hosts that were not seen."""
    groups: dict[str, list[str]] = {}
    for host in hosts:
        if host.evidence is not None and (said := last_deploy(host.evidence)):
            groups.setdefault(said, []).append(host.name)
    return tuple(f"{said}: {listed(names, MOST_NAMES)}" for said, names in groups.items())


def last_deploy(evidence: Evidence) -> str:
    """What the host's history says of its last deploy; "" where the probe did not look (an older run)."""
    seen = evidence.observations.get("applied")
    if seen is None:
        return ""
    if seen.output.strip() == "none":
        return "no deploy is on record"
    try:
        last: Any = json.loads(seen.output)["last"]
        version, at, ended = last["version"], last["at"], last["ended"]
        bad = sorted(name for name, one in last["measures"].items() if one["result"] not in ("clean", "changed"))
    except (ValueError, LookupError, TypeError, AttributeError):
        return "the record of deploys (/var/lib/sparkfleet/applied.json) cannot be read"
    version = " ".join(str(version).split())
    how = "" if ended else ", which did not end"
    how += f", without {', '.join(bad)}" if bad else ""
    return f"applied by {version[:LONGEST]} on {str(at)[:10]}{how}"[: 3 * LONGEST]
