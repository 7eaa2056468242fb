"""The tools for training users: they answer, and only root can replace them."""

from __future__ import annotations

import re

from sparkfleet.audit.controls.kit import judged, listed, malformed, only_roots
from sparkfleet.audit.model import Aspect, Control, Evidence, Judgement, Severity
from sparkfleet.settings import HostSettings

NOT_FOUND = 127
NAMES = ("spark-doctor", "spark-estimate", "spark-field-report", "spark-profile")


def answer(evidence: Evidence, settings: HostSettings) -> Judgement:
    """Each prints its usage: the interpreter, the program and the link to its release are all there."""
    wanted = "each tool answers --help"
    wrong = []
    lines = evidence.text("tools_answer").splitlines()
    if len(lines) != len(NAMES):
        raise malformed(evidence, "tools_answer")
    for name, line in zip(NAMES, lines, strict=True):
        match = re.fullmatch(rf"{name} (\d+) ?(.*)", line)
        if not match:
            raise malformed(evidence, "tools_answer")
        if match[1] != "0" or not match[2].startswith(f"usage: {name} "):
            wrong.append(f"{name}: exit code {match[1]}: {match[2] or 'no message'}")
    return judged(not wrong, wanted, listed(wrong) or f"{len(lines)} tools answer")


def only_root_replaces(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "the tools and every directory above root's, and writable for root only"
    seen = evidence.observations.get("tools_owner")
    if seen and seen.rc == NOT_FOUND:
        return judged(False, wanted, "a tool is not in PATH")
    return only_roots(evidence, "tools_owner", wanted)


CONTROLS = (
    Control(
        id="SPK-TOOLS-01",
        title="The tools for training users answer",
        severity=Severity.LOW,
        measure="tools",
        aspect=Aspect.RUNNING,
        why="Who cannot ask beforehand which batch fits finds out by taking the host's memory.",
        source="docs/estimate.md",
        manual_fix="deploy the measure tools again",
        evidence=("tools_answer",),
        judge=answer,
    ),
    Control(
        id="SPK-TOOLS-02",
        title="Only root can replace the tools",
        severity=Severity.HIGH,
        measure="tools",
        aspect=Aspect.CONFIGURED,
        why="Everybody runs them, root too: who can replace one, or a directory above it, is root with the next run.",
        source="path_resolution(7)",
        manual_fix="chown root: and chmod go-w what is named",
        evidence=("tools_owner",),
        judge=only_root_replaces,
    ),
)
