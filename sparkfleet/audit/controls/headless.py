"""The desktop is off, now and at the next boot."""

from __future__ import annotations

from sparkfleet.audit.controls.kit import blocks, judged, malformed, one_word, shortened
from sparkfleet.audit.model import Aspect, Control, Evidence, Judgement, Severity
from sparkfleet.settings import HostSettings

TARGET = "multi-user.target"


def no_desktop(evidence: Evidence, settings: HostSettings) -> Judgement:
    wanted = "no display manager runs"
    (unit,) = blocks(evidence, "desktop_manager")
    loaded, state = unit.get("LoadState", ""), unit.get("ActiveState", "")
    if not loaded or not state:
        raise malformed(evidence, "desktop_manager")
    if loaded == "not-found":
        return judged(True, wanted, "there is no display manager")
    return judged(state in ("inactive", "failed"), wanted, f"{shortened(unit['Id'], 60)} is {state}")


def none_at_boot(evidence: Evidence, settings: HostSettings) -> Judgement:
    found = one_word(evidence, "default_target")
    if not found.endswith(".target"):
        raise malformed(evidence, "default_target")
    return judged(found == TARGET, f"the default target is {TARGET}", found)


CONTROLS = (
    Control(
        id="SPK-HEADLESS-01",
        title="No desktop runs",
        severity=Severity.LOW,
        measure="headless",
        aspect=Aspect.RUNNING,
        why="A desktop holds memory, and time of the GPU, that jobs were promised.",
        source="systemd.special(7), display-manager.service",
        manual_fix="systemctl stop display-manager",
        evidence=("desktop_manager",),
        judge=no_desktop,
    ),
    Control(
        id="SPK-HEADLESS-02",
        title="The host boots without a desktop",
        severity=Severity.LOW,
        measure="headless",
        aspect=Aspect.SURVIVES_REBOOT,
        why="A desktop that was stopped by hand is back after the next boot.",
        source="systemd.special(7), default.target",
        manual_fix="systemctl set-default multi-user.target",
        evidence=("default_target",),
        judge=none_at_boot,
    ),
)
