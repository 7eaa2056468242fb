"""Swap: none in use, and none that comes back."""

from __future__ import annotations

import re

from sparkfleet.audit.controls.kit import counted, judged, listed, malformed, not_applicable
from sparkfleet.audit.model import Aspect, Control, Evidence, Judgement, Severity
from sparkfleet.settings import HostSettings

HEADER = ["Filename", "Type", "Size", "Used", "Priority"]
KEEP = "swap.mode is keep in the fleet file"
HELD = r"ConditionPathExists=(?!/(?:dev|proc|run|sys|tmp)/)/\S+:absent"
"""A condition that holds a unit back: on a path that no boot makes by itself."""


def none_in_use(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "no line in /proc/swaps"
    header, *lines = evidence.text("swaps").splitlines()
    if header.split() != HEADER or any(len(line.split()) < 5 for line in lines):
        raise malformed(evidence, "swaps")
    if settings.swap.mode == "keep":
        return not_applicable(wanted, KEEP)
    used = [f"{line.split()[0]} ({int(line.split()[-2]) // 1024} MiB in use)" for line in lines]
    return judged(not used, wanted, listed(used) or "no swap")


def none_in_fstab(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "no entry of type swap in /etc/fstab"
    entries = [" ".join(line.split()) for line in counted(evidence, "fstab_swap", "swap entries")]
    if settings.swap.mode == "keep":
        return not_applicable(wanted, KEEP)
    return judged(not entries, wanted, listed(entries) or "none")


def no_unit_can_start(evidence: Evidence, settings: HostSettings) -> Judgement:
    """A unit is held by a condition on a path that is not there, or because it is masked (systemd.unit(5))."""
    wanted = "every swap unit held back by a condition that does not hold, or masked"
    units = counted(evidence, "swap_units", "swap units")
    if settings.swap.mode == "keep":
        return not_applicable(wanted, KEEP)
    free = []
    for line in units:
        name, state, _active, *conditions = line.split(" ")
        if "unknown:" in conditions:
            raise malformed(evidence, "swap_units")
        held = any(re.fullmatch(HELD, text) for text in conditions)
        if not held and state != "masked":
            free.append(name)
    saw = f"{listed(free)} can start" if free else f"{len(units)} swap units, none can start"
    return judged(not free, wanted, saw)


CONTROLS = (
    Control(
        id="SPK-SWAP-01",
        title="No swap is in use",
        severity=Severity.CRITICAL,
        measure="swap",
        aspect=Aspect.RUNNING,
        why="CPU and GPU share one memory: with swap on, a job that outgrows it does not die but freezes the host.",
        source="docs/facts.md, 1; proc_swaps(5)",
        manual_fix="swapoff -a, while `free` shows more available memory than swap in use",
        evidence=("swaps",),
        judge=none_in_use,
    ),
    Control(
        id="SPK-SWAP-02",
        title="fstab turns no swap on",
        severity=Severity.HIGH,
        measure="swap",
        aspect=Aspect.SURVIVES_REBOOT,
        why="`swapon -a`, which people and installers run, asks fstab and not systemd.",
        source="docs/facts.md, 2; swapon(8)",
        manual_fix="comment out the lines of type swap in /etc/fstab, then systemctl daemon-reload",
        evidence=("fstab_swap",),
        judge=none_in_fstab,
    ),
    Control(
        id="SPK-SWAP-03",
        title="No swap unit can start at boot",
        severity=Severity.CRITICAL,
        measure="swap",
        aspect=Aspect.SURVIVES_REBOOT,
        why="Swap also comes from .swap units, zram generators and GPT partitions: swap off today is back tomorrow.",
        source="docs/facts.md, 2 and 3; systemd-gpt-auto-generator(8)",
        manual_fix="find what overrides it with `systemctl cat UNIT`, or: systemctl mask UNIT",
        evidence=("swap_units",),
        judge=no_unit_can_start,
    ),
)
