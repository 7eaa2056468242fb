"""Files of somebody else's that a deploy would refuse to deploy over: so that "mended by a deploy" is not said of them.

The deploy reads them (its resource `holds`), the audit knows their names only, from what PID 1 says of the units.
"""

from __future__ import annotations

from sparkfleet.audit.controls.kit import blocks, listed
from sparkfleet.audit.model import Evidence, NoEvidence

SEEN = {"ssh": "ssh_units", "training_slice": "slice_units", "watchdog": "watchdog_units"}
"""Measure → the observation that has its units' DropInPaths and FragmentPath."""
OURS = ("sparkfleet", "/ssh.service.d/oom.conf", "/ssh@.service.d/oom.conf")
"""What the paths of our own drop-ins contain."""


def somebodys(evidence: Evidence, measure: str) -> list[str]:
    """Drop-ins of the measure's units, below /etc, that are not ours; none where the units were not seen."""
    if SEEN.get(measure, "") not in evidence.observations:
        return []
    try:
        found = [path for unit in blocks(evidence, SEEN[measure]) for path in unit.get("DropInPaths", "").split()]
    except NoEvidence:
        return []
    # A unit's directory may have our name in it; the file's does not.
    names = [path for path in found if path.startswith("/etc/systemd/")]
    return [
        p for p in dict.fromkeys(names) if not any(ours in p.rpartition("/")[2] or p.endswith(ours) for ours in OURS)
    ]


def note(evidence: Evidence, measure: str) -> str:
    """What to say with a failure, or ""."""
    paths = somebodys(evidence, measure)
    return f"; a deploy refuses what overrides it: look at {listed(paths, 3)}, and remove that first" if paths else ""
